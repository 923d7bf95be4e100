"""A MiniCluster that is coming up: what the API server tells is folded into one state, which is then judged. No I/O.

Who follows the objects, what a pod's log says of a failure, and how a Job is begun are not known here.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from executors.errors import EndingError
from executors.kube.api import EVENTS, JOBS, PODS
from executors.kube.objects import Pod
from executors.provision.kubernetes import diagnosis
from executors.provision.kubernetes.diagnosis import Fatal
from executors.provision.kubernetes.picture import Picture
from executors.provision.kubernetes.timeouts import StartTimeouts
from executors.provision.kubernetes.watching import Change, Listed

_NEVER = float("inf")


@dataclass(frozen=True)
class Expected:
    """Which MiniCluster is waited for, and how much of it."""

    #: For messages: "the MiniCluster namespace/name".
    where: str
    #: Of the broker, in each pod.
    container: str
    #: Of the owner: the Job itself in direct mode, the MiniCluster resource in operator mode.
    owner_uid: str
    job_is_owner: bool
    #: Pods.
    size: int
    #: Pods that are enough to begin with, the lead's among them.
    enough: int
    #: Whether another client created it: then lost followers come back, and its end is no failure.
    adopted: bool = False
    #: Whether it was only looked up: then the lead alone is enough, and its end is a failure.
    found: bool = False
    #: Whether the kubelet's events count, which come up to a second before the pods' own states.
    by_events: bool = False

    def needed(self, wanted: int) -> int:
        """Returns how many brokers, the lead's among them, are waited for, of so many that the Job wants now."""
        return 1 if self.found else min(self.enough, wanted)


@dataclass(frozen=True)
class Ready:
    """Enough brokers run. ``tentative``: of the lead only an event says so, its pod's own state does not yet."""

    lead: Pod
    tentative: bool


@dataclass(frozen=True)
class QueueTimeout:
    """The time is over in which a queue may admit the Job. ``queue``: that it is still held for; None: not held."""

    queue: str | None


class Startup:
    """Changes are folded in by `take`; `look` judges what is known by then."""

    def __init__(
        self,
        expected: Expected,
        timeouts: StartTimeouts,
        queue_deadline: float = _NEVER,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``queue_deadline``: the moment of ``clock`` at which a Job that no queue has admitted is begun without."""
        self._expected = expected
        self._timeouts = timeouts
        self._queue_deadline = queue_deadline
        self._clock = clock
        self._lost: Fatal | None = None
        self.picture = Picture(expected.container, expected.owner_uid, expected.size)

    def next_look(self) -> float:
        """Returns the moment of the clock at which to look again, though nothing has changed."""
        return min(self._timeouts.next_look(), self._queue_deadline)

    def take(self, change: Change | Listed | None) -> None:
        """Fold in what the API server has told; None: nothing until `next_look`."""
        expected = self._expected
        if isinstance(change, Listed):
            if change.kind is JOBS and not change.count and expected.job_is_owner:
                self._lost = Fatal(f"{expected.where} is gone")
        elif change is None:
            pass
        elif change.kind is PODS:
            self.picture.take_pod(change.object, deleted=change.deleted)
        elif change.kind is EVENTS:
            self.picture.take_event(change.object, deleted=change.deleted)
        elif not expected.job_is_owner and not diagnosis.is_owned_by(change.object, expected.owner_uid):
            # Of a MiniCluster of this name that is being removed; then comes the expected one.
            self._timeouts.job_is_awaited(there=not change.deleted)
        elif change.deleted:
            self._lost = Fatal(f"{expected.where} was deleted by somebody else while it started")
        else:
            self._timeouts.job_is_awaited(there=True)
            self.picture.take_job(change.object)

    def look(self) -> Ready | QueueTimeout | None:
        """Returns what is to be done now; None: wait. After a `QueueTimeout`, which comes once, look again.

        Raises EndingError when another client's MiniCluster has just ended, ProvisionError with the reason when there
        is no hope, or no time, left.
        """
        expected, picture = self._expected, self.picture
        end = self._lost or picture.end()
        if end is not None and expected.adopted and not expected.found:
            raise EndingError(end.reason)
        held = picture.held
        if end is None and self._clock() >= self._queue_deadline:
            self._queue_deadline = _NEVER
            return QueueTimeout(None if picture.job is None or held is None else diagnosis.queue_of(picture.job))
        up = picture.up(by_events=expected.by_events) if end is None and held is None else []
        needed = expected.needed(picture.wanted)
        lead = next((pod for pod in up if diagnosis.index_of(pod) == 0), None)
        if lead is not None and len(up) >= needed:
            return Ready(lead, tentative=not diagnosis.is_running(lead, expected.container))
        self._timeouts.look([end, *picture.findings(lenient=expected.adopted, needed=needed)])
        return None
