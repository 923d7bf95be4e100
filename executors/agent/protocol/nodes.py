"""The nodes of the instance, as clients ask for them."""

from __future__ import annotations

import asyncio
from typing import List, Optional

from .. import wire
from ..engine import Engine, EngineError, Entry
from . import fields

#: Events after which a rank may have fewer jobs.
_FREEING = ("free", "clean")


class Nodes:
    """``attached``: the instance was created by somebody else, and is never drained."""

    def __init__(self, engine: Engine, attached: bool) -> None:
        self._engine = engine
        self._attached = attached
        self._job_ended: Optional[asyncio.Future[None]] = None

    def saw(self, entries: List[Entry]) -> None:
        """What the engine has reported: `vacate` waits for ends of jobs."""
        ended = self._job_ended
        if ended is not None and not ended.done() and any(name in _FREEING for _, name, _, _ in entries):
            ended.set_result(None)

    async def resources(self) -> wire.Resources:
        return await self._engine.resources()

    async def drain(self, request: wire.Message) -> None:
        if self._attached:
            raise EngineError(
                "this instance was not created by this program, so this program never drains it", "not-possible"
            )
        reason = str(request.get("reason") or "drained")
        await self._engine.drain(fields.string(request, "ranks"), reason, bool(request.get("undo", False)))

    async def vacate(self, request: wire.Message) -> List[int]:
        """Drain ranks, and wait for their jobs to end, ``seconds`` at most; which ranks are busy still."""
        loop = asyncio.get_event_loop()
        ranks = fields.string(request, "ranks")
        deadline = loop.time() + fields.integer(request, "seconds", 0, 1 << 31, 0)
        await self.drain(request)
        first, _, last = ranks.partition("-")
        wanted = range(int(first), int(last or first) + 1)
        while True:
            nodes = (await self._engine.resources())["nodes"]
            busy = [node["rank"] for node in nodes if node.get("busy") and node["rank"] in wanted]
            left = deadline - loop.time()
            if not busy or left <= 0:
                return busy
            if self._job_ended is None or self._job_ended.done():
                self._job_ended = loop.create_future()
            # The scheduler hears of a job's end a moment after the journal tells it; nothing says when.
            await asyncio.wait([self._job_ended], timeout=min(left, 1.0))
