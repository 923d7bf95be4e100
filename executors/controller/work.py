"""What is to be looked at next: keys, each with one worker at a time, later after each failure. Thread-safe."""

from __future__ import annotations

import heapq
import random
import threading
import time
from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

#: Seconds between a failure and the next attempt: the first time, and at most.
FIRST, LONGEST = 0.2, 60.0
#: A worker that waits for longer looks again meanwhile: a lock takes no number of seconds of any size.
_LOOK = 3600.0


class WorkQueue(Generic[K]):
    """A key that is added while a worker has it comes again when that one is done; added twice it comes once."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._ready: deque[K] = deque()
        self._waiting: set[K] = set()
        self._busy: set[K] = set()
        self._again: set[K] = set()
        self._later: list[tuple[float, int, K]] = []
        self._due: dict[K, float] = {}
        self._failures: dict[K, int] = {}
        self._count = 0
        self._closed = False

    def add(self, key: K) -> None:
        with self._changed:
            self._add(key)

    def add_after(self, key: K, seconds: float) -> None:
        """At the latest then; whatever adds it before that does not hinder it."""
        due = time.monotonic() + seconds
        with self._changed:
            if self._due.get(key, float("inf")) <= due:
                return
            self._due[key] = due
            self._count += 1
            heapq.heappush(self._later, (due, self._count, key))
            self._changed.notify()

    def failed(self, key: K, *, longest: float = LONGEST, at_least: float = 0.0) -> float:
        """Later, each time twice as late; how many seconds."""
        with self._changed:
            times = self._failures[key] = self._failures.get(key, 0) + 1
        seconds = max(at_least, min(longest, FIRST * 2.0 ** min(times - 1, 16)) * random.uniform(0.9, 1.1))
        self.add_after(key, seconds)
        return seconds

    def succeeded(self, key: K) -> None:
        with self._changed:
            self._failures.pop(key, None)

    def get(self) -> K | None:
        """The next key, which is the caller's until `done`; None when the queue is closed."""
        with self._changed:
            while True:
                if self._closed:
                    return None
                now = time.monotonic()
                while self._later and self._later[0][0] <= now:
                    due, _, key = heapq.heappop(self._later)
                    if self._due.get(key) == due:
                        del self._due[key]
                        self._add(key)
                if self._ready:
                    key = self._ready.popleft()
                    self._waiting.discard(key)
                    self._busy.add(key)
                    return key
                self._changed.wait(min(self._later[0][0] - now, _LOOK) if self._later else None)

    def done(self, key: K) -> None:
        with self._changed:
            self._busy.discard(key)
            if key in self._again:
                self._again.discard(key)
                self._add(key)

    def close(self) -> None:
        """Workers get no more keys."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def __len__(self) -> int:
        with self._changed:
            return len(self._ready)

    def _add(self, key: K) -> None:
        if key in self._busy:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting.add(key)
            self._ready.append(key)
            self._changed.notify()
