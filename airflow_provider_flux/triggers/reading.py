"""A job's output into the log of a deferred task, at a pace that the triggerer can bear.

Airflow's triggerer writes log lines to its supervisor through a socket. It is emptied at some 60 KB/s, and all triggers
of the process stand still while it is full. So what is logged live is bounded, for all triggers together; a reader
that is behind when the job ends leaves the rest to the worker that goes on (`OutputLog.place`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from airflow_provider_flux.output import OutputLog

if TYPE_CHECKING:
    from airflow_provider_flux.triggers.watch import SessionWatch

#: Bytes per second that all triggers of a process log, and what they may log at once before that.
_RATE = 32 * 1024
_BURST = 64 * 1024
#: What a line costs beyond its own length.
_LINE = 200
#: Bytes that may wait in memory for their turn. More is read again when it is due.
_AHEAD = 512 * 1024
#: Seconds between two marks of how far the output was logged.
_MARK_INTERVAL = 1.0


class RateLimit:
    """Bytes that may be logged; they come back with time."""

    def __init__(self, rate: float = _RATE, burst: float = _BURST, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._left = burst
        self._at = clock()

    def wait(self, count: int) -> float:
        """Reserve ``count`` bytes. Returns the seconds to wait before writing them."""
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        self._left -= count
        return max(0.0, -self._left / self._rate)


_budget = RateLimit()


class LogForwarder:
    """Reads the streams of one job to their end. ``log`` is called for each line; None: nothing is logged."""

    def __init__(
        self,
        watch: SessionWatch,
        job_id: str,
        output: OutputLog,
        streams: Sequence[str],
        log: Callable[[str], None] | None,
    ) -> None:
        self._watch = watch
        self._job_id = job_id
        self._output = output
        self._streams = streams
        self._log = log
        self._pieces: asyncio.Queue[tuple[str, bytes | BaseException | None]] = asyncio.Queue()
        self._ahead = dict.fromkeys(streams, 0)
        self._stops: dict[str, Callable[[], None]] = {}
        #: Tells pieces of a subscription from those of the one before it.
        self._turn = dict.fromkeys(streams, 0)

    async def read(self, mark: Callable[[], None], problem: Callable[[str], None]) -> bool:
        """Whether all was read. ``mark`` is called when a place should be kept, ``problem`` is told what is missing."""
        marker = _Marker(mark)
        whole = True
        open_streams = set(self._streams)
        for stream in self._streams:
            self._subscribe(stream)
        try:
            while open_streams:
                stream, piece = await self._pieces.get()
                if isinstance(piece, bytes):
                    await self._take(stream, piece)
                    marker.due()
                    continue
                open_streams.discard(stream)
                if piece is not None:
                    whole = False
                    problem(f"could not read the rest of {stream} here: {piece}")
            if whole:  # else a line that is cut off would be told as a whole one
                for line in self._output.end():
                    self._show(line)
        finally:
            for stop in self._stops.values():
                stop()
            marker.finish()
        return whole

    async def _take(self, stream: str, piece: bytes) -> None:
        for part in piece.splitlines(keepends=True) if self._log is not None else [piece]:
            # Before the line counts as logged: a reader that is cancelled here leaves it to the next reader.
            delay = _budget.wait(len(part) + _LINE) if self._log is not None else 0.0
            if delay > 0:
                await asyncio.sleep(delay)
            for line in self._output.feed(stream, part):
                self._show(line)
        self._ahead[stream] -= len(piece)
        if stream not in self._stops and not self._ahead[stream]:
            self._subscribe(stream)
        await asyncio.sleep(0)

    def _show(self, line: str) -> None:
        if self._log is not None:
            self._log(line)

    def _subscribe(self, stream: str) -> None:
        self._turn[stream] += 1
        sink = partial(self._put, stream, self._turn[stream])
        self._stops[stream] = self._watch.follow(self._job_id, stream, self._output.offset(stream), sink)

    def _put(self, stream: str, turn: int, piece: bytes | BaseException | None) -> None:
        if turn != self._turn[stream] or stream not in self._stops:
            return
        if isinstance(piece, bytes):
            self._ahead[stream] += len(piece)
            if self._ahead[stream] > _AHEAD:
                self._ahead[stream] -= len(piece)
                self._stops.pop(stream)()
                return
        self._pieces.put_nowait((stream, piece))


class _Marker:
    """Marks how far the output was logged: at once, and then once in `_MARK_INTERVAL` as long as there is more."""

    def __init__(self, mark: Callable[[], None]) -> None:
        self._write = mark
        self._last = -_MARK_INTERVAL
        self._timer: asyncio.TimerHandle | None = None

    def due(self) -> None:
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(max(loop.time(), self._last + _MARK_INTERVAL), self._mark)

    def finish(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._mark()

    def _mark(self) -> None:
        self._timer = None
        self._last = asyncio.get_running_loop().time()
        self._write()
