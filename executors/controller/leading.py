"""Who works: of several replicas the one that holds our Lease, and none while upstream's operator does.

As Kubernetes' own components do (client-go's leaderelection): whether a Lease has run out is judged by one's own clock,
from when it was last seen to change. A leader that cannot renew in time stops working before others begin.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

from executors.controller.names import LEASE, MANAGER, UPSTREAM_LEASE
from executors.controller.reflecting import Followed, Reflector
from executors.controller.store import Key
from executors.kube import Api, ApiError, ConflictError, ForbiddenError, Kind, NotFoundError
from executors.kube.api import LEASES
from executors.kube.objects import Lease, LeaseSpec

log = logging.getLogger(__name__)

#: Seconds: for which a Lease is good without being renewed, after which a leader that could not renew it stops, between
#: renewals, and between others' attempts.
DURATION, DEADLINE, RENEWAL, RETRY = 15.0, 10.0, 5.0, 2.0


class Leadership:
    """Of ``identity``, by the Lease in ``namespace``. A thread renews it; ``changed`` is called when it is lost."""

    def __init__(
        self,
        api: Api,
        namespace: str,
        identity: str,
        changed: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._identity = identity
        self._changed = changed
        self._clock = clock
        self._closing = threading.Event()
        self._seen: tuple[str, str] = ("", "")
        self._seen_at = 0.0
        self._thread: threading.Thread | None = None
        #: When the last attempt began that renewed it.
        self._renewed = 0.0
        self._losing = threading.Lock()
        self.lost = threading.Event()
        self.held = False

    def acquire(self, closing: threading.Event) -> bool:
        """Returns True when the Lease is ours, False when ``closing`` is set before."""
        told = ""
        while not closing.is_set():
            self._renewed = self._clock()
            try:
                holder = self._try()
            except ConflictError:
                continue  # somebody else was quicker
            except ApiError as err:
                log.warning("the Lease %s/%s: %s", self._namespace, LEASE, err)
                holder = "?"
            if holder is None:
                self.held = True
                self.lost.clear()
                self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
                self._thread.start()
                threading.Thread(target=self._look_at_deadline, name="lease-deadline", daemon=True).start()
                log.info("leading, as %s", self._identity)
                return True
            if holder != told:
                log.info("standing by: %s leads", holder)
                told = holder
            # A Lease that runs out is no event.
            closing.wait(RETRY)
        return False

    def release(self) -> None:
        """Let another one begin at once. Never raises."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(RETRY)
        if not self.held:
            return
        self.held = False
        try:
            lease = self._api.get(LEASES, self._namespace, LEASE, once=True)
            if lease["spec"].get("holderIdentity") == self._identity:
                self._write(lease, {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": _now()})
        except ApiError as err:
            log.debug("the Lease was not released: %s", err)

    def _try(self) -> str | None:
        """Take the Lease, or keep it; whose it is otherwise. Raises ApiError."""
        mine: LeaseSpec = {"holderIdentity": self._identity, "leaseDurationSeconds": int(DURATION), "renewTime": _now()}
        try:
            lease = self._api.get(LEASES, self._namespace, LEASE, once=True)
        except NotFoundError:
            made = {
                "apiVersion": LEASES.api_version,
                "kind": "Lease",
                "metadata": {"name": LEASE, "namespace": self._namespace},
                "spec": {**mine, "acquireTime": _now(), "leaseTransitions": 0},
            }
            self._api.create(LEASES, self._namespace, made, manager=MANAGER)
            return None
        spec = lease.get("spec") or {}
        holder = str(spec.get("holderIdentity") or "")
        seen = (holder, str(spec.get("renewTime")))
        if seen != self._seen:
            self._seen, self._seen_at = seen, self._clock()
        good_for = float(spec.get("leaseDurationSeconds") or DURATION)
        if holder and holder != self._identity and self._clock() < self._seen_at + good_for:
            return holder
        if holder != self._identity:
            transitions = int(spec.get("leaseTransitions") or 0) + 1
            mine |= {"acquireTime": _now(), "leaseTransitions": transitions}
        self._write(lease, mine)
        return None

    def _write(self, lease: Lease, spec: LeaseSpec) -> None:
        version = lease["metadata"]["resourceVersion"]
        change = {"metadata": {"resourceVersion": version}, "spec": spec}
        # Once: an answer that comes too late is of no use here.
        path = LEASES.path(self._namespace, LEASE)
        self._api.request("PATCH", path, body=change, content_type="application/merge-patch+json", once=True)

    def _renew(self) -> None:
        while not self._closing.wait(RENEWAL if self._clock() - self._renewed < RENEWAL else RETRY):
            if self.lost.is_set():
                return
            began = self._clock()
            try:
                if self._try() is not None:
                    break
                self._renewed = began
            except ApiError as err:
                log.warning("the Lease could not be renewed: %s", err)
                if self._clock() - self._renewed > DEADLINE:
                    break
            except Exception:  # nobody else would notice, and this one would work for ever
                log.exception("renewing the Lease failed")
                break
        else:
            return
        self._lose()

    def _look_at_deadline(self) -> None:
        """An attempt may last longer than the Lease is good for: others begin then, whatever comes of it."""
        while (left := self._renewed + DEADLINE - self._clock()) > 0:
            if self.lost.wait(left):
                return
        self._lose()

    def _lose(self) -> None:
        with self._losing:
            if self.lost.is_set() or self._closing.is_set():
                return
            self.held = False
            self.lost.set()
        self._changed()


class UpstreamWatch:
    """Whether upstream's operator runs, by its own Lease; ``changed`` is called when that may have become otherwise."""

    def __init__(self, api: Api, namespace: str | None, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._leases: dict[str, tuple[str, float, float]] = {}
        self._reflector: Reflector | None = None
        field = f"metadata.name={UPSTREAM_LEASE}"
        for where in (None, namespace):
            try:
                api.list(LEASES, where, fields=field)
            except ForbiddenError as err:
                log.info("cannot check whether upstream's operator runs%s: %s", "" if where else " everywhere", err)
                continue
            self._reflector = Reflector(api, where, Followed(LEASES, fields=field), self._take, lambda _: None)
            self._reflector.start()
            self._reflector.synced.wait(30.0)
            return

    def stop(self) -> None:
        if self._reflector is not None:
            self._reflector.stop()

    def until(self) -> float:
        """The moment (`time.monotonic`) until which it is taken to run; in the past: it does not."""
        return max((until for _, _, until in list(self._leases.values())), default=0.0)

    def _take(self, kind: Kind[Lease], lease: Lease, deleted: bool) -> Key | None:
        spec, uid = lease.get("spec") or {}, lease["metadata"]["uid"]
        if deleted or not spec.get("holderIdentity"):
            self._leases.pop(uid, None)
        else:
            good_for = float(spec.get("leaseDurationSeconds") or DURATION)
            renewed = str(spec.get("renewTime") or "")
            age = time.time() - datetime.fromisoformat(renewed).timestamp() if renewed else float("inf")
            known = self._leases.get(uid)
            # One that changes is alive, whatever its clock says; of one that was there its clock is all we have.
            left = good_for if known is not None and known[0] != renewed else good_for - max(0.0, age)
            self._leases[uid] = (renewed, good_for, time.monotonic() + left)
        self._changed()
        return None


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
