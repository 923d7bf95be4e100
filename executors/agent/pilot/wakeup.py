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
        """Not when it was to be called after a while before."""
        self.cancel()
        self._timer = self._loop.call_later(seconds, self.soon)

    def cancel(self) -> None:
        """Do not call it after a while."""
        if self._timer is not None:
            self._timer.cancel()

    def _call(self) -> None:
        self._is_due = False
        self._function()
