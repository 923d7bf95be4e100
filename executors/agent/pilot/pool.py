"""What the agent knows of the holders of one shape that a pilot has, and of its tasks for them. Pure."""

from __future__ import annotations

from typing import Set


class Pool:
    """``rank``: of the pilot."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        #: Tasks that it has been sent and that have not ended: each needs one holder.
        self.load = 0
        #: So many of its holders are to go.
        self.leaving = 0
        self._numbers: Set[int] = set()

    @property
    def held(self) -> int:
        """Holders that it has, and is not about to let go."""
        return len(self._numbers) - self.leaving

    @property
    def staying(self) -> int:
        """Tasks that need holders which stay. Those that are to go have one each: a pilot lets free ones go at once."""
        return max(0, self.load - self.leaving)

    @property
    def idle(self) -> int:
        """Holders that it keeps, and that no task needs."""
        return max(0, self.held - self.staying)

    def came(self, number: int) -> None:
        self._numbers.add(number)

    def left(self, number: int) -> None:
        """A holder has gone that was to go."""
        self._numbers.discard(number)
        self.leaving -= 1
