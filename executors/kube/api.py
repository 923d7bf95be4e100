"""The objects of the Kubernetes API: their kinds, what is asked about them, and watches. Thread-safe."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast
from urllib.parse import quote

from executors.kube.access import ClusterAccess, load
from executors.kube.errors import ApiError, UnreachableError, parse_error
from executors.kube.objects import (
    ConfigMap,
    Event,
    Job,
    KubernetesObject,
    Lease,
    MiniCluster,
    ObjectList,
    Pod,
)
from executors.kube.patience import Patience
from executors.kube.requests import Asked, Requester

if TYPE_CHECKING:
    pass

#: What is read of the objects of one kind.
T = TypeVar("T")

_MERGE = "application/merge-patch+json"
#: Answers without spec, status and data (Kubernetes' API concepts, "metadata-only fetches").
_LIST_OF_METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"


@dataclass(frozen=True)
class Kind(Generic[T]):
    """A kind of object: ``("batch/v1", "jobs")``; ``T`` is what is read of one."""

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


JOBS = Kind[Job]("batch/v1", "jobs")
PODS = Kind[Pod]("v1", "pods")
EVENTS = Kind[Event]("v1", "events")
SECRETS = Kind[KubernetesObject]("v1", "secrets")
CONFIG_MAPS = Kind[ConfigMap]("v1", "configmaps")
SERVICES = Kind[KubernetesObject]("v1", "services")
NAMESPACES = Kind[KubernetesObject]("v1", "namespaces")
NETWORK_POLICIES = Kind[KubernetesObject]("networking.k8s.io/v1", "networkpolicies")
LEASES = Kind[Lease]("coordination.k8s.io/v1", "leases")
MINICLUSTERS = Kind[MiniCluster]("flux-framework.org/v1alpha2", "miniclusters")
_BY_KIND: dict[str, Kind[Any]] = {
    "Job": JOBS,
    "Pod": PODS,
    "Secret": SECRETS,
    "ConfigMap": CONFIG_MAPS,
    "Service": SERVICES,
    "NetworkPolicy": NETWORK_POLICIES,
    "MiniCluster": MINICLUSTERS,
}


def kind_of(manifest: Mapping[str, Any]) -> Kind[Any]:
    """The Kind of one of our manifests."""
    return _BY_KIND[manifest["kind"]]


def connect(access: ClusterAccess) -> Api:
    """Read the credentials. Sends nothing yet. Raises ConfigError."""
    return Api(access, load(access))


class Api(Requester):
    """The Kubernetes API as one user of one cluster: its objects, logs and watches."""

    # -- objects

    def get(self, kind: Kind[T], namespace: str | None, name: str, *, once: bool = False) -> T:
        """Raises NotFoundError, ForbiddenError, UnreachableError or ApiError; so do all of the following."""
        return cast(T, self.request("GET", kind.path(namespace, name), once=once))

    def list(
        self,
        kind: Kind[T],
        namespace: str | None,
        *,
        labels: str = "",
        fields: str = "",
        once: bool = False,
        metadata_only: bool = False,
    ) -> ObjectList[T]:
        """The whole list object: its ``metadata.resourceVersion`` is where a watch goes on."""
        accept = _LIST_OF_METADATA if metadata_only else ""
        found = self.request("GET", kind.path(namespace), query=_selectors(labels, fields), once=once, accept=accept)
        return cast(ObjectList[T], found)

    def create(
        self,
        kind: Kind[T],
        namespace: str | None,
        manifest: Mapping[str, Any],
        *,
        strict: bool = False,
        manager: str = "",
    ) -> T:
        """Raises ConflictError where it exists, InvalidError where it is refused (``strict``: for an unknown field).

        ``manager``: whose its fields are then called (Kubernetes' field management).
        """
        query = {"fieldValidation": "Strict"} if strict else {}
        if manager:
            query["fieldManager"] = manager
        return cast(T, self.request("POST", kind.path(namespace), query=query, body=manifest))

    def patch(
        self,
        kind: Kind[T],
        namespace: str | None,
        name: str,
        change: Mapping[str, Any],
        *,
        subresource: str | None = None,
    ) -> T:
        """A JSON merge patch (RFC 7396)."""
        path = kind.path(namespace, name, subresource)
        return cast(T, self.request("PATCH", path, body=change, content_type=_MERGE))

    def delete(
        self,
        kind: Kind[Any],
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
        body: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": policy}
        preconditions = {"uid": uid, "resourceVersion": version}
        body["preconditions"] = {name: value for name, value in preconditions.items() if value}
        self.request("DELETE", kind.path(namespace, name), body=body)

    def log(self, namespace: str, pod: str, *, container: str | None = None, lines: int = 20) -> str:
        """The last lines that a pod's container wrote. Asked once: where its kubelet is away, that does not pass soon,
        and what the log is to explain has to be told."""
        query = {"tailLines": str(lines), **({"container": container} if container else {})}
        return self.send("GET", PODS.path(namespace, pod, "log"), query=query, once=True).decode("utf-8", "replace")

    @contextlib.contextmanager
    def watch(
        self,
        kind: Kind[T],
        namespace: str | None,
        version: str,
        *,
        labels: str = "",
        fields: str = "",
        seconds: float,
        metadata_only: bool = False,
    ) -> Iterator[Watch[T]]:
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
                asked: Asked = {"query": query, "accept": _METADATA if metadata_only else ""}
                answer = self._ask("GET", path, asked, preload_content=False, timeout=timeout)
                break
            except ApiError as err:
                patience.after(err, self._limit(err))
        try:
            yield Watch[T](answer, path)
        finally:
            answer.close()  # not drained: the connection is of no use to anybody else


class Watch(Generic[T]):
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

    def __iter__(self) -> Iterator[tuple[str, T]]:
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

    def _change(self, change: dict[str, Any]) -> tuple[str, T]:
        if change["type"] == "ERROR":
            status = change["object"]
            raise parse_error(int(status.get("code") or 500), json.dumps(status).encode(), f"watch {self._path}")
        return change["type"], change["object"]


def end_connection(connection: socket.socket) -> None:
    """Wake a thread that reads or writes a connection. Never raises.

    Not by the TLS socket's own ``shutdown``, which gives up TLS first: its reader would go on with what is ciphertext.
    """
    with contextlib.suppress(OSError):  # it has ended already
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


def _selectors(labels: str, fields: str) -> dict[str, str]:
    return {**({"labelSelector": labels} if labels else {}), **({"fieldSelector": fields} if fields else {})}
