"""What kubeconfig files say of one context, merged as kubectl merges them: of each name the first file's counts.

Fields that kubectl knows and this program does not honour are refused by name. What kubectl itself does not know it
leaves alone, and so do we, with a warning.
"""

from __future__ import annotations

import base64
import binascii
import logging
import os
import re
import stat
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from executors.errors import ConfigError
from executors.yaml_text import said

log = logging.getLogger(__name__)

_CLUSTER = {
    "server", "tls-server-name", "insecure-skip-tls-verify", "certificate-authority", "certificate-authority-data",
    "proxy-url", "disable-compression", "extensions",
}  # fmt: skip
_USER = {
    "client-certificate", "client-certificate-data", "client-key", "client-key-data", "token", "tokenFile", "as",
    "as-uid", "as-groups", "as-user-extra", "username", "password", "auth-provider", "exec", "extensions",
}  # fmt: skip
_PEM_BLOCK = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)


#: What PyYAML raises for a value that is not what its tag says, and for what is nested too deep.
_OF_VALUES = (ValueError, LookupError, AttributeError, TypeError, RecursionError)


@dataclass(frozen=True)
class Section:
    """A cluster or a user of a kubeconfig: its fields, and the file's folder, to which its paths are relative."""

    fields: Mapping[str, Any]
    folder: Path
    #: For messages: ``users[me] of /home/me/.kube/config``.
    where: str

    def problem(self, field: str, text: str) -> ConfigError:
        return ConfigError([f"{field} in {self.where}: {text}"])

    def text(self, field: str) -> str:
        """ "" where it is not given. Raises ConfigError, without the value, which may be a secret."""
        value = self.fields.get(field)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise self.problem(field, f"is a {type(value).__name__}; it must be a string: put it in quotes")
        return value

    def flag(self, field: str) -> bool:
        value = self.fields.get(field)
        if value is not None and not isinstance(value, bool):
            raise self.problem(field, f"{value!r} must be true or false")
        return bool(value)

    def texts(self, field: str) -> tuple[str, ...]:
        return _texts(self, field, self.fields.get(field))

    def extra(self, field: str) -> dict[str, tuple[str, ...]]:
        """A mapping of names to lists of strings."""
        value = self.fields.get(field)
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            raise self.problem(field, f"is a {type(value).__name__}; it must be a mapping of names to lists of strings")
        return {str(name): _texts(self, f"{field}.{name}", inner) for name, inner in value.items()}

    def pem(self, field: str) -> str:
        """The PEM blocks that ``field``-data holds, or the file that ``field`` names; "" for neither."""
        data = self.text(f"{field}-data")
        if data:
            try:
                found = base64.b64decode("".join(data.split()), validate=True)
            except binascii.Error as err:
                raise self.problem(f"{field}-data", f"is not base64: {err}") from None
            return self._blocks(f"{field}-data", found)
        path = self.text(field)
        return self._blocks(field, self.file(field)) if path else ""

    def file(self, field: str) -> bytes:
        path = self.path(field)
        try:
            return path.read_bytes()
        except OSError as err:
            raise self.problem(field, f"{path} cannot be read: {err.strerror or err}") from None

    def path(self, field: str) -> Path:
        return self.folder / self.text(field)

    def _blocks(self, field: str, data: bytes) -> str:
        blocks = [found.group() for found in _PEM_BLOCK.finditer(data.decode("utf-8", "replace"))]
        if not blocks:
            raise self.problem(field, "holds no PEM block (-----BEGIN ...-----)")
        return "\n".join(blocks) + "\n"


@dataclass(frozen=True)
class Selected:
    """A context."""

    cluster: Section
    #: Nobody's, where the context names no user.
    user: Section
    namespace: str


def is_there(path: str | Path) -> bool:
    """Whether there is a file, or a pipe (``--kubeconfig <(decrypt ...)``). Devices, /dev/null above all, are none."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISREG(mode) or stat.S_ISFIFO(mode)


def select(files: Sequence[Path], context: str | None) -> Selected:
    """The context of that name, or the current one. Raises ConfigError."""
    where = ", ".join(map(str, files))
    documents = [(path, _read(path)) for path in files if is_there(path)]
    if not documents:
        raise _unknown(f"there is no kubeconfig {where}")
    name = context or next((one for _, document in documents if (one := _current(document))), "")
    if not name:
        raise _unknown(f"the kubeconfig {where} has no current-context; name one in run.context")
    found = _named(documents, "contexts", "context", name)
    if found is None:
        names = ", ".join(dict.fromkeys(str(one) for _, document in documents for one in _names(document, "contexts")))
        origin = "run.context" if context else "current-context"
        raise ConfigError([f"{origin}: {name!r} is not in the kubeconfig {where}; it has {names or 'none'}"])
    cluster = _named(documents, "clusters", "cluster", found.text("cluster"))
    if cluster is None:
        raise found.problem("cluster", f"{found.text('cluster')!r} is not among the clusters of {where}")
    user_name = found.text("user")
    user = _named(documents, "users", "user", user_name) if user_name else Section({}, Path(), "no user")
    if user is None:
        raise found.problem("user", f"{user_name!r} is not among the users of {where}")
    for section, known in ((cluster, _CLUSTER), (user, _USER)):
        strange = sorted(str(field_) for field_ in section.fields if field_ not in known)
        if strange:
            log.warning("%s: %s: unknown field, which has no effect (as in kubectl)", section.where, ", ".join(strange))
    return Selected(cluster, user, found.text("namespace") or "default")


def _texts(section: Section, field: str, value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise section.problem(field, "must be a list of strings")
    return tuple(value)


def _unknown(text: str) -> ConfigError:
    return ConfigError(
        [f"no Kubernetes cluster is known: {text}; give --kubeconfig, KUBECONFIG or run.kubeconfig, or run in a pod"]
    )


#: What pipes held: they give it once, and credentials that end have the kubeconfig read again.
_piped: dict[tuple[int, int, int], bytes] = {}
_piping = threading.Lock()


def _content(path: Path) -> bytes:
    if not path.is_fifo():
        return path.read_bytes()
    with _piping:
        known = _piped.get(_identity(path.stat()))
        if known is not None:
            return known
        with path.open("rb") as file:
            content = file.read()
            _piped[_identity(os.fstat(file.fileno()))] = content
        return content


def _identity(status: os.stat_result) -> tuple[int, int, int]:
    """The last is another when a pipe of the same name has been made, or something was written since."""
    return status.st_dev, status.st_ino, status.st_ctime_ns


def _read(path: Path) -> Mapping[str, Any]:
    import yaml  # most clients read one file, and some none

    try:
        document = yaml.load(_content(path), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except OSError as err:
        raise _unknown(f"{path} cannot be read: {err.strerror or err}") from None
    except (yaml.YAMLError, *_OF_VALUES) as err:
        mark = getattr(err, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark is not None else ""
        # Without the line itself: it may be a token's.
        raise _unknown(f"{path} is not valid YAML{where}: {said(err)}") from None
    if document is None:
        return {}
    if not isinstance(document, Mapping):
        raise _unknown(f"{path} contains no mapping, so it is not a kubeconfig")
    for section in ("contexts", "clusters", "users"):
        entries = document.get(section)
        if entries is not None and not (
            isinstance(entries, list) and all(isinstance(entry, Mapping) for entry in entries)
        ):
            raise _unknown(f"{section} in {path} is not a list of mappings")
    return document


def _current(document: Mapping[str, Any]) -> str:
    name = document.get("current-context")
    return name if isinstance(name, str) else ""


def _names(document: Mapping[str, Any], section: str) -> list[Any]:
    return [one.get("name") for one in document.get(section) or []]


def _named(documents: Sequence[tuple[Path, Mapping[str, Any]]], section: str, key: str, name: str) -> Section | None:
    for path, document in documents:
        for entry in document.get(section) or []:
            if entry.get("name") == name:
                where = f"{section}[{name}] of {path}"
                fields = entry.get(key) or {}
                if not isinstance(fields, Mapping):
                    raise ConfigError([f"{key} in {where}: is not a mapping"])
                return Section(fields, path.absolute().parent, where)
    return None
