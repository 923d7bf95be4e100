"""When something is looked at again: soon, or after a while."""

from __future__ import annotations

import asyncio
from typing import Callable, Optional


class Wakeup:
    """Calls ``function`` on the loop, once for all who have asked for that meanwhile."""

    def __init__(self, function: Callable[[], None]) -> None:
        self._loop = asyncio.get_event_loop()
        self._function = function
        self._is_due = False
        self._timer: Optional[asyncio.TimerHandle] = None

    def soon(self) -> None:
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._call)

    def after(self, seconds: float) -> None:
        """Not later, if it was to be called sooner already."""
        if self._timer is not None and self._timer.when() <= self._loop.time() + seconds:
            return
        self.cancel()
        self._timer = self._loop.call_later(seconds, self._call_now)

    def cancel(self) -> None:
        """Do not call it after a while."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _call_now(self) -> None:
        self._timer = None
        self.soon()

    def _call(self) -> None:
        self._is_due = False
        self._function()
