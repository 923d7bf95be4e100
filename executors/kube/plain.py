"""Access to a cluster without the kubernetes package, whose import takes a quarter of a second: that is more than all
requests of a client that joins a MiniCluster, and an engine with a process per task would pay it per task.

For what needs no more than a file: a pod's service account, and kubeconfigs with a token or a certificate. Credential
plugins, passwords, proxies and merged kubeconfigs are left to the package.
"""

from __future__ import annotations

import base64
import binascii
import os
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from executors.errors import ProvisionError

if TYPE_CHECKING:
    import urllib3

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_PROXIES = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")
_CLUSTER = {
    "server", "certificate-authority", "certificate-authority-data", "insecure-skip-tls-verify", "tls-server-name",
}  # fmt: skip
_USER = {"token", "tokenFile", "client-certificate", "client-certificate-data", "client-key", "client-key-data"}


class NotPlainError(Exception):
    """What was found needs the kubernetes package, or its words for what is wrong."""


@dataclass(frozen=True)
class PlainCredentials:
    """Server, TLS and the header that authenticates. Thread-safe."""

    server: str
    namespace: str
    #: PEM texts.
    ca: str | None = None
    certificate: str | None = None
    key: str | None = None
    token: str | None = None
    #: Read for each request: whoever keeps it renews it.
    token_file: Path | None = None
    verify: bool = True
    tls_server_name: str | None = None
    proxy: str | None = None

    def headers(self) -> dict[str, str]:
        """The headers of one request. Raises ProvisionError when the token cannot be read."""
        token = self.token
        if self.token_file is not None:
            try:
                token = self.token_file.read_text(encoding="utf-8").strip()
            except OSError as err:
                raise ProvisionError(f"the token for {self.server} cannot be read: {err}") from err
        if not token:
            return {}
        if not token.isprintable():
            raise ProvisionError(f"the token for {self.server} holds a line break or another control character")
        return {"authorization": f"Bearer {token}"}

    def pool(self) -> urllib3.PoolManager:
        """Connections with this cluster's TLS settings."""
        import urllib3

        # None: not given, which is not the same to urllib3.
        named: dict[str, Any] = {} if self.tls_server_name is None else {"server_hostname": self.tls_server_name}
        return urllib3.PoolManager(ssl_context=self.tls(), maxsize=4, **named)

    def tls(self) -> ssl.SSLContext | None:
        """TLS for a socket; None for plain http. Verification is off only where the kubeconfig says so."""
        if urlsplit(self.server).scheme != "https":
            return None
        context = ssl.create_default_context(cadata=self.ca)
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.certificate is not None and self.key is not None:
            # Python takes a key from a file only: 0600, and gone at once.
            with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
                file.write(f"{self.certificate}\n{self.key}\n")
                file.flush()
                context.load_cert_chain(file.name)
        return context

    @property
    def server_name(self) -> str:
        """The name that the server's certificate must hold."""
        return str(self.tls_server_name or urlsplit(self.server).hostname or "")


def of_pod() -> PlainCredentials:
    """A pod's service account. Raises NotPlainError."""
    _without_proxies()
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT")
    token = SERVICE_ACCOUNT / "token"
    try:
        ca = (SERVICE_ACCOUNT / "ca.crt").read_text(encoding="utf-8")
        namespace = (SERVICE_ACCOUNT / "namespace").read_text(encoding="utf-8").strip()
    except OSError as err:
        raise NotPlainError(str(err)) from err
    if not host or not port or not token.is_file() or not ca:
        raise NotPlainError("no service account")
    host = f"[{host}]" if ":" in host else host
    return PlainCredentials(server=f"https://{host}:{port}", namespace=namespace, ca=ca, token_file=token)


def of_kubeconfig(path: Path, context: str | None) -> PlainCredentials:
    """A context of a kubeconfig, the current one for None. Raises NotPlainError for all that is not plain."""
    import yaml

    _without_proxies()
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        name = context or document["current-context"]
        used = _named(document, "contexts", name)["context"]
        cluster = _named(document, "clusters", used["cluster"])["cluster"]
        user = _named(document, "users", used["user"])["user"] or {}
        if set(cluster) - _CLUSTER or set(user) - _USER or not (set(user) & _USER):
            raise NotPlainError("more than this module reads")
        folder = path.parent
        certificate, key = _pem(user, "client-certificate", folder), _pem(user, "client-key", folder)
        token_file = user.get("tokenFile")
        found = PlainCredentials(
            server=str(cluster["server"]).rstrip("/"),
            namespace=used.get("namespace") or "default",
            ca=_pem(cluster, "certificate-authority", folder),
            certificate=certificate,
            key=key,
            token=user.get("token"),
            token_file=folder / token_file if token_file else None,
            verify=not cluster.get("insecure-skip-tls-verify", False),
            tls_server_name=cluster.get("tls-server-name"),
        )
        if (certificate is None) != (key is None):
            raise NotPlainError("a certificate without its key")
        return found
    # Files are read without looking: a text or a list where a mapping should be is any of these.
    except (yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError, OSError) as err:
        raise NotPlainError(str(err)) from err


def _without_proxies() -> None:
    if any(os.environ.get(name) for name in _PROXIES):
        raise NotPlainError("a proxy")


def _named(document: Any, section: str, name: str) -> Any:
    [found] = [one for one in document[section] if one["name"] == name]
    return found


def _pem(section: Any, name: str, folder: Path) -> str | None:
    """What ``name``-data holds, or the file that ``name`` names, relative to the kubeconfig."""
    data = section.get(f"{name}-data")
    if data:
        try:
            return base64.b64decode(data, validate=True).decode("utf-8")
        except binascii.Error as err:
            raise NotPlainError(str(err)) from err
    path = section.get(name)
    return (folder / path).read_text(encoding="utf-8") if path else None
