"""The controller while it works: watches, workers, and what comes between a decision and the next."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from executors.controller.acting import Actor, RefusedByServer
from executors.controller.conditions import COMPLETED, FAILED, READY, STALLED, holds
from executors.controller.deciding import Create, Decision, DeleteMiniCluster, Observed, Refusal, decide
from executors.controller.reflecting import Followed, Reflector
from executors.controller.store import Key, Store
from executors.controller.work import WorkQueue
from executors.kube import Api, ApiError, ConflictError, Kind, NotFoundError
from executors.kube.api import EVENTS, JOBS, MINICLUSTERS, NAMESPACES, PODS, SERVICES
from executors.kube.objects import Job, KubernetesObject, MiniCluster, MiniClusterStatus
from executors.provision.kubernetes import diagnosis
from executors.provision.kubernetes.certificate import make_certificate
from executors.render import OPERATOR_LABELS, SELECTOR_LABEL

log = logging.getLogger(__name__)

T = TypeVar("T", bound=KubernetesObject)

_OURS = ",".join(f"{name}={value}" for name, value in OPERATOR_LABELS.items())
_PARTS = {"Service": SERVICES}
#: What is followed. Upstream's Jobs and pods have the selector's label too.
FOLLOWED = (
    Followed(MINICLUSTERS),
    Followed(JOBS, labels=SELECTOR_LABEL),
    Followed(PODS, labels="app=flux-operator"),
    *(Followed(kind, labels=_OURS, metadata_only=True) for kind in _PARTS.values()),
    # What a Job's pods and volumes are refused for stands nowhere else.
    Followed(EVENTS, fields="involvedObject.kind=Job,reason=FailedCreate", needed=False),
    Followed(EVENTS, fields="involvedObject.kind=Pod,reason=FailedMount", needed=False),
)
WORKERS = 4
#: Seconds for which a namespace's labels are taken for what they were, and its life.
_NAMESPACE_KEPT = 30.0
_NAMESPACE_PAUSE = 1.0
#: Seconds between two writes of a status in which only words change (a thousand pods start one by one).
_WORDS_PAUSE = 1.0
#: Seconds after a Job was made in which nothing is written that can wait: the API server, the scheduler and the kubelet
#: are busy with its pods, and each further request makes the start longer.
_START_PAUSE = 1.0
#: The longest pause between two attempts while the API server is away.
_AWAY_PAUSE = 5.0
_ENFORCE = "pod-security.kubernetes.io/enforce"


@dataclass(frozen=True)
class Options:
    """``namespace`` None: all. ``restricted``: pods pass the restricted standard wherever they are."""

    namespace: str | None = None
    restricted: bool = False


@dataclass(frozen=True)
class _Namespace:
    """As it was at ``since`` (time.monotonic)."""

    since: float
    restricted: bool
    ends: bool


class Controller:
    """Works from `start` to `stop`."""

    def __init__(self, api: Api, options: Options) -> None:
        self._api = api
        self._options = options
        self._store = Store()
        self._queue: WorkQueue[Key] = WorkQueue()
        self._actor = Actor(api, self._take, self._store.take_stranger)
        self._reflectors = [Reflector(api, options.namespace, one, self._take, self._queue.add) for one in FOLLOWED]
        self._workers: list[threading.Thread] = []
        self._namespaces: dict[str, _Namespace] = {}
        self._refusals: dict[Key, tuple[str, Refusal]] = {}
        self._wrote: dict[Key, float] = {}
        self._began: dict[Key, float] = {}
        #: For measurements: what was done how often, by what came of it.
        self.reconciled = {"done": 0, "failed": 0}
        self.seconds = 0.0
        self._counting = threading.Lock()
        self._closed = False

    def start(self) -> None:
        """Returns when everything has been listed once and work has begun, or `stop` was called."""
        for reflector in self._reflectors:
            reflector.start()
        for reflector in self._reflectors:
            while reflector.needed and not reflector.synced.wait(0.5):
                if self._closed:
                    return
        for number in range(WORKERS):
            worker = threading.Thread(target=self._work, name=f"worker-{number}", daemon=True)
            worker.start()
            self._workers.append(worker)
        log.info("working on %d MiniClusters", len(self._store.miniclusters()))

    def stop(self, limit: float = 10.0) -> None:
        """Workers end what they have in hand, ``limit`` seconds at most."""
        self._closed = True
        self._queue.close()
        for reflector in self._reflectors:
            reflector.stop()
        deadline = time.monotonic() + limit
        for worker in self._workers:
            worker.join(max(0.0, deadline - time.monotonic()))

    @property
    def synced(self) -> bool:
        return all(reflector.synced.is_set() for reflector in self._reflectors if reflector.needed)

    @property
    def depth(self) -> int:
        """MiniClusters that wait for a worker."""
        return len(self._queue)

    @property
    def store(self) -> Store:
        return self._store

    def _take(self, kind: Kind[T], given: T, deleted: bool) -> Key | None:
        return self._store.take(kind, given, deleted=deleted)

    def is_alive(self) -> bool:
        """Whether no worker has ended but by `stop`."""
        return self._closed or all(worker.is_alive() for worker in self._workers)

    def _work(self) -> None:
        while (key := self._queue.get()) is not None:
            began = time.monotonic()
            try:
                self._reconcile(key)
                self._queue.succeeded(key)
                result = "done"
            except ConflictError as err:  # it has just changed: the watch brings it, and this key with it
                log.debug("%s/%s: %s", *key, err)
                self._queue.failed(key)
                result = "done"
            except (ApiError, RefusedByServer) as err:
                result = "failed"
                log.warning("%s/%s: %s; again in %.1f s", *key, err, self._again_after(key, err))
            except Exception:  # one MiniCluster that we fail at must not end the worker of all others
                result = "failed"
                log.exception("%s/%s failed; again in %.1f s", *key, self._queue.failed(key))
            self._queue.done(key)
            with self._counting:
                self.reconciled[result] += 1
                self.seconds += time.monotonic() - began

    def _again_after(self, key: Key, err: ApiError | RefusedByServer) -> float:
        """Soon where the server is away or overloaded, as it says; it may be back any moment, and tells nobody."""
        if isinstance(err, ApiError) and err.passing:
            return self._queue.failed(key, longest=_AWAY_PAUSE, at_least=err.retry_after or 0.0)
        return self._queue.failed(key)

    def _reconcile(self, key: Key) -> None:
        resource = self._store.minicluster(key)
        if resource is None:
            self._forget(key)
            return
        uid = resource["metadata"]["uid"]
        self._look_at_strangers(key)
        job = self._store.job(key)
        if job is None:
            ended = self._store.ended_job(key)
            job = ended if ended is not None and diagnosis.is_owned_by(ended, uid) else None
        known, refusal = self._refusals.get(key, ("", None))
        observed = Observed(
            job=job,
            pods=self._store.all_of(key, PODS),
            events=self._store.all_of(key, EVENTS),
            owned=self._parts(key),
            # Of what is made again beside a Job, only the services' pod depends on it.
            restricted=(
                self._is_restricted(key[0])
                if job is None or (resource.get("spec") or {}).get("services")
                else self._options.restricted
            ),
            refusal=refusal if known == uid else None,
            namespace_ends=self._namespace_ends(key, job),
        )
        now = _now()
        decision = decide(resource, observed, make_certificate, now)
        self._carry_out(key, resource, decision, now)

    def _look_at_strangers(self, key: Key) -> None:
        """Ask for objects in our way, of which no watch tells."""
        strangers = self._store.strangers(key)
        self._store.forget_strangers(key)
        for kind, one in strangers:
            try:
                self._store.take_stranger(key, kind, self._api.get(kind, key[0], one["metadata"]["name"]))
            except NotFoundError:
                pass  # what was waited for

    def _parts(self, key: Key) -> dict[tuple[str, str], KubernetesObject]:
        found = self._store.parts(key, _PARTS)
        # The services' pod is no Job's.
        for pod in self._store.all_of(key, PODS):
            if diagnosis.index_of(pod) is None:
                found["Pod", diagnosis.name_of(pod)] = pod
        for kind, one in self._store.strangers(key):
            if kind is PODS:
                found["Pod", diagnosis.name_of(one)] = one
        return found

    def _carry_out(self, key: Key, resource: MiniCluster, decision: Decision, now: str) -> None:
        made = [one for one in decision.actions if not isinstance(one, DeleteMiniCluster)]
        if not any(isinstance(one, Create) for one in made) and self._is_starting(key, decision):
            return
        refused: RefusedByServer | None = None
        failed: ApiError | None = None
        try:
            for one in made:
                if not self._actor.do(resource, one):
                    break
        except RefusedByServer as err:
            refused = err
            before = self._refusals.get(key)
            self._refusals[key] = (resource["metadata"]["uid"], err.refusal)
            if before != self._refusals[key]:
                self._queue.add(key)  # to be told
        except ConflictError:
            raise  # what was decided is about what is not so any more
        except ApiError as err:
            failed = err  # the status tells what is, whatever cannot be done
        else:
            if made:
                self._refusals.pop(key, None)
                self._queue.add(key)  # the store knows what was made: the status follows
            if any(isinstance(one, Create) and one.manifest["kind"] == "Job" for one in made):
                self._began[key] = time.monotonic()
        if decision.status is not None and not self._is_too_soon(key, resource, decision.status):
            for told in decision.events:
                self._actor.tell(resource, told, now)
            self._actor.write_status(resource, decision.status)
            self._wrote[key] = time.monotonic()
            self._store.forget_ended(key)
        for action in decision.actions:
            if isinstance(action, DeleteMiniCluster):
                self._actor.do(resource, action)
        if decision.again_after is not None:
            self._queue.add_after(key, decision.again_after)
        if refused is not None and refused.refusal.passing:
            raise refused
        if failed is not None:
            raise failed

    def _is_starting(self, key: Key, decision: Decision) -> bool:
        """Whether its Job was made a moment ago and there is nothing but its start to tell; that is told a little
        later."""
        left = self._began.get(key, float("-inf")) + _START_PAUSE - time.monotonic()
        if left <= 0:
            return False
        conditions = (decision.status or {}).get("conditions") or []
        if any(holds(conditions, one) for one in (COMPLETED, FAILED, STALLED, READY)):
            return False
        self._queue.add_after(key, left)
        return True

    def _is_too_soon(self, key: Key, resource: MiniCluster, status: MiniClusterStatus) -> bool:
        """Whether only words have changed since a moment ago; then it is written a little later."""
        left = self._wrote.get(key, float("-inf")) + _WORDS_PAUSE - time.monotonic()
        if left <= 0 or _without_words(resource.get("status") or {}) != _without_words(status):
            return False
        self._queue.add_after(key, left)
        return True

    def _is_restricted(self, namespace: str) -> bool:
        return self._options.restricted or self._namespace(namespace, _NAMESPACE_KEPT).restricted

    def _namespace_ends(self, key: Key, job: Job | None) -> bool:
        """Looked at where something deletes pods of a Job that goes on."""
        if job is None or diagnosis.is_leaving(job) or diagnosis.is_held(job):
            return False
        if not any(diagnosis.is_leaving(pod) for pod in self._store.all_of(key, PODS)):
            return False
        known = self._namespace(key[0], _NAMESPACE_PAUSE)
        if not known.ends and time.monotonic() - known.since > 0.1:
            self._queue.add_after(key, _NAMESPACE_PAUSE)  # the pods may have been deleted since then
        return known.ends

    def _namespace(self, name: str, kept: float) -> _Namespace:
        """What is known of it since ``kept`` seconds ago at most."""
        known = self._namespaces.get(name)
        if known is None or time.monotonic() - known.since > kept:
            labels: dict[str, str] = {}
            ends = False
            since = time.monotonic()
            try:
                metadata = self._api.get(NAMESPACES, None, name)["metadata"]
                labels, ends = metadata.get("labels") or {}, diagnosis.is_leaving({"metadata": metadata})
            except NotFoundError:
                ends = True
            except ApiError as err:
                if err.status not in (401, 403):
                    raise
                log.warning(
                    "cannot tell whether %s enforces restricted pod security or is being deleted: %s", name, err
                )
            known = self._namespaces[name] = _Namespace(since, labels.get(_ENFORCE) == "restricted", ends)
        return known

    def _forget(self, key: Key) -> None:
        self._refusals.pop(key, None)
        self._wrote.pop(key, None)
        self._began.pop(key, None)
        self._store.forget_strangers(key)
        self._store.forget_ended(key)


def _without_words(status: MiniClusterStatus) -> dict[str, Any]:
    conditions = [
        {name: condition.get(name) for name in ("type", "status", "reason")}
        for condition in status.get("conditions") or []
    ]
    return {**{name: value for name, value in status.items() if name != "observedGeneration"}, "conditions": conditions}


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
