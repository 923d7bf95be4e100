"""What is known of the cluster: the caches that the watches fill, by MiniCluster. Thread-safe."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict, defaultdict
from typing import Any, TypeVar, cast

from executors.controller.trimming import trimmed
from executors.kube import Kind
from executors.kube.api import EVENTS, JOBS, MINICLUSTERS, PODS
from executors.kube.objects import Event, Job, KubernetesObject, MiniCluster
from executors.provision.kubernetes.diagnosis import end_of_job
from executors.render import NAME_LABEL

log = logging.getLogger(__name__)

T = TypeVar("T", bound=KubernetesObject)
#: A MiniCluster: its namespace and name.
Key = tuple[str, str]

#: Events that are kept of one MiniCluster, the youngest.
_EVENTS = 50
#: Objects of which is kept that they have gone, the youngest.
_GONE = 10_000


class Store:
    """Objects by the MiniCluster that they are of, by their names and labels alone, no matter who owns them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._objects: dict[Key, dict[Kind[Any], dict[str, Any]]] = defaultdict(dict)
        #: Jobs that had ended when they were deleted: nobody may have noticed yet.
        self._ended: dict[Key, Job] = {}
        #: What is in a MiniCluster's way and is not its own; no watch tells of it under this key.
        self._strangers: dict[Key, dict[tuple[Kind[Any], str], Any]] = {}
        #: uid -> the version at which an object had gone, or was no more what is followed.
        self._gone: OrderedDict[str, int] = OrderedDict()

    def take(self, kind: Kind[T], given: T, *, deleted: bool = False) -> Key | None:
        """Note an object as it is now, or was last; of which MiniCluster it is. An older version than the one that is
        known is left out, and so is one from before it was deleted: an answer to a request may come before the watch's
        word on what was before, and after its word that the object has gone."""
        key = key_of(kind, given)
        if key is None:
            return None
        name = given["metadata"]["name"]
        with self._lock:
            of_kind = self._objects[key].setdefault(kind, {})
            there = of_kind.get(name)
            if deleted:
                self._note_gone(given, there)
                if there is not None and there["metadata"]["uid"] != given["metadata"]["uid"]:
                    return key  # another one of its name is there by now
                of_kind.pop(name, None)
                if kind is JOBS and end_of_job(cast(Job, given)) is not None:
                    self._ended[key] = trimmed(JOBS, cast(Job, given))
                if not any(self._objects[key].values()):
                    del self._objects[key]
            elif _version(given) <= self._gone.get(given["metadata"]["uid"], -1):
                log.debug("%s %s/%s of before its end", kind.plural, *key)
            elif there is None or _version(there) <= _version(given):
                of_kind[name] = trimmed(kind, given)
                if kind is EVENTS and len(of_kind) > _EVENTS:
                    del of_kind[next(iter(of_kind))]
        return key

    def _note_gone(self, given: KubernetesObject, there: KubernetesObject | None) -> None:
        uid = given["metadata"]["uid"]
        version = _version(given)
        if there is not None and there["metadata"]["uid"] == uid:
            version = max(version, _version(there))
        self._gone[uid] = version
        self._gone.move_to_end(uid)
        if len(self._gone) > _GONE:
            self._gone.popitem(last=False)

    def minicluster(self, key: Key) -> MiniCluster | None:
        with self._lock:
            return self._objects.get(key, {}).get(MINICLUSTERS, {}).get(key[1])

    def job(self, key: Key) -> Job | None:
        """The Job of a MiniCluster's name, or the last one that has ended and gone."""
        with self._lock:
            found = self._objects.get(key, {}).get(JOBS, {}).get(key[1])
            return found or self._strangers.get(key, {}).get((JOBS, key[1]))

    def ended_job(self, key: Key) -> Job | None:
        """A Job of that name that had ended and was deleted, as it was last."""
        with self._lock:
            return self._ended.get(key)

    def forget_ended(self, key: Key) -> None:
        """Its end has been written down."""
        with self._lock:
            self._ended.pop(key, None)

    def all_of(self, key: Key, kind: Kind[T]) -> list[T]:
        with self._lock:
            return list(self._objects.get(key, {}).get(kind, {}).values())

    def parts(self, key: Key, kinds: dict[str, Kind[Any]]) -> dict[tuple[str, str], KubernetesObject]:
        """Objects of several kinds, by kind's word and name."""
        with self._lock:
            known = self._objects.get(key, {})
            found = {(word, name): one for word, kind in kinds.items() for name, one in known.get(kind, {}).items()}
            words = {kind: word for word, kind in kinds.items()}
            strangers = self._strangers.get(key, {}).items()
            return {(words[kind], name): one for (kind, name), one in strangers if kind in words} | found

    def take_stranger(self, key: Key, kind: Kind[T], given: T) -> None:
        """Note an object that is in a MiniCluster's way."""
        with self._lock:
            self._strangers.setdefault(key, {})[kind, given["metadata"]["name"]] = trimmed(kind, given)

    def strangers(self, key: Key) -> list[tuple[Kind[Any], KubernetesObject]]:
        with self._lock:
            return [(kind, one) for (kind, _), one in self._strangers.get(key, {}).items()]

    def forget_strangers(self, key: Key) -> None:
        with self._lock:
            self._strangers.pop(key, None)

    def miniclusters(self) -> list[Key]:
        """All that there are."""
        with self._lock:
            return [key for key, kinds in self._objects.items() if kinds.get(MINICLUSTERS)]


def key_of(kind: Kind[T], given: T) -> Key | None:
    """The MiniCluster that an object is of, by its name or labels; None where these say nothing."""
    metadata = given["metadata"]
    namespace = str(metadata.get("namespace", ""))
    if kind in (MINICLUSTERS, JOBS):
        return namespace, str(metadata["name"])
    if kind is EVENTS:
        about = cast(Event, given).get("involvedObject") or {}
        name = str(about.get("name", ""))
        # A Job's pods are called after it, with their index and a few letters.
        return namespace, name if about.get("kind") == "Job" else name.rsplit("-", 2)[0]
    labels = metadata.get("labels") or {}
    name = str(labels.get("job-name") if kind is PODS else labels.get(NAME_LABEL, ""))
    return (namespace, name) if name else None


def _version(thing: KubernetesObject) -> int:
    """Kubernetes' versions are numbers that grow (KEP-5504), etcd's since ever; 0 for anything else."""
    text = str(thing["metadata"].get("resourceVersion", ""))
    return int(text) if text.isdecimal() else 0
