"""Follows objects of a namespace: one list, then what changes, for as long as somebody wants to know. No polling.

A cut or an expired watch is taken up again with a new list, so a watcher never misses the present state.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from executors.errors import ExecutorsError, ProvisionError
from executors.kube import Api, ApiError, ExpiredError, Kind, UnreachableError, Watch
from executors.kube.objects import KubernetesObject

#: By uid.
_Seen = dict[str, KubernetesObject]

#: Seconds that one watch lasts; a new one begins where it ended.
_WATCH = 60.0
#: Seconds between attempts while the API server is away, or ends each watch at once, which some proxies do.
_AWAY = 1.0


@dataclass(frozen=True)
class Change:
    """An object as it is now, or (``deleted``) as it was last."""

    kind: Kind[Any]
    #: Of the kind's type.
    object: Any
    deleted: bool = False


@dataclass(frozen=True)
class Listed:
    """All that was there has been told; ``count`` objects are."""

    kind: Kind[Any]
    count: int


@dataclass(frozen=True)
class Wanted:
    """What to follow."""

    kind: Kind[Any]
    labels: str = ""
    fields: str = ""


class ResourceWatcher:
    """Follows several kinds at once, one thread each, into one queue. A context manager."""

    def __init__(self, api: Api, namespace: str, wanted: list[Wanted]) -> None:
        self._api = api
        self._namespace = namespace
        self._wanted = wanted
        self._closing = threading.Event()
        self._open: set[Watch[Any]] = set()
        self._watched: set[Wanted] = set()
        self._queue: queue.SimpleQueue[Change | Listed | ExecutorsError] = queue.SimpleQueue()

    def __enter__(self) -> ResourceWatcher:
        for wanted in self._wanted:
            # A daemon: nobody waits for its end, which an API server that does not answer could hold up.
            threading.Thread(target=self._follow, args=(wanted,), name="kubernetes-watch", daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._closing.set()
        for watch in list(self._open):
            watch.stop()

    def changes(self, until: Callable[[], float]) -> Iterator[Change | Listed | None]:
        """Changes as they come; None at the moment (``time.monotonic``) that ``until`` names, asked before each wait.

        Raises what the API refused (`ForbiddenError` ...), not that it was away for a while.
        """
        while True:
            try:
                found = self._queue.get(timeout=max(0.0, until() - time.monotonic()))
            except queue.Empty:
                yield None
                continue
            if isinstance(found, ExecutorsError):
                raise found
            yield found

    def _follow(self, wanted: Wanted) -> None:
        seen: _Seen = {}
        while not self._closing.is_set():
            began = time.monotonic()
            try:
                version = self._list(wanted, seen)
                while not self._closing.is_set():
                    began, before = time.monotonic(), version
                    version = self._watch(wanted, seen, version)
                    if version == before:
                        self._pause_after(began)
            except ExpiredError:
                self._pause_after(began)
            except ApiError as err:
                # What was allowed once is refused by a server that has just come back (see `ApiError.transient`).
                if not (isinstance(err, UnreachableError) or (wanted in self._watched and err.transient)):
                    self._queue.put(err)
                    return
                self._closing.wait(_AWAY)
            except ExecutorsError as err:
                self._queue.put(err)
                return
            except Exception as err:  # else the reader of the queue would wait for ever
                self._queue.put(ProvisionError(f"watching {wanted.kind.plural} failed: {err!r}"))
                return

    def _pause_after(self, began: float) -> None:
        """Where that was hardly any time ago, a repetition would be one of many."""
        if time.monotonic() - began < _AWAY:
            self._closing.wait(_AWAY)

    def _list(self, wanted: Wanted, seen: _Seen) -> str:
        found = self._api.list(wanted.kind, self._namespace, labels=wanted.labels, fields=wanted.fields)
        now = {item["metadata"]["uid"]: item for item in found.get("items") or []}
        for uid in [uid for uid in seen if uid not in now]:
            self._queue.put(Change(wanted.kind, seen.pop(uid), deleted=True))
        for uid, item in now.items():
            if uid not in seen or seen[uid]["metadata"]["resourceVersion"] != item["metadata"]["resourceVersion"]:
                seen[uid] = item
                self._queue.put(Change(wanted.kind, item))
        self._queue.put(Listed(wanted.kind, len(now)))
        return str(found["metadata"]["resourceVersion"])

    def _watch(self, wanted: Wanted, seen: _Seen, version: str) -> str:
        with self._api.watch(
            wanted.kind, self._namespace, version, labels=wanted.labels, fields=wanted.fields, seconds=_WATCH
        ) as watch:
            self._open.add(watch)
            self._watched.add(wanted)
            try:
                if self._closing.is_set():
                    return version
                for what, item in watch:
                    version = item["metadata"]["resourceVersion"]
                    if what != "BOOKMARK":
                        self._take(wanted, seen, item, deleted=what == "DELETED")
            finally:
                self._open.discard(watch)
        return version

    def _take(self, wanted: Wanted, seen: _Seen, item: KubernetesObject, *, deleted: bool) -> None:
        if deleted:
            seen.pop(item["metadata"]["uid"], None)
        else:
            seen[item["metadata"]["uid"]] = item
        self._queue.put(Change(wanted.kind, item, deleted=deleted))
