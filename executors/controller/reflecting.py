"""Keeps one kind of object in the store: one list, then what changes. No polling.

A watch that is cut goes on where it was; one whose place is gone (410) begins with a new list, by which what went in
between is noticed.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from executors.controller.store import Key
from executors.kube import Api, ApiError, ExpiredError, Kind, Watch
from executors.kube.api import MINICLUSTERS

log = logging.getLogger(__name__)

#: Notes an object of a kind, and whether it was deleted; of which MiniCluster it is.
Take = Callable[[Kind[Any], Any, bool], Key | None]

#: Seconds that one watch lasts.
_WATCH = 300.0
#: Seconds between attempts while the API server is away, or refuses.
_AWAY, _REFUSED = 1.0, 10.0
#: What a server says by 404 that is asked for MiniClusters, and the cure.
_NO_CRD = "their CRD is not installed; an administrator can: flux-operator crd | kubectl apply --server-side -f -"


@dataclass(frozen=True)
class Followed:
    """What is kept of a kind."""

    kind: Kind[Any]
    labels: str = ""
    fields: str = ""
    #: Without spec, status and data, which for Secrets must be so.
    metadata_only: bool = False
    #: Whether nothing can be decided before it has been listed once.
    needed: bool = True


class Reflector:
    """A thread. ``take(kind, object, deleted)`` is the store's; ``notify`` gets the key of what has changed."""

    def __init__(
        self,
        api: Api,
        namespace: str | None,
        followed: Followed,
        take: Take,
        notify: Callable[[Key], None],
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._followed = followed
        self._take = take
        self._notify = notify
        self._closing = threading.Event()
        self._watch: Watch[Any] | None = None
        #: uid -> what is needed to tell that it has gone.
        self._seen: dict[str, dict[str, Any]] = {}
        self.synced = threading.Event()

    @property
    def kind(self) -> Kind[Any]:
        return self._followed.kind

    @property
    def needed(self) -> bool:
        return self._followed.needed

    def start(self) -> None:
        # A daemon: nobody waits for its end, which an API server that does not answer could hold up.
        threading.Thread(target=self._run, name=f"watch-{self.kind.plural}", daemon=True).start()

    def stop(self) -> None:
        self._closing.set()
        if self._watch is not None:
            self._watch.stop()

    def _run(self) -> None:
        version = ""
        while not self._closing.is_set():
            began = time.monotonic()
            try:
                version = version or self._list()
                version = self._follow(version)
                pause = _AWAY if time.monotonic() - began < _AWAY else 0.0  # a server that ends each watch at once
            except ExpiredError:
                version, pause = "", _AWAY if time.monotonic() - began < _AWAY else 0.0
            except ApiError as err:
                # What was allowed once is refused by a server that has just come back, for a moment.
                pause = _AWAY if err.transient and (self.synced.is_set() or err.status not in (401, 403)) else _REFUSED
                why = _NO_CRD if err.status == 404 and self.kind is MINICLUSTERS else err
                log.warning("watching %s: %s; again in %g s", self.kind.plural, why, pause)
                version = "" if err.status else version
            except Exception:  # a thread that ends in silence would leave everything as it was for ever
                log.exception("watching %s failed; again in %g s", self.kind.plural, _REFUSED)
                version, pause = "", _REFUSED
            self._closing.wait(pause)

    def _list(self) -> str:
        followed = self._followed
        found = self._api.list(
            followed.kind,
            self._namespace,
            labels=followed.labels,
            fields=followed.fields,
            metadata_only=followed.metadata_only,
        )
        now = {item["metadata"]["uid"]: item for item in found.get("items") or []}
        for uid in [uid for uid in self._seen if uid not in now]:
            self._note(self._seen[uid], deleted=True)
        for item in now.values():
            self._note(item, deleted=False)
        self.synced.set()
        return str(found["metadata"]["resourceVersion"])

    def _follow(self, version: str) -> str:
        followed = self._followed
        with self._api.watch(
            followed.kind,
            self._namespace,
            version,
            labels=followed.labels,
            fields=followed.fields,
            seconds=_WATCH,
            metadata_only=followed.metadata_only,
        ) as watch:
            self._watch = watch
            try:
                if not self._closing.is_set():
                    for what, item in watch:
                        version = str(item["metadata"]["resourceVersion"])
                        if what != "BOOKMARK":
                            self._note(item, deleted=what == "DELETED")
            except ApiError as err:
                if err.status:  # not a cut, by which nothing is lost
                    raise
                log.debug("watching %s: %s", self.kind.plural, err)
            finally:
                self._watch = None
        return version

    def _note(self, item: Any, *, deleted: bool) -> None:
        metadata = item["metadata"]
        if deleted:
            self._seen.pop(metadata["uid"], None)
        else:
            kept = {name: metadata[name] for name in ("name", "namespace", "uid", "labels") if name in metadata}
            self._seen[metadata["uid"]] = {"metadata": kept, "involvedObject": item.get("involvedObject")}
        key = self._take(self.kind, item, deleted)
        if key is not None:
            self._notify(key)
