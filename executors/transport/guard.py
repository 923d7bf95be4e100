"""Waiting on file descriptors that another thread may close. No protocol, no transport of its own."""

from __future__ import annotations

import contextlib
import select
import threading
from collections.abc import Iterator


class Guard:
    """Closes file descriptors only when no other thread waits on them: a closed number may be somebody else's soon."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._closing = False

    @contextlib.contextmanager
    def using(self) -> Iterator[bool]:
        """Whether the descriptors are still open; they stay so inside."""
        with self._lock:
            usable = not self._closing
            self._users += usable
        try:
            yield usable
        finally:
            if usable:
                with self._lock:
                    self._users -= 1
                    last = self._closing and not self._users
                if last:
                    self.release()

    def close(self) -> None:
        with self._lock:
            first, self._closing = not self._closing, True
            idle = not self._users
        if first:
            self.wake()
            if idle:
                self.release()

    def wake(self) -> None:
        """Make a thread that waits return."""

    def release(self) -> None:
        """Close the descriptors."""


def wait_for(fd: int, event: int, timeout: float) -> bool:
    # poll, not select: a client with many files open has descriptors over 1023.
    poll = select.poll()
    poll.register(fd, event)
    return bool(poll.poll(max(0, round(timeout * 1000))))
