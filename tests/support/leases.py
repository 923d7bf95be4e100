"""Leases without an API server."""

from __future__ import annotations

import threading
from typing import Any

from executors.kube import ConflictError, Kind, NotFoundError, UnreachableError


class Leases:
    """An API server with one Lease."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.version = 0
        self.away = False
        self._lock = threading.Lock()

    def get(self, kind: Kind[Any], namespace: str, name: str, *, once: bool) -> dict[str, Any]:
        with self._lock:
            if self.away:
                raise UnreachableError("away")
            if self.lease is None:
                raise NotFoundError(404, "NotFound", "no Lease")
            return {"metadata": dict(self.lease["metadata"]), "spec": dict(self.lease["spec"])}

    def create(self, kind: Kind[Any], namespace: str, manifest: dict[str, Any], *, manager: str) -> None:
        with self._lock:
            if self.lease is not None:
                raise ConflictError(409, "AlreadyExists", "it is there")
            self._write(manifest["spec"])

    def request(self, method: str, path: str, *, body: dict[str, Any], content_type: str, once: bool) -> None:
        with self._lock:
            if self.away:
                raise UnreachableError("away")
            assert self.lease is not None
            if body["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
                raise ConflictError(409, "Conflict", "it has changed")
            self._write({**self.lease["spec"], **body["spec"]})

    def _write(self, spec: dict[str, Any]) -> None:
        self.version += 1
        self.lease = {"metadata": {"resourceVersion": str(self.version)}, "spec": spec}

    @property
    def holder(self) -> str:
        assert self.lease is not None
        return str(self.lease["spec"]["holderIdentity"])
