"""Waiting for a condition, the one way in which the bed waits."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class NotReached(Exception):
    """A condition that did not come true in its time, or cannot any more."""


def wait_until(what: str, condition: Callable[[], T], limit: float) -> T:
    """The first true value of ``condition``. Raises NotReached after ``limit`` seconds."""
    deadline = time.monotonic() + limit
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise NotReached(f"{what}: not within {limit:g} s")
        # What is waited for happens in other processes, which tell nobody: ask again soon.
        time.sleep(0.03)
    return value
