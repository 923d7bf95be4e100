"""What the agent knows of the holders of one shape that a pilot has, and of the tasks that run on them. Pure."""

from __future__ import annotations

from typing import Dict


class Pool:
    """``rank``: of the pilot."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        #: Holders that the tasks need which it has been sent.
        self.load = 0
        #: Tasks that have ended on them, and how many had when a holder came: with more, each holder has had one.
        self._ended = 0
        self._ended_before: Dict[int, int] = {}
        #: So many of its holders are to go.
        self._leaving = 0

    @property
    def held(self) -> int:
        """Holders that it has, and is not about to let go."""
        return len(self._ended_before) - self._leaving

    @property
    def fresh(self) -> int:
        """Those that have run no task yet."""
        return min(self.held, sum(1 for before in self._ended_before.values() if before == self._ended))

    def came(self, number: int) -> None:
        self._ended_before[number] = self._ended

    def left(self, number: int) -> None:
        """A holder has gone that was to go."""
        self._ended_before.pop(number, None)
        self._leaving -= 1

    def to_leave(self, count: int) -> None:
        """So many more are to go, or so many fewer."""
        self._leaving += count

    def has_run_one(self) -> None:
        """A task has ended."""
        self._ended += 1
