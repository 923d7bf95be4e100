"""The line of tasks that wait for a pilot, and which pilot takes the first one. Pure.

There is one line for each shape of holders. First in, first out among equal urgencies: the head of a line blocks the
others in it, as in the embedded engine. A pilot is sent what fits its free holders, and besides one task for each, so
that a core does not wait for the agent.
"""

from __future__ import annotations

import heapq
from typing import Iterable, List, Optional, Protocol, Sequence, Tuple, TypeVar

from .task import Task


class Place(Protocol):
    """The holders of one shape that a pilot has."""

    @property
    def held(self) -> int:
        """Those that it is not about to release."""

    @property
    def load(self) -> int:
        """Those that its tasks need."""


AnyPlace = TypeVar("AnyPlace", bound=Place)


def place_for(holders: int, places: Iterable[AnyPlace]) -> Optional[AnyPlace]:
    """Where a task that needs so many holders is sent to; None: none has room."""
    best: Optional[AnyPlace] = None
    best_room = 0
    for place in places:
        room = place.held - place.load
        # One task of one holder may wait there for each of them.
        fits = room >= holders or (holders == 1 and room > -place.held)
        if fits and (best is None or room > best_room):
            best, best_room = place, room
    return best


def crowded(places: Sequence[AnyPlace]) -> List[AnyPlace]:
    """Those in which tasks wait for a holder, if another one has a holder that is free."""
    if any(place.held > place.load for place in places):
        return [place for place in places if place.load > place.held]
    return []


class Line:
    """Tasks of one shape of holders by urgency, and then as they came."""

    def __init__(self) -> None:
        self._heap: List[Tuple[int, int, Task]] = []
        self._count = 0
        #: Holders that all tasks need which wait.
        self.holders = 0

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
        self.holders += task.holders

    def left(self, task: Task) -> None:
        """A task was sent, or has ended while it waited: the caller has said so in it."""
        self.holders -= task.holders

    def all(self) -> List[Task]:
        return [task for _, _, task in sorted(self._heap) if task.waits]
