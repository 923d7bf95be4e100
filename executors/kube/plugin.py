"""Credential plugins of a kubeconfig (``exec``): a program that prints a token or a certificate.

The API is Kubernetes' own, client.authentication.k8s.io (docs: "client-go credential plugins").
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TextIO

from executors.errors import ConfigError
from executors.kube.kubeconfig import Section

_GROUP = "client.authentication.k8s.io/"
_VERSIONS = tuple(_GROUP + one for one in ("v1", "v1beta1"))
_MODES = ("Never", "IfAvailable", "Always")
_FIELDS = {"command", "args", "env", "apiVersion", "installHint", "provideClusterInfo", "interactiveMode"}
#: Seconds for a plugin; some wait for somebody who logs in with a browser.
_LIMIT = 300.0


@dataclass(frozen=True)
class PluginCredentials:
    """What the plugin gave: a token, or a certificate with its key, or both."""

    token: str = field(default="", repr=False)
    certificate: str = ""
    key: str = field(default="", repr=False)
    #: Seconds since the epoch; None: not said.
    expires: float | None = None


def ask_plugin(user: Section, cluster: Section) -> PluginCredentials:
    """Run the plugin of a user. Raises ConfigError, with what it said."""
    given = user.fields["exec"]
    if not isinstance(given, Mapping):
        raise user.problem("exec", "is not a mapping")
    plugin = Section(given, user.folder, f"exec of {user.where}")
    _check(plugin)
    command = plugin.text("command")
    # As kubectl: one with a slash is a path, relative to the kubeconfig.
    argv = [str(user.folder / command) if "/" in command else command, *plugin.texts("args")]
    interactive = _interactive(plugin)
    information: dict[str, Any] = {"interactive": interactive}
    if plugin.flag("provideClusterInfo"):
        information["cluster"] = _cluster_of(cluster)
    version = plugin.text("apiVersion")
    request = {"apiVersion": version, "kind": "ExecCredential", "spec": information}
    environment = {**os.environ, **_variables(plugin), "KUBERNETES_EXEC_INFO": json.dumps(request)}
    said = _run(user, plugin, argv, environment, interactive=interactive)
    return _credentials(user, said, version)


def _check(plugin: Section) -> None:
    strange = sorted(str(field_) for field_ in plugin.fields if field_ not in _FIELDS)
    if strange:
        raise plugin.problem(strange[0], f"is not known here; known are {', '.join(sorted(_FIELDS))}")
    if not plugin.text("command"):
        raise plugin.problem("command", "is missing")
    version = plugin.text("apiVersion")
    if version not in _VERSIONS:
        cure = "renew the entry with the tool that wrote it" if version.startswith(_GROUP) else "give one of these"
        raise plugin.problem("apiVersion", f"{version!r} is not supported, {' and '.join(_VERSIONS)} are; {cure}")
    if plugin.text("interactiveMode") not in ("", *_MODES):
        raise plugin.problem("interactiveMode", f"{plugin.text('interactiveMode')!r} must be {', '.join(_MODES)}")


def _interactive(plugin: Section) -> bool:
    """Whether the plugin may ask the user at the terminal."""
    mode = plugin.text("interactiveMode") or "IfAvailable"
    terminal = _is_terminal(sys.stdin)
    if mode == "Always" and not terminal:
        text = "Always: the plugin asks at a terminal, and there is none; log in with it first, or use another user"
        raise plugin.problem("interactiveMode", text)
    return terminal and mode != "Never"


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and not stream.closed and stream.isatty()


def _variables(plugin: Section) -> dict[str, str]:
    found = plugin.fields.get("env") or []
    if not isinstance(found, list) or not all(isinstance(one, Mapping) for one in found):
        raise plugin.problem("env", "must be a list of mappings with name and value")
    # As kubectl: one without a value is empty.
    pairs = [(one.get("name"), "" if one.get("value") is None else one["value"]) for one in found]
    if not all(isinstance(name, str) and name and isinstance(value, str) for name, value in pairs):
        raise plugin.problem("env", "must be a list of mappings with name and value, both strings")
    return dict(pairs)


def _cluster_of(cluster: Section) -> dict[str, Any]:
    made: dict[str, Any] = {"server": cluster.text("server")}
    for name in ("tls-server-name", "insecure-skip-tls-verify", "certificate-authority-data", "proxy-url"):
        if cluster.fields.get(name):
            made[name] = cluster.fields[name]
    if cluster.text("certificate-authority") and "certificate-authority-data" not in made:
        import base64

        made["certificate-authority-data"] = base64.b64encode(cluster.file("certificate-authority")).decode()
    for extension in cluster.fields.get("extensions") or []:
        if isinstance(extension, Mapping) and extension.get("name") == f"{_GROUP}exec":
            made["config"] = extension.get("extension")
    return made


def _run(user: Section, plugin: Section, argv: list[str], environment: Mapping[str, str], *, interactive: bool) -> str:
    import subprocess  # most kubeconfigs have no plugin

    hint = plugin.text("installHint")
    # Words for people (a code to type in a browser) reach them where there is somebody; else they are in the error.
    shown = _is_terminal(sys.stderr)
    try:
        done = subprocess.run(
            argv, env=environment, stdin=None if interactive else subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=None if shown else subprocess.PIPE, timeout=_LIMIT, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise _nothing(user, f"{argv[0]} did not end within {_LIMIT:g} s") from None
    except (OSError, ValueError) as err:
        raise _nothing(user, f"{argv[0]}: {err}" + (f"\n{hint}" if hint else "")) from None
    if done.returncode:
        said = (done.stderr or b"").decode("utf-8", "replace").strip()[-1000:]
        raise _nothing(user, f"{argv[0]} ended with {done.returncode}" + (f": {said}" if said else ""))
    return done.stdout.decode("utf-8", "replace")


def _credentials(user: Section, said: str, version: str) -> PluginCredentials:
    try:
        answer = json.loads(said)
    except ValueError:
        raise _nothing(user, "it printed no JSON") from None
    status = answer.get("status") if isinstance(answer, dict) else None
    if not isinstance(status, dict) or answer.get("kind") != "ExecCredential":
        raise _nothing(user, "it printed no ExecCredential with a status")
    if answer.get("apiVersion") != version:
        raise _nothing(user, f"it answers {answer.get('apiVersion')!r}, and was asked for {version}")
    names = ("token", "clientCertificateData", "clientKeyData", "expirationTimestamp")
    texts = {name: status.get(name) or "" for name in names}
    wrong = [name for name, value in texts.items() if not isinstance(value, str)]
    if wrong:
        raise _nothing(user, f"its {wrong[0]} is not a string")
    if bool(texts["clientCertificateData"]) != bool(texts["clientKeyData"]):
        raise _nothing(user, "it gave a certificate or a key, and not the other")
    if not texts["token"] and not texts["clientKeyData"]:
        raise _nothing(user, "it gave neither a token nor a certificate")
    expires = None
    if texts["expirationTimestamp"]:
        try:
            expires = datetime.fromisoformat(texts["expirationTimestamp"]).timestamp()
        except ValueError:
            raise _nothing(user, f"its expirationTimestamp {texts['expirationTimestamp']!r} is not a time") from None
    return PluginCredentials(texts["token"], texts["clientCertificateData"], texts["clientKeyData"], expires)


def _nothing(user: Section, why: str) -> ConfigError:
    return ConfigError([f"the exec of the kubeconfig ({user.where}) gave no credentials: {why}; try kubectl with it"])
