"""One MiniCluster's address, API server, namespace and name, and the requests that are about it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from executors.config import RunSection
from executors.errors import ExecutorsError
from executors.kube import Api, ClusterAccess, Kind, connect
from executors.kube.api import PODS
from executors.kube.objects import Pod
from executors.provision.kubernetes.creating import create
from executors.provision.kubernetes.watching import Change, ResourceWatcher, Wanted

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Seconds to wait for an object that is being deleted to be gone.
DELETE_LIMIT = 120.0


class Target:
    """Connects at its first use. ``str()`` names it in messages."""

    def __init__(self, run: RunSection, name: str) -> None:
        self.name = name
        self.access = ClusterAccess(run.kubeconfig, run.context)
        self._asked_namespace = run.namespace
        self._create_limit = run.schedule_timeout
        self._api: Api | None = None

    def __str__(self) -> str:
        return f"the MiniCluster {self.namespace}/{self.name}"

    @property
    def api(self) -> Api:
        """Raises ConfigError when no cluster is known."""
        if self._api is None:
            self._api = connect(self.access)
        return self._api

    @property
    def namespace(self) -> str:
        """The one that was asked for, else the kubeconfig context's. Raises ConfigError."""
        return self._asked_namespace or self.api.namespace

    def close(self) -> None:
        """Close its connections; a later request opens them again."""
        if self._api is not None:
            self._api.close()

    # -- objects of its name

    def get(self, kind: Kind[T], *, once: bool = False) -> T:
        """Raises NotFoundError, ApiError; with ``once`` without a second attempt."""
        return self.api.get(kind, self.namespace, self.name, once=once)

    def patch(self, kind: Kind[T], change: Mapping[str, Any]) -> T:
        """Merge a change into it. Raises NotFoundError, ApiError."""
        return self.api.patch(kind, self.namespace, self.name, change)

    def watched(self, kind: Kind[Any]) -> Wanted:
        """What a watch of it names."""
        return Wanted(kind, fields=f"metadata.name={self.name}")

    # -- what belongs to it

    def create(self, kind: Kind[T], manifest: Mapping[str, Any], *, strict: bool = False) -> T:
        """Create an object; a quota that is used up has ``run.scheduleTimeout``. Raises ConflictError, ApiError."""
        return create(self.api, kind, self.namespace, manifest, self._create_limit, strict=strict)

    def pods(self, *, once: bool = False) -> list[Pod]:
        """Returns all pods of Jobs of its name, an earlier one's too. Raises ApiError."""
        return self.api.list(PODS, self.namespace, labels=f"job-name={self.name}", once=once)["items"]

    def watched_pods(self) -> Wanted:
        """What a watch of these names."""
        return Wanted(PODS, labels=f"job-name={self.name}")

    def watch(self, wanted: list[Wanted]) -> ResourceWatcher:
        """Returns a watcher, which its ``with`` statement starts."""
        return ResourceWatcher(self.api, self.namespace, wanted)

    def follow(self, wanted: list[Wanted], deadline: float) -> Iterator[tuple[Kind[Any], Any]]:
        """Objects, of their kind's type, each time that they change; None once there is none of a kind.

        Until the deadline (monotonic).
        """
        with self.watch(wanted) as watcher:
            for change in watcher.changes(lambda: deadline):
                if change is None:
                    return
                if isinstance(change, Change):
                    yield change.kind, None if change.deleted else change.object
                elif not change.count:
                    yield change.kind, None

    def log_lines(self, pod: str, container: str) -> list[str]:
        """Returns the last lines of a container's log, each with its pod's name. Never raises: it helps an error."""
        try:
            text = self.api.log(self.namespace, pod, container=container, lines=10)
        except ExecutorsError as err:
            log.debug("no log of %s: %s", pod, err)
            return []
        return [f"  log of {pod}: {line}" for line in text.splitlines()]
