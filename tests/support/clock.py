"""Clocks that stand until they are moved."""

from __future__ import annotations

import threading

from executors.client.clock import Clock


class VirtualClock:
    """Calling it tells the time; so does ``now``, which a test may set."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class ClientClock(Clock):
    """A client's, whose pauses take no time of this machine's. ``pauses`` has their seconds."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.pauses: list[float] = []

    def now(self) -> float:
        return self.time

    def pause(self, seconds: float, until: threading.Event) -> None:
        if not until.is_set():
            self.pauses.append(seconds)
            self.time += seconds
