"""How long a MiniCluster may take to come up, and what is reported meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from executors.errors import ProvisionError
from executors.provision.kubernetes.diagnosis import STUCK, Cause, Fatal, Finding, Pending
from executors.provision.kubernetes.picture import reason_of

#: Seconds without news after which a wait says again what it is waiting for.
_PROGRESS = 30.0


class StartTimeouts:
    """The limits of a start, and the reports while it is waited for."""

    def __init__(
        self,
        limit: float,
        schedule_limit: float,
        job_limit: float,
        report_progress: Callable[[str], None],
        begun: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Seconds: for all, since ``begun`` (0: no limit); for what does not go by itself; for the Job to appear (0: it
        is there)."""
        now = clock()
        self._clock = clock
        self._limit = limit
        self._schedule_limit = schedule_limit
        self._announce = report_progress
        self._deadline = (now if begun is None else begun) + limit if limit > 0 else float("inf")
        #: Since when without a break.
        self._stuck_since: dict[Cause, float] = {}
        self._job_limit = job_limit
        self.job_is_awaited(there=False)
        self._say_at = now + _PROGRESS
        self._said: Cause | None = None

    def job_is_awaited(self, *, there: bool) -> None:
        """Count again from now on, unless one of its name is there."""
        self._job_deadline = self._clock() + self._job_limit if self._job_limit > 0 and not there else float("inf")

    def next_look(self) -> float:
        stuck = min(self._stuck_since.values(), default=float("inf")) + self._schedule_limit
        return min(self._deadline, self._job_deadline, stuck, self._say_at)

    def look(self, findings: Sequence[Finding]) -> None:
        """Raises ProvisionError when there is no hope, or no time, left."""
        now = self._clock()
        for finding in findings:
            if isinstance(finding, Fatal):
                raise ProvisionError(finding.reason)
        waits = {one.cause: one for one in reversed(findings) if isinstance(one, Pending)}
        if Cause.SCALING in waits:
            waits.pop(Cause.ROOM, None)
        self._stuck_since = {cause: self._stuck_since.get(cause, now) for cause in waits.keys() & STUCK}
        for cause in sorted(self._stuck_since):
            if now >= self._stuck_since[cause] + self._schedule_limit:
                raise ProvisionError(self._too_long(waits[cause]))
        if now >= self._job_deadline:
            raise ProvisionError(
                f"the Flux Operator has made no Job within {self._job_limit:g} s; it may not be running, or it "
                "refuses the spec: see its log"
            )
        waiting = reason_of(findings)
        if now >= self._deadline:
            cure = "; 0: no limit" if waiting.cause is Cause.HELD else ""
            raise ProvisionError(f"not up within {self._limit:g} s (run.startTimeout{cure}): {waiting.reason}")
        news = waiting.cause in STUCK | {Cause.HELD} and waiting.cause is not self._said
        if now >= self._say_at or news:
            self._announce(f"waiting: {waiting.reason}")
            self._said = waiting.cause
            self._say_at = now + _PROGRESS

    def _too_long(self, stuck: Pending) -> str:
        limit = f"run.scheduleTimeout, {self._schedule_limit:g} s"
        if stuck.cause is Cause.ROOM:
            return f"{stuck.reason}; no autoscaler makes room for it ({limit})"
        return f"{stuck.reason}; that did not change ({limit})"
