"""Waiting for a condition, never for a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")


def until(condition: Callable[[], Found | None], limit: float, story: Callable[[], str], pause: float = 0.1) -> Found:
    """The condition's first true value. The limit (seconds) is for what never comes; the story tells how it stood."""
    deadline = time.monotonic() + limit
    while True:
        if found := condition():
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {limit:g} s: {story()}")
        time.sleep(pause)
