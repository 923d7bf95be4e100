"""Waiting for what has to come, with a limit after which the test has failed."""

from __future__ import annotations

import time
from collections.abc import Callable

#: Seconds: far more than anything takes, however busy the machine is.
LIMIT = 60.0


def wait_for(condition: Callable[[], bool], what: str, limit: float = LIMIT) -> None:
    """Until ``condition`` holds. ``what`` is said when it does not."""
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)
