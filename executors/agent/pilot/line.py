"""The line of tasks that wait for a pilot, and which pilot takes the first one. Pure.

There is one line for each shape. First in, first out among equal urgencies. A pilot is sent a task for each of its free
holders of the shape, and besides one for each holder, so that a core does not wait for the agent.
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
        """Tasks that it has been sent for them."""


AnyPlace = TypeVar("AnyPlace", bound=Place)


def place_for_next(places: Iterable[AnyPlace]) -> Optional[AnyPlace]:
    """Where the next task is sent to; None: none has room."""
    best: Optional[AnyPlace] = None
    best_room = 0
    for place in places:
        room = place.held - place.load
        # One task may wait there for each holder.
        if room > -place.held and (best is None or room > best_room):
            best, best_room = place, room
    return best


def crowded(places: Sequence[AnyPlace]) -> List[AnyPlace]:
    """Those in which tasks wait for a holder, if another one has a holder that is free."""
    if any(place.held > place.load for place in places):
        return [place for place in places if place.load > place.held]
    return []


class Line:
    """Tasks of one shape by urgency, and then as they came."""

    def __init__(self) -> None:
        self._heap: List[Tuple[int, int, Task]] = []
        self._number = 0
        self._urgency = 0
        #: Tasks that wait.
        self.count = 0

    @property
    def first(self) -> Optional[Task]:
        while self._heap and not self._heap[0][2].waits:
            heapq.heappop(self._heap)  # cancelled, or sent
        return self._heap[0][2] if self._heap else None

    @property
    def urgency(self) -> int:
        """Of the first task that waits, or of the last one that did."""
        if self.first is not None:
            self._urgency = -self._heap[0][0]
        return self._urgency

    def add(self, task: Task, again: bool = False) -> None:
        """``again``: it has been in the line before, and goes before those of its urgency."""
        self._number += 1
        assert task.submission is not None
        if not self.count:
            self._urgency = task.submission.urgency
        heapq.heappush(self._heap, (-task.submission.urgency, -self._number if again else self._number, task))
        self.count += 1

    def left(self) -> None:
        """A task was sent, or has ended while it waited: the caller has said so in it."""
        self.count -= 1

    def all(self) -> List[Task]:
        return [task for _, _, task in sorted(self._heap) if task.waits]
