"""How a cluster is reached, and as whom: by a kubeconfig, as kubectl would, or by a pod's service account.

Read by this package itself, not by the kubernetes package: that leaves out what kubectl honours (impersonation, a
proxy's URL and password), and its import alone takes longer than all requests of a client that joins.
"""

from __future__ import annotations

import base64
import json
import os
import re
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from executors.errors import ConfigError, ProvisionError
from executors.kube.connections import make_pool
from executors.kube.kubeconfig import Section, Selected, is_there, select
from executors.kube.plugin import ask_plugin
from executors.kube.proxies import Proxy, open_connection, parse_proxy, proxy_of_environment
from executors.memory_file import MemoryFile

if TYPE_CHECKING:
    import urllib3

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
#: Seconds before a credential's end from which it is not used any more.
_EARLY = 10.0


@dataclass(frozen=True)
class ClusterAccess:
    """Which cluster: a kubeconfig file and a context in it; None: the ones that kubectl would take.

    Without a kubeconfig, in a pod, the pod's own service account.
    """

    kubeconfig: str | None = None
    context: str | None = None


@dataclass(frozen=True)
class Impersonation:
    """Whom to act as (Kubernetes' user impersonation), by the rights of the user whose credentials these are."""

    user: str = ""
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def headers(self) -> list[tuple[str, str]]:
        if not self.user:
            return []
        made = [("Impersonate-User", self.user)]
        made += [("Impersonate-Uid", self.uid)] if self.uid else []
        made += [("Impersonate-Group", one) for one in self.groups]
        return made + [
            (f"Impersonate-Extra-{_header_key(name)}", one) for name, values in self.extra.items() for one in values
        ]


@dataclass(frozen=True)
class Credentials:
    """Server, TLS, the way there, and the headers that say who asks. Thread-safe."""

    server: str
    #: The namespace that the context (or the pod) names.
    namespace: str
    #: PEM texts.
    ca: str = ""
    certificate: str = ""
    key: str = field(default="", repr=False)
    #: A whole Authorization header.
    authorization: str = field(default="", repr=False)
    #: Holds a token, and is read for each request: the kubelet renews it.
    token_file: Path | None = None
    verify: bool = True
    tls_server_name: str = ""
    proxy: Proxy | None = None
    impersonation: Impersonation = Impersonation()
    #: Seconds since the epoch, when the credentials have to be read again; None: not known.
    expires: float | None = None

    @property
    def expired(self) -> bool:
        return self.expires is not None and time.time() > self.expires - _EARLY

    def headers(self) -> list[tuple[str, str]]:
        """The headers of one request; a name may be there more than once. Raises ProvisionError."""
        authorization = self.authorization
        if self.token_file is not None:
            try:
                token = self.token_file.read_text(encoding="utf-8").strip()
            except (OSError, ValueError) as err:
                raise ProvisionError(f"the token for {self.server} cannot be read: {err}") from err
            authorization = f"Bearer {token}" if token else ""
        made = [("Authorization", authorization)] if authorization else []
        made += self.impersonation.headers()
        for name, value in made:
            if not value.isprintable():
                # Without the value: it is a secret.
                what = "token" if name == "Authorization" else name
                raise ProvisionError(f"the {what} for {self.server} holds a line break or another control character")
        return made

    def pool(self) -> urllib3.PoolManager:
        """Connections with this cluster's TLS settings, and by its proxy."""
        return make_pool(self.open_connection, self.tls(), self.tls_server_name)

    def open_connection(self, timeout: float | None) -> socket.socket:
        """A connection to the server, before TLS. Raises OSError."""
        url = urlsplit(self.server)
        port = url.port or (443 if url.scheme == "https" else 80)
        return open_connection(url.hostname or "", port, self.proxy, timeout, self._trust)

    def tls(self) -> ssl.SSLContext | None:
        """TLS for a socket; None for plain http. Verification is off only where the kubeconfig says so."""
        if urlsplit(self.server).scheme != "https":
            return None
        context = self._trust()
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.certificate:
            file = MemoryFile(f"{self.certificate}\n{self.key}\n")  # Python takes a key from a file only
            try:
                # A password, or an encrypted key would ask at the terminal for one.
                context.load_cert_chain(file.path, password="")
            except (ssl.SSLError, OSError) as err:
                text = f"the client certificate and key for {self.server} cannot be used: {err}"
                raise ConfigError([f"{text}; are they of one pair, and the key without a password?"]) from None
            finally:
                file.close()
        return context

    def _trust(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cadata=self.ca or None)
        except (ssl.SSLError, ValueError) as err:
            raise ConfigError([f"the certificate authority for {self.server} cannot be read: {err}"]) from None
        # Python 3.13 asks more of certificates than kubectl does (key identifiers, RFC 5280): API servers have had such
        # for years. And what the kubeconfig names is trusted as it is, be it an authority below another.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        return context

    @property
    def server_name(self) -> str:
        """The name that the server's certificate must hold."""
        return self.tls_server_name or urlsplit(self.server).hostname or ""


def load(access: ClusterAccess) -> Credentials:
    """Read the kubeconfig, or the pod's service account. Raises ConfigError saying what is missing."""
    if access.kubeconfig is not None:
        path = os.path.expanduser(access.kubeconfig)
        if not is_there(path):
            raise ConfigError([f"run.kubeconfig: {access.kubeconfig!r} is not a file; give a kubeconfig"])
        files = [path]
    else:
        given = os.environ.get("KUBECONFIG") or os.path.expanduser("~/.kube/config")
        files = [path for path in given.split(os.pathsep) if path]
        there = any(map(is_there, files))
        if not there and access.context is None and os.environ.get("KUBERNETES_SERVICE_HOST"):
            return _of_pod()
    return _of_context(select([Path(path) for path in files], access.context))


def _of_pod() -> Credentials:
    """A pod's service account. Raises ConfigError."""
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    token = SERVICE_ACCOUNT / "token"
    try:
        ca = (SERVICE_ACCOUNT / "ca.crt").read_text(encoding="utf-8")
        token.read_bytes()
    except (OSError, ValueError) as err:
        raise ConfigError(
            [
                f"no Kubernetes cluster is known: this pod has no service account token ({err}); set "
                "automountServiceAccountToken, or give run.kubeconfig or KUBECONFIG"
            ]
        ) from None
    try:
        namespace = (SERVICE_ACCOUNT / "namespace").read_text(encoding="utf-8").strip()
    except OSError:
        namespace = "default"
    server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    proxy = proxy_of_environment(server, os.environ)
    return Credentials(server, namespace, ca=ca, token_file=token, proxy=proxy)


def _of_context(found: Selected) -> Credentials:
    cluster, user = found.cluster, found.user
    server = _server(cluster, user)
    verify = not cluster.flag("insecure-skip-tls-verify")
    if not verify and (cluster.text("certificate-authority") or cluster.text("certificate-authority-data")):
        text = "is true although there is a certificate-authority (kubectl refuses this too); leave out one of them"
        raise cluster.problem("insecure-skip-tls-verify", text)
    given = cluster.text("proxy-url")
    proxy = parse_proxy(given, f"proxy-url in {cluster.where}") if given else proxy_of_environment(server, os.environ)
    made: dict[str, Any] = {
        "certificate": user.pem("client-certificate"),
        "key": user.pem("client-key"),
        **_authentication(user),
    }
    if made["certificate"] and not made["key"]:
        raise user.problem("client-key", "is missing, although client-certificate is given")
    if user.fields.get("exec") is not None and not (made.get("authorization") or made.get("token_file")):
        plugin = ask_plugin(user, cluster)
        made["expires"] = plugin.expires
        if plugin.token:
            made["authorization"] = f"Bearer {plugin.token}"
        if plugin.key:
            made |= {"certificate": plugin.certificate, "key": plugin.key}
    return Credentials(
        server=server,
        namespace=found.namespace,
        ca=cluster.pem("certificate-authority"),
        verify=verify,
        tls_server_name=cluster.text("tls-server-name"),
        proxy=proxy,
        impersonation=_impersonation(user),
        **made,
    )


def _server(cluster: Section, user: Section) -> str:
    server = cluster.text("server")
    if not server:
        raise cluster.problem("server", "is missing")
    if "://" not in server:
        # As kubectl: https where anything of TLS is said.
        tls = any(name in cluster.fields for name in ("certificate-authority", "certificate-authority-data"))
        tls = (
            tls
            or cluster.flag("insecure-skip-tls-verify")
            or any(field_.startswith("client-c") for field_ in user.fields)
        )
        server = f"{'https' if tls else 'http'}://{server}"
    try:
        url = urlsplit(server)
        good = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        good = False
    if not good or url.username or url.query or url.fragment:
        raise cluster.problem("server", "is not the URL of an API server; give https://host:port")
    return server.rstrip("/")


def _authentication(user: Section) -> dict[str, Any]:
    """The header that the user's own fields make, or the file that holds its token."""
    basic = bool(user.text("username") or user.text("password"))
    token, token_file = user.text("token"), user.text("tokenFile")
    if basic and (token or token_file):
        raise user.problem(
            "username", "is given together with a token, but only one can be sent; leave out one of them"
        )
    provider = user.fields.get("auth-provider")
    if provider is not None:
        if user.fields.get("exec") is not None:
            raise user.problem("auth-provider", "is given together with exec; leave out one of them")
        return _of_provider(user, provider)
    if token_file:
        user.file("tokenFile")  # raises where it is not there
        return {"token_file": user.path("tokenFile")}
    if token:
        return {"authorization": f"Bearer {token}"}
    if basic:
        pair = f"{user.text('username')}:{user.text('password')}"
        return {"authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
    return {}


def _of_provider(user: Section, provider: Any) -> dict[str, Any]:
    """kubectl's last auth-provider, oidc, as long as its token lasts; kubectl alone can renew that (it writes the
    kubeconfig). The others are gone from kubectl too."""
    name = provider.get("name") if isinstance(provider, Mapping) else None
    cure = "use a credential plugin (exec) instead: kubelogin for oidc and azure, gke-gcloud-auth-plugin for gcp"
    if name != "oidc":
        raise user.problem("auth-provider", f"{name!r} is not supported; {cure}")
    given = provider.get("config")
    token = given.get("id-token") if isinstance(given, Mapping) else None
    if not isinstance(token, str) or not token:
        raise user.problem("auth-provider", f"oidc has no id-token yet; log in with kubectl, or {cure}")
    try:
        part = token.split(".")[1]
        expires = float(json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))["exp"])
    except (IndexError, ValueError, KeyError, TypeError):
        raise user.problem("auth-provider", f"the id-token of oidc is not a JWT with an expiry (exp); {cure}") from None
    if expires < time.time():
        raise user.problem("auth-provider", f"the id-token of oidc has expired; have kubectl renew it, or {cure}")
    return {"authorization": f"Bearer {token}", "expires": expires}


def _impersonation(user: Section) -> Impersonation:
    found = Impersonation(user.text("as"), user.text("as-uid"), user.texts("as-groups"), user.extra("as-user-extra"))
    if (found.uid or found.groups or found.extra) and not found.user:
        raise user.problem("as", "is missing, although as-uid, as-groups or as-user-extra is given; name the user too")
    return found


def _header_key(name: str) -> str:
    """The end of a header's name, escaped as kubectl does: what is no token (RFC 7230), and %, is percent-encoded."""
    legal = re.compile(r"[!#$&'*+.^_`|~0-9A-Za-z-]")
    return "".join(
        chr(byte) if legal.match(chr(byte)) else f"%{byte:02X}" for byte in name.encode("utf-8", "surrogatepass")
    )
