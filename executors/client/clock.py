"""The time that a client goes by, so that tests can have another one."""

from __future__ import annotations

import threading
import time


class Clock:
    """This machine's."""

    def now(self) -> float:
        """Seconds, of which only differences mean something."""
        return time.monotonic()

    def pause(self, seconds: float, until: threading.Event) -> None:
        """Wait, until ``until`` is set at the longest."""
        until.wait(seconds)


MONOTONIC = Clock()
