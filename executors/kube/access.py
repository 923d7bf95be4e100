"""How a cluster is reached: a kubeconfig (with its exec plugins and expiring tokens) or a pod's service account.

Plain ones are read by `plain`; the rest by the kubernetes package, which also has the words for what is wrong.
"""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from executors.errors import ConfigError, ProvisionError
from executors.kube.plain import NotPlainError, PlainCredentials, of_kubeconfig, of_pod

if TYPE_CHECKING:
    import urllib3

_NAMESPACE_FILE = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"


@dataclass(frozen=True)
class ClusterAccess:
    """Which cluster: a kubeconfig file and a context in it; None: the ones that kubectl would take.

    Without a kubeconfig, in a pod, the pod's own service account.
    """

    kubeconfig: str | None = None
    context: str | None = None


class Credentials:
    """Access put to use: server, TLS and the headers that authenticate, renewed when they expire. Thread-safe."""

    def __init__(self, configuration: Any, namespace: str) -> None:
        self._configuration = configuration
        #: The namespace that the context (or the pod) names.
        self.namespace = namespace

    @property
    def server(self) -> str:
        """``https://host:port``, with a path where the API server is behind one."""
        return str(self._configuration.host).rstrip("/")

    @property
    def proxy(self) -> str | None:
        from kubernetes.client.rest import should_bypass_proxies

        configuration = self._configuration
        if configuration.proxy and not should_bypass_proxies(configuration.host, configuration.no_proxy or ""):
            return str(configuration.proxy)
        return None

    def headers(self) -> dict[str, str]:
        """The headers of one request. Raises ProvisionError when an expired credential cannot be renewed."""
        from kubernetes.config import ConfigException

        try:
            settings = self._configuration.auth_settings()
        except (ConfigException, OSError) as err:
            raise ProvisionError(f"the credentials for {self.server} cannot be renewed: {err}") from err
        headers = {setting["key"]: str(setting["value"]) for setting in settings.values() if setting["value"]}
        if not all(value.isprintable() for value in headers.values()):
            # Without the value: it is a secret.
            raise ProvisionError(f"the token for {self.server} holds a line break or another control character")
        return headers

    def pool(self) -> urllib3.PoolManager:
        """Connections with this cluster's TLS settings and proxy."""
        from kubernetes.client.rest import RESTClientObject

        pool: urllib3.PoolManager = RESTClientObject(self._configuration).pool_manager
        return pool

    def tls(self) -> ssl.SSLContext | None:
        """TLS for a socket of our own; None for plain http. Verification is off only where the kubeconfig says so."""
        configuration = self._configuration
        if urlsplit(self.server).scheme != "https":
            return None
        # The library has it as a file, newer versions of it as text too.
        data = getattr(configuration, "ca_cert_data", None)
        context = ssl.create_default_context(cafile=configuration.ssl_ca_cert, cadata=data)
        if not configuration.verify_ssl:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if configuration.cert_file:
            context.load_cert_chain(configuration.cert_file, configuration.key_file)
        return context

    @property
    def server_name(self) -> str:
        """The name that the server's certificate must hold."""
        return str(self._configuration.tls_server_name or urlsplit(self.server).hostname or "")


def load(access: ClusterAccess) -> Credentials | PlainCredentials:
    """Read the kubeconfig, or the pod's service account. Raises ConfigError saying what is missing."""
    try:
        return _plain(access)
    except NotPlainError:
        return _by_package(access)


def _plain(access: ClusterAccess) -> PlainCredentials:
    if access.kubeconfig is None and access.context is None and _in_pod() and not _has_kubeconfig():
        return of_pod()
    path = access.kubeconfig or os.environ.get("KUBECONFIG") or os.path.expanduser("~/.kube/config")
    if os.pathsep in path:
        raise NotPlainError("several files")
    return of_kubeconfig(Path(path), access.context)


def _by_package(access: ClusterAccess) -> Credentials:
    import yaml
    from kubernetes.client import Configuration
    from kubernetes.config import (
        ConfigException,
        list_kube_config_contexts,
        load_incluster_config,
        load_kube_config,
    )

    # Not Configuration.get_default_copy(): no setting of anybody else's in this process, and none left for others.
    configuration = type.__call__(Configuration)
    # What is tried again, and for how long, is ours to say.
    configuration.retries = False
    in_pod = access.kubeconfig is None and access.context is None and _in_pod() and not _has_kubeconfig()
    try:
        if in_pod:
            load_incluster_config(client_configuration=configuration)
            return Credentials(configuration, _pod_namespace())
        if access.kubeconfig is not None and not os.path.isfile(access.kubeconfig):
            raise ConfigError([f"run.kubeconfig: {access.kubeconfig!r} is not a file; give a kubeconfig"])
        contexts, current = list_kube_config_contexts(access.kubeconfig)
        if access.context is not None:
            found = [one for one in contexts if one["name"] == access.context]
            if not found:
                names = ", ".join(str(one["name"]) for one in contexts)
                raise ConfigError([f"run.context: {access.context!r} is not in the kubeconfig; it has {names}"])
            current = found[0]
        load_kube_config(access.kubeconfig, access.context, configuration, persist_config=False)
        credentials = Credentials(configuration, (current or {}).get("context", {}).get("namespace") or "default")
        _must_be_somebody(access, configuration)
        return credentials
    except ConfigError:
        raise
    # The library reads the file without looking: a text or a list where a mapping should be is any of these.
    except (ConfigException, yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError, OSError) as err:
        where = access.kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config"
        raise ConfigError(
            [f"no Kubernetes cluster is known: {err} ({where}); give run.kubeconfig or KUBECONFIG, or run in a pod"]
        ) from err


def _must_be_somebody(access: ClusterAccess, configuration: Any) -> None:
    """A credential plugin that fails is only logged by the library, which goes on as nobody. Raises ConfigError."""
    import yaml

    if configuration.auth_settings() or configuration.cert_file or configuration.username:
        return
    paths = access.kubeconfig or os.environ.get("KUBECONFIG") or os.path.expanduser("~/.kube/config")
    asked = set()
    for path in paths.split(os.pathsep):
        if os.path.isfile(path):
            with open(path, encoding="utf-8") as text:
                users = (yaml.safe_load(text) or {}).get("users") or []
            asked |= {kind for user in users for kind in ("exec", "auth-provider") if kind in (user.get("user") or {})}
    if asked:
        raise ConfigError(
            [f"the {' or '.join(sorted(asked))} of the kubeconfig {paths} gave no credentials; try kubectl with it"]
        )


def _in_pod() -> bool:
    return bool(os.environ.get("KUBERNETES_SERVICE_HOST"))


def _has_kubeconfig() -> bool:
    paths = os.environ.get("KUBECONFIG") or os.path.expanduser("~/.kube/config")
    return any(os.path.isfile(path) for path in paths.split(os.pathsep) if path)


def _pod_namespace() -> str:
    try:
        with open(_NAMESPACE_FILE, encoding="utf-8") as text:
            return text.read().strip()
    except OSError:
        return "default"
