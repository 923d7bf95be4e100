"""``/metrics`` for Prometheus, over TLS, for those that the API server lets read it.

A reader shows a bearer token; the API server is asked whose it is (TokenReview) and whether that user may get the path
(SubjectAccessReview), as Kubernetes' own components do.
"""

from __future__ import annotations

import hashlib
import logging
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from executors.controller.loop import Controller
from executors.controller.serving import SECONDS, Answering, Server, Serving
from executors.errors import ConfigError
from executors.kube import Api, ApiError
from executors.kube.objects import MiniCluster

log = logging.getLogger(__name__)

PATH = "/metrics"
#: Seconds for which an answer of the API server on a token counts.
_KEPT = 60.0
#: Tokens that are remembered at once.
_MOST_KNOWN = 1000


@dataclass(frozen=True)
class Line:
    """One value with its name, help, kind (counter or gauge) and labels."""

    name: str
    help: str
    kind: str
    value: float
    labels: tuple[tuple[str, str], ...] = ()


def metric_lines(controller: Controller | None) -> list[Line]:
    """What there is to tell of a replica; None: it stands by."""
    found = [Line("flux_operator_leader", "Whether this replica works.", "gauge", float(controller is not None))]
    if controller is None:
        return found
    for result, count in sorted(controller.reconciled.items()):
        text = "Reconciles of MiniClusters, by result."
        found.append(Line("flux_operator_reconciles_total", text, "counter", count, (("result", result),)))
    text = "Seconds that workers have spent on MiniClusters."
    found.append(Line("flux_operator_reconcile_seconds_total", text, "counter", controller.seconds))
    found.append(Line("flux_operator_queue_length", "MiniClusters that wait.", "gauge", controller.depth))
    reasons = Counter(_reason(controller.store.minicluster(key)) for key in controller.store.miniclusters())
    for reason, count in sorted(reasons.items()):
        text = "MiniClusters, by the reason of their condition Ready."
        found.append(Line("flux_operator_miniclusters", text, "gauge", count, (("reason", reason),)))
    return found


def _reason(resource: MiniCluster | None) -> str:
    status = resource.get("status") if resource is not None else None
    for condition in (status or {}).get("conditions") or []:
        if condition.get("type") == "Ready":
            return str(condition.get("reason"))
    return "New"


def prometheus_text(lines: list[Line]) -> str:
    """Prometheus' text format (0.0.4)."""
    made: list[str] = []
    told = set()
    for line in lines:
        if line.name not in told:
            told.add(line.name)
            made += [f"# HELP {line.name} {line.help}", f"# TYPE {line.name} {line.kind}"]
        labels = ",".join(f'{name}="{value}"' for name, value in line.labels)
        made.append(f"{line.name}{{{labels}}} {line.value:g}" if labels else f"{line.name} {line.value:g}")
    return "\n".join(made) + "\n"


class Gate:
    """Who may read, by the API server's word. Thread-safe."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._lock = threading.Lock()
        self._known: dict[str, tuple[float, int]] = {}

    def status(self, authorization: str) -> int:
        """200, 401 or 403; 503 where the API server does not say."""
        kind, _, token = authorization.partition(" ")
        if kind != "Bearer" or not token:
            return 401
        key = hashlib.sha256(token.encode()).hexdigest()
        with self._lock:
            until, status = self._known.get(key, (0.0, 0))
            if time.monotonic() < until:
                return status
        try:
            status = self._ask(token)
        except ApiError as err:
            log.warning("cannot check who may read the metrics: %s", err)
            return 503
        with self._lock:
            self._known = {one: value for one, value in self._known.items() if value[0] > time.monotonic()}
            if len(self._known) >= _MOST_KNOWN:
                del self._known[next(iter(self._known))]
            self._known[key] = (time.monotonic() + _KEPT, status)
        return status

    def _ask(self, token: str) -> int:
        path = "/apis/authentication.k8s.io/v1/tokenreviews"
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
        found = self._api.request("POST", path, body=body, once=True)["status"]
        if not found.get("authenticated"):
            return 401
        user = found["user"]
        spec = {
            "user": user.get("username", ""),
            "uid": user.get("uid", ""),
            "groups": user.get("groups") or [],
            "nonResourceAttributes": {"path": PATH, "verb": "get"},
        }
        path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
        allowed = self._api.request("POST", path, body=body, once=True)["status"].get("allowed")
        return 200 if allowed else 403


class _Certificate:
    """What ``directory`` holds, also when it has been renewed: a certificate lasts for weeks, a controller for months.

    Raises ConfigError where it cannot be used at first. Thread-safe.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        try:
            self._seen = self._look()
            self._context = self._read()
        except (OSError, ssl.SSLError) as err:
            cure = "give a directory with tls.crt and tls.key"
            raise ConfigError([f"--metrics-tls: {str(directory)!r} cannot be used: {err}; {cure}"]) from None

    def context(self) -> ssl.SSLContext:
        with self._lock:
            try:
                now = self._look()
                if now != self._seen:
                    self._context, self._seen = self._read(), now
                    log.info("the certificate of the metrics has been renewed")
            except (OSError, ssl.SSLError) as err:  # its two files may be written one after the other
                log.warning("the certificate of the metrics cannot be read again, the one before stays: %s", err)
            return self._context

    def _look(self) -> tuple[float, int]:
        found = (self._directory / "tls.crt").stat()
        return found.st_mtime, found.st_ino

    def _read(self) -> ssl.SSLContext:
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.load_cert_chain(self._directory / "tls.crt", self._directory / "tls.key")
        return made


class MetricsServer(Serving):
    """``directory`` holds ``tls.crt`` and ``tls.key`` (PEM), as a Secret of that type. Raises ConfigError."""

    def __init__(self, port: int, directory: Path, gate: Gate, text: Callable[[], str]) -> None:
        certificate = _Certificate(directory)

        class Handler(Answering):
            def setup(self) -> None:
                # In the request's own thread: one that never begins its TLS holds up nobody else.
                self.request.settimeout(SECONDS)
                self.request = certificate.context().wrap_socket(self.request, server_side=True)
                super().setup()

            def finish(self) -> None:
                super().finish()
                self.request.close()  # the server knows the one below it only

            def do_GET(self) -> None:
                status = gate.status(self.headers.get("Authorization", "")) if self.path == PATH else 404
                body = text().encode() if status == 200 else b""
                self.answer(status, body, "text/plain; version=0.0.4")

        class MetricsHTTPServer(Server):
            def handle_error(self, request: object, client_address: object) -> None:
                log.debug("a reader of the metrics: %s", client_address, exc_info=True)

        super().__init__("metrics", port, Handler, MetricsHTTPServer)
