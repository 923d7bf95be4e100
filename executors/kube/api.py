"""Requests to the Kubernetes API and watches, on plain JSON objects. Thread-safe."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict, Unpack
from urllib.parse import quote, urlencode

from executors.errors import ConfigError
from executors.kube.access import ClusterAccess, Credentials, load
from executors.kube.errors import ApiError, UnreachableError, error_of
from executors.kube.patience import LIMIT, NOBODY_LIMIT, Patience
from executors.kube.proxies import ProxyRefusedError

if TYPE_CHECKING:
    import urllib3

Object = dict[str, Any]

#: Seconds for the answer to a request; a watch has its own.
_TIMEOUT = 30.0
#: The same where somebody waits who can do without, to connect and to be answered each.
_SHORT_TIMEOUT = 5.0
_MERGE = "application/merge-patch+json"
#: Answers without spec, status and data (Kubernetes' API concepts, "metadata-only fetches").
_LIST_OF_METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"


@dataclass(frozen=True)
class Kind:
    """A kind of object: ``("batch/v1", "jobs")``."""

    api_version: str
    plural: str

    def path(self, namespace: str | None, name: str | None = None, subresource: str | None = None) -> str:
        root = "/api/v1" if self.api_version == "v1" else f"/apis/{self.api_version}"
        parts = [root]
        if namespace is not None:
            parts += ["namespaces", quote(namespace, safe="")]
        parts.append(self.plural)
        parts += [quote(part, safe="") for part in (name, subresource) if part is not None]
        return "/".join(parts)


JOBS = Kind("batch/v1", "jobs")
PODS = Kind("v1", "pods")
EVENTS = Kind("v1", "events")
SECRETS = Kind("v1", "secrets")
CONFIG_MAPS = Kind("v1", "configmaps")
SERVICES = Kind("v1", "services")
NAMESPACES = Kind("v1", "namespaces")
NETWORK_POLICIES = Kind("networking.k8s.io/v1", "networkpolicies")
LEASES = Kind("coordination.k8s.io/v1", "leases")
MINICLUSTERS = Kind("flux-framework.org/v1alpha2", "miniclusters")
_BY_KIND = {
    "Job": JOBS,
    "Pod": PODS,
    "Secret": SECRETS,
    "ConfigMap": CONFIG_MAPS,
    "Service": SERVICES,
    "NetworkPolicy": NETWORK_POLICIES,
    "MiniCluster": MINICLUSTERS,
}


def kind_of(manifest: Mapping[str, Any]) -> Kind:
    """The Kind of a manifest of ours."""
    return _BY_KIND[manifest["kind"]]


def connect(access: ClusterAccess) -> Api:
    """Read the credentials. Sends nothing yet. Raises ConfigError."""
    return Api(access, load(access))


class _Asked(TypedDict, total=False):
    """What a request may have besides its method and path."""

    query: Mapping[str, str]
    body: Mapping[str, Any]
    content_type: str
    accept: str


class Api:
    """The Kubernetes API as one user of one cluster."""

    def __init__(self, access: ClusterAccess, credentials: Credentials) -> None:
        self._access = access
        self._lock = threading.Lock()
        self._credentials = credentials
        self._pool = credentials.pool()
        self._renewing = threading.Lock()
        #: Whether there is a server at all.
        self._answered = False
        #: Whether each request waits out what passes. Who has other things to do meanwhile asks again himself.
        self.patient = True

    @property
    def credentials(self) -> Credentials:
        return self._credentials

    @property
    def namespace(self) -> str:
        """The namespace that the context (or the pod) names."""
        return self._credentials.namespace

    @property
    def server(self) -> str:
        return self._credentials.server

    def close(self) -> None:
        """Close idle connections."""
        self._pool.clear()

    def renew(self, refused: Credentials | None = None) -> tuple[Credentials, urllib3.PoolManager]:
        """Read the credentials anew: they were refused or have ended, and their file or plugin may have fresh ones.

        Nothing is read where another thread has just done so (``refused`` are not in use any more). Raises ApiError
        (401) where there are none: it worked before, and may again when somebody has logged in.
        """
        with self._renewing:
            with self._lock:
                if refused is not None and self._credentials is not refused:
                    return self._credentials, self._pool
            try:
                fresh = load(self._access)
                pool = fresh.pool()
            except ConfigError as err:
                text = f"the credentials for {self.server} are of no use any more, and new ones cannot be read: {err}"
                raise ApiError(401, "Unauthorized", text) from err
            with self._lock:
                old, self._credentials, self._pool = self._pool, fresh, pool
        old.clear()  # idle connections only
        return fresh, pool

    # -- objects

    def get(self, kind: Kind, namespace: str | None, name: str, *, once: bool = False) -> Object:
        """Raises NotFoundError, ForbiddenError, UnreachableError or ApiError; so do all of the following."""
        return self.request("GET", kind.path(namespace, name), once=once)

    def list(
        self,
        kind: Kind,
        namespace: str | None,
        *,
        labels: str = "",
        fields: str = "",
        once: bool = False,
        metadata_only: bool = False,
    ) -> Object:
        """The whole list object: its ``metadata.resourceVersion`` is where a watch goes on."""
        accept = _LIST_OF_METADATA if metadata_only else ""
        return self.request("GET", kind.path(namespace), query=_selectors(labels, fields), once=once, accept=accept)

    def create(
        self,
        kind: Kind,
        namespace: str | None,
        manifest: Mapping[str, Any],
        *,
        strict: bool = False,
        manager: str = "",
    ) -> Object:
        """Raises ConflictError where it exists, InvalidError where it is refused (``strict``: for an unknown field).

        ``manager``: whose its fields are then called (Kubernetes' field management).
        """
        query = {"fieldValidation": "Strict"} if strict else {}
        if manager:
            query["fieldManager"] = manager
        return self.request("POST", kind.path(namespace), query=query, body=manifest)

    def patch(
        self, kind: Kind, namespace: str | None, name: str, change: Mapping[str, Any], *, subresource: str | None = None
    ) -> Object:
        """A JSON merge patch (RFC 7396)."""
        path = kind.path(namespace, name, subresource)
        return self.request("PATCH", path, body=change, content_type=_MERGE)

    def delete(
        self,
        kind: Kind,
        namespace: str | None,
        name: str,
        *,
        uid: str = "",
        version: str = "",
        policy: str = "Foreground",
    ) -> None:
        """Begin deletion; what hangs on it goes first (``Foreground``) or after it (``Background``).

        With ``uid`` only that very object, with ``version`` (its resourceVersion) only if it has not changed since:
        else ConflictError.
        """
        body: Object = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": policy}
        preconditions = {"uid": uid, "resourceVersion": version}
        body["preconditions"] = {name: value for name, value in preconditions.items() if value}
        self.request("DELETE", kind.path(namespace, name), body=body)

    def log(self, namespace: str, pod: str, *, container: str | None = None, lines: int = 20) -> str:
        """The last lines that a pod's container wrote. Asked once: where its kubelet is away, that does not pass soon,
        and what the log is to explain has to be told."""
        query = {"tailLines": str(lines), **({"container": container} if container else {})}
        return self.send("GET", PODS.path(namespace, pod, "log"), query=query, once=True).decode("utf-8", "replace")

    # -- the wire

    def request(self, method: str, path: str, *, once: bool = False, **asked: Unpack[_Asked]) -> Object:
        """One request; the JSON object that answers it."""
        data = self.send(method, path, once=once, **asked)
        answer: Any
        try:
            answer = json.loads(data or b"{}")
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            text = f"{method} {path}: {self.server} does not answer like a Kubernetes API server: {data[:200]!r}"
            raise ApiError(200, "", text)
        return answer

    def send(self, method: str, path: str, *, once: bool = False, **asked: Unpack[_Asked]) -> bytes:
        """One request; the bytes that answer it. A refused token is renewed once, and what passes is waited out, unless
        this is not `patient`.

        What is asked ``once`` is not: whoever asks asks again anyway, or can do without.

        So a request may reach the server twice, where the first answer was lost: who creates may find its own object
        there (ConflictError), who deletes none (NotFoundError).
        """
        if once:
            return bytes(self._ask(method, path, asked, timeout=_SHORT_TIMEOUT).data)
        patience = Patience()
        while True:
            try:
                return bytes(self._ask(method, path, asked, timeout=_TIMEOUT).data)
            except ApiError as err:
                if not self.patient:
                    raise
                patience.after(err, self._limit(err))

    def _limit(self, err: ApiError) -> float:
        return LIMIT if self._answered or err.status else NOBODY_LIMIT

    def _ask(self, method: str, path: str, asked: _Asked, **how: Any) -> urllib3.BaseHTTPResponse:
        """One attempt, or two where the credentials were refused. Raises ApiError."""
        from urllib3.exceptions import HTTPError

        query, body = asked.get("query"), asked.get("body")
        what = f"{method} {path}"
        types = (asked.get("content_type"), asked.get("accept"))
        credentials, answer = self._attempt(method, path, query, body, types, how)
        if answer.status == 401:
            answer.close()
            self.renew(credentials)
            credentials, answer = self._attempt(method, path, query, body, types, how)
        if answer.status < 400:
            self._answered = True
            return answer
        metadata = (body or {}).get("metadata") or {}
        named = bool(metadata.get("resourceVersion") or metadata.get("uid"))
        try:
            data = answer.data
        except HTTPError:
            data = b""  # the status says enough
        finally:
            answer.close()
        wait = answer.headers.get("Retry-After")
        error = error_of(answer.status, data, what, retry_after=wait, only_that_object=named)
        self._answered = self._answered or not isinstance(error, UnreachableError)
        raise error

    def _attempt(
        self, method: str, path: str, query: Mapping[str, str] | None, body: Mapping[str, Any] | None,
        types: tuple[str | None, str | None], how: Mapping[str, Any],
    ) -> tuple[Credentials, urllib3.BaseHTTPResponse]:  # fmt: skip
        import urllib3

        with self._lock:
            credentials, pool = self._credentials, self._pool
        if credentials.expired:
            credentials, pool = self.renew(credentials)
        content_type, accept = types
        headers = urllib3.HTTPHeaderDict({"Accept": accept or "application/json"})
        if body is not None:
            headers["Content-Type"] = content_type or "application/json"
        for name, value in credentials.headers():
            headers.add(name, value.encode("utf-8").decode("latin-1"))  # which is what it is written as
        url = credentials.server + path + (f"?{urlencode(query)}" if query else "")
        data = None if body is None else json.dumps(body).encode()
        try:
            answer = pool.request(method, url, headers=headers, body=data, retries=False, redirect=False, **how)
        except urllib3.exceptions.HTTPError as err:
            raise _unreachable(f"{method} {path}", credentials, err) from err
        return credentials, answer

    @contextlib.contextmanager
    def watch(
        self,
        kind: Kind,
        namespace: str | None,
        version: str,
        *,
        labels: str = "",
        fields: str = "",
        seconds: float,
        metadata_only: bool = False,
    ) -> Iterator[Watch]:
        """Changes after a resource version, for ``seconds``; in all namespaces where that is None.

        The iteration ends when the server ends it or the time is up. Raises ExpiredError when the version is too old,
        UnreachableError when the stream is cut.
        """
        import urllib3

        query = {
            **_selectors(labels, fields), "watch": "1", "resourceVersion": version, "allowWatchBookmarks": "true",
            "timeoutSeconds": str(max(1, round(seconds))),
        }  # fmt: skip
        path = kind.path(namespace)
        # Longer than the server's own limit: only a stream that went silent reaches it.
        timeout = urllib3.Timeout(connect=10.0, read=seconds + 10.0)
        patience = Patience()
        while True:
            try:
                asked: _Asked = {"query": query, "accept": _METADATA if metadata_only else ""}
                answer = self._ask("GET", path, asked, preload_content=False, timeout=timeout)
                break
            except ApiError as err:
                patience.after(err, self._limit(err))
        try:
            yield Watch(answer, path)
        finally:
            answer.close()  # not drained: the connection is of no use to anybody else


def _unreachable(what: str, credentials: Credentials, err: Exception) -> UnreachableError:
    """Why there was no answer, and whether there may be one soon."""
    from urllib3.exceptions import ProxyError, SSLError

    cause = err.args[0] if isinstance(err, SSLError) and err.args else err
    through = f" (through {credentials.proxy})" if credentials.proxy is not None else ""
    if isinstance(cause, ssl.SSLCertVerificationError):
        cure = "does certificate-authority(-data) of the kubeconfig belong to this server?"
        text = f"{what}: the certificate of {credentials.server} is not to be trusted: {cause.verify_message}; {cure}"
        return UnreachableError(text, passing=False)
    if isinstance(err, ProxyError) and isinstance(err.original_error, ProxyRefusedError):
        refused = err.original_error
        return UnreachableError(f"{what}: {refused}", passing=refused.status in (502, 503, 504))
    return UnreachableError(f"{what}: {credentials.server} does not answer{through}: {err}")


class Watch:
    """An open watch: iterate over (ADDED | MODIFIED | DELETED | BOOKMARK, object)."""

    def __init__(self, answer: Any, path: str) -> None:
        self._answer = answer
        self._path = path
        self._stopped = False

    def stop(self) -> None:
        """End the iteration, from another thread. Never raises."""
        self._stopped = True
        connection = self._answer.connection
        if connection is not None and connection.sock is not None:
            end_connection(connection.sock)

    def __iter__(self) -> Iterator[tuple[str, Object]]:
        import urllib3

        rest = b""
        try:
            for piece in self._answer.stream(64 * 1024, decode_content=True):
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    if line.strip():
                        yield self._change(json.loads(line))
        except urllib3.exceptions.HTTPError as err:
            if not self._stopped:
                raise UnreachableError(f"watch {self._path}: the stream was cut: {err}") from err

    def _change(self, change: Object) -> tuple[str, Object]:
        if change["type"] == "ERROR":
            status = change["object"]
            raise error_of(int(status.get("code") or 500), json.dumps(status).encode(), f"watch {self._path}")
        return change["type"], change["object"]


def end_connection(connection: socket.socket) -> None:
    """Wake whoever reads or writes a connection. Never raises.

    Not by the TLS socket's own ``shutdown``, which gives up TLS first: its reader would go on with what is ciphertext.
    """
    with contextlib.suppress(OSError):  # it has ended already
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


def _selectors(labels: str, fields: str) -> dict[str, str]:
    return {**({"labelSelector": labels} if labels else {}), **({"fieldSelector": fields} if fields else {})}
