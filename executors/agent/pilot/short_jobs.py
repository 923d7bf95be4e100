"""Whether a run has many short jobs, by those that have ended (`run.pilot: auto`). Pure."""

from __future__ import annotations

from collections import deque
from typing import Deque, Dict, Iterable

from ..engine import Entry

#: Seconds from its start to its end, below which a job is short: Flux's own 20 ms count for such a job only.
SHORT = 1.0
#: Of how many jobs that have ended last it is known.
LAST = 32
#: So many short ones among them are many, and are not any more below the second number.
MANY, FEW = 16, 8


class ShortJobs:
    """Told of all events of all jobs, in their order."""

    def __init__(self) -> None:
        self._starts: Dict[str, float] = {}
        self._last: Deque[bool] = deque(maxlen=LAST)
        self._count = 0
        self._are_many = False

    @property
    def are_many(self) -> bool:
        """At least `MANY` of the `LAST` jobs to end were short; then, until less than `FEW` of them are."""
        return self._are_many

    def see(self, entries: Iterable[Entry]) -> None:
        for job, name, timestamp, _ in entries:
            if name == "start":
                self._starts[job] = timestamp
            elif name in ("finish", "clean"):
                start = self._starts.pop(job, None)
                if start is not None:
                    self._ended(timestamp - start < SHORT)

    def _ended(self, is_short: bool) -> None:
        if len(self._last) == LAST:
            self._count -= self._last[0]
        self._last.append(is_short)
        self._count += is_short
        self._are_many = self._count >= (FEW if self._are_many else MANY)
