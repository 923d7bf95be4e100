"""The events that a session has seen, for readers that come back with a cursor."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator

from executors.agent.wire import Cursor, JobEvent
from executors.errors import ExecutorsError

#: Events that a reader can go back to.
_KEPT = 28000


class History:
    """Thread-safe by ``changed``, the lock of what it belongs to, which tells of additions too."""

    def __init__(self, changed: threading.Condition) -> None:
        self._changed = changed
        self._kept: deque[JobEvent] = deque(maxlen=_KEPT)

    def add(self, events: list[JobEvent]) -> None:
        with self._changed:
            self._kept.extend(events)
            self._changed.notify_all()

    def after(self, cursor: Cursor | None, over: Callable[[], bool]) -> Iterator[JobEvent]:
        """Those after a cursor (None: all that there are), waiting for more until it is ``over``.

        Raises ExecutorsError when the cursor is older than what is kept.
        """
        place = cursor
        with self._changed:
            self._check(place)
        while True:
            with self._changed:
                while not (found := self._following(place)) and not over():
                    self._changed.wait()
            if not found:
                return
            for event in found:
                place = event.cursor
                yield event

    def _following(self, place: Cursor | None) -> list[JobEvent]:
        """Events after a place, oldest first."""
        found: list[JobEvent] = []
        for event in reversed(self._kept):
            if event.cursor == place:
                break
            found.append(event)
        else:
            self._check(place)
        found.reverse()
        return found

    def _check(self, after: Cursor | None) -> None:
        """Raises ExecutorsError when not everything after a cursor is kept."""
        if after is not None and self._kept and not self._reaches_back_to(after):
            raise ExecutorsError(f"events after {after} are no longer kept; begin with None and read the jobs' results")

    def _reaches_back_to(self, after: Cursor) -> bool:
        first = self._kept[0].cursor
        if first.epoch == after.epoch:
            return first.sequence <= after.sequence + 1
        return any(event.cursor.epoch == after.epoch for event in self._kept)
