"""How long a MiniCluster may take to come up, and what is said meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable

from executors.errors import ProvisionError
from executors.provision import diagnosis
from executors.provision.diagnosis import Fatal, Pending

#: Seconds without news after which a wait says again what it is waiting for.
_PROGRESS = 30.0


class Waiting:
    """The limits of a wait, and what is said meanwhile."""

    def __init__(self, limit: float, schedule_limit: float, job_limit: float, announce: Callable[[str], None]) -> None:
        """Seconds: for all (0: no limit), for a pod without a node, for the Job to appear (0: it is there)."""
        now = time.monotonic()
        self._limit = limit
        self._schedule_limit = schedule_limit
        self._announce = announce
        self._deadline = now + limit if limit > 0 else float("inf")
        self._stuck_since: float | None = None
        self._job_limit = job_limit
        self.job_is_awaited(there=False)
        self._say_at = now + _PROGRESS
        self._said = ""

    def job_is_awaited(self, *, there: bool) -> None:
        """Anew from now on, unless one of its name is there."""
        self._job_deadline = time.monotonic() + self._job_limit if self._job_limit > 0 and not there else float("inf")

    def next_look(self) -> float:
        stuck = float("inf") if self._stuck_since is None else self._stuck_since + self._schedule_limit
        return min(self._deadline, self._job_deadline, stuck, self._say_at)

    def look(self, findings: list[diagnosis.Finding]) -> None:
        """Raises ProvisionError when there is no hope, or no time, left."""
        now = time.monotonic()
        fatal = [one for one in findings if isinstance(one, Fatal)]
        if fatal:
            raise ProvisionError(fatal[0].reason)
        pending = [one for one in findings if isinstance(one, Pending)]
        scaling = any(one.scaling for one in pending)
        stuck = [one for one in pending if "cannot be scheduled" in one.reason]
        if not stuck or scaling:
            self._stuck_since = None
        elif self._stuck_since is None:
            self._stuck_since = now
        if stuck and self._stuck_since is not None and now >= self._stuck_since + self._schedule_limit:
            raise ProvisionError(
                f"{stuck[0].reason}; no autoscaler makes room for it (run.scheduleTimeout, {self._schedule_limit:g} s)"
            )
        if now >= self._job_deadline:
            raise ProvisionError(
                f"the Flux Operator has made no Job within {self._job_limit:g} s; it may not run, or refuse the spec: "
                "see its own log"
            )
        waiting = pending[0].reason if pending else "no pod has been created yet"
        if now >= self._deadline:
            raise ProvisionError(f"not up within {self._limit:g} s (run.startTimeout): {waiting}")
        if now >= self._say_at or (stuck and waiting != self._said):
            self._announce(f"waiting: {waiting}")
            self._said = waiting
            self._say_at = now + _PROGRESS
