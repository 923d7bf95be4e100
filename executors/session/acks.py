"""Acknowledgements: results that were dealt with, told to the agent in batches."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence


class AckQueue:
    """Thread-safe. ``send`` sends one message; it is called with the lock of `flush` held."""

    def __init__(self, send: Callable[[list[str]], None]) -> None:
        self._send = send
        self._ids: list[str] = []
        self._adding = threading.Lock()
        self._sending = threading.Lock()
        #: When some were sent last (monotonic).
        self.sent = float("-inf")

    def add(self, job_ids: Sequence[str]) -> bool:
        """Returns whether a `flush` has to be arranged: there was nothing to send until now."""
        with self._adding:
            was_empty = not self._ids
            self._ids += job_ids
            return was_empty and bool(self._ids)

    def flush(self) -> None:
        """Send what there is. When this returns, all that was added before has been sent, by this call or another: only
        then may the same keys be submitted again.
        """
        with self._sending:
            with self._adding:
                ids, self._ids = self._ids, []
            if ids:
                self._send(ids)
                self.sent = time.monotonic()
