"""The line of tasks that wait for a pilot, and which pilot takes the first one. Pure.

First in, first out among equal urgencies: the head of the line blocks the others, as in the embedded engine. A pilot is
sent what fits its free cores, and besides one task for each core, so that a core does not wait for the agent.
"""

from __future__ import annotations

import heapq
from typing import Iterable, List, Optional, Protocol, Sequence, Tuple, TypeVar

from .task import Task


class Place(Protocol):
    """A pilot, as far as the line asks about it."""

    @property
    def cores(self) -> int:
        """That it holds, and is not about to release."""

    @property
    def load(self) -> int:
        """Cores of the tasks that it has been sent."""


AnyPlace = TypeVar("AnyPlace", bound=Place)


def place_for(cores: int, pilots: Iterable[AnyPlace]) -> Optional[AnyPlace]:
    """The pilot that a task of so many cores is sent to; None: none has room."""
    best: Optional[AnyPlace] = None
    best_room = 0
    for pilot in pilots:
        room = pilot.cores - pilot.load
        # One task of one core may wait there for each core.
        fits = room >= cores or (cores == 1 and room > -pilot.cores)
        if fits and (best is None or room > best_room):
            best, best_room = pilot, room
    return best


def crowded(pilots: Sequence[AnyPlace]) -> List[AnyPlace]:
    """The pilots in which tasks wait for a core, if another one has a core that is free."""
    if any(pilot.cores > pilot.load for pilot in pilots):
        return [pilot for pilot in pilots if pilot.load > pilot.cores]
    return []


class Line:
    """Tasks by urgency, and then as they came."""

    def __init__(self) -> None:
        self._heap: List[Tuple[int, int, Task]] = []
        self._count = 0
        #: Cores of all tasks that wait.
        self.cores = 0

    def __bool__(self) -> bool:
        return self.first is not None

    @property
    def first(self) -> Optional[Task]:
        while self._heap and not self._heap[0][2].waits:
            heapq.heappop(self._heap)  # cancelled, or sent
        return self._heap[0][2] if self._heap else None

    def add(self, task: Task, again: bool = False) -> None:
        """``again``: it has been in the line before, and goes before those of its urgency."""
        self._count += 1
        assert task.submission is not None
        heapq.heappush(self._heap, (-task.submission.urgency, -self._count if again else self._count, task))
        self.cores += task.cores

    def left(self, task: Task) -> None:
        """A task was sent, or has ended while it waited: the caller has said so in it."""
        self.cores -= task.cores

    def all(self) -> List[Task]:
        return [task for _, _, task in sorted(self._heap) if task.waits]
