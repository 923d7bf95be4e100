"""What the server is told of the tasks of pilots and of Flux's own jobs: in batches, in the order in which it came."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Callable, Dict, List, Optional

from ..engine import Emit, Entry, RecoveredJob
from .task import Task


class Reports:
    """Call `begin` before any other method."""

    def __init__(self) -> None:
        self._loop = asyncio.get_event_loop()
        self._emit: Optional[Emit] = None
        self._recovered: Optional[Callable[[RecoveredJob], None]] = None
        self._out: List[Entry] = []

    def begin(self, emit: Emit, recovered: Callable[[RecoveredJob], None]) -> None:
        """See `Engine.start`."""
        self._emit, self._recovered = emit, recovered

    def exists(self, task: Task) -> None:
        """There is this task; what is put of it comes later."""
        assert self._recovered is not None
        self._recovered(RecoveredJob(task.id, task.key, task.digest, task.name))

    def tell(self, task: Task, name: str, context: Dict[str, Any]) -> None:
        """An event that happens now."""
        self.put((task.id, name, time.time(), context))

    def put(self, entry: Entry) -> None:
        self._out.append(entry)
        if len(self._out) == 1:
            self._loop.call_soon(self.flush)

    def pass_on(self, entries: List[Entry]) -> None:
        """Flux's own, after what has been put here."""
        self.flush()
        assert self._emit is not None
        self._emit(entries)

    def flush(self) -> None:
        """Tell now what has been put."""
        entries, self._out = self._out, []
        if entries and self._emit is not None:
            self._emit(entries)
