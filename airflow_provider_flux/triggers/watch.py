"""One session per instance for all triggers of a process, however many jobs they wait for.

The core is synchronous: what waits (opening, closing) runs in threads, what the session reports comes into the loop by
``call_soon_threadsafe``. Nothing here blocks the loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from executors import JobHandle, JobInfo, JobResult, Session

#: Seconds for which a session is kept that nobody waits for: the next task of the run often comes soon.
_LINGER = 10.0
#: Triggers that begin to read their job's output in one turn of the loop; each takes a good tenth of a millisecond.
_AT_ONCE = 20
#: Jobs that are asked for by one request.
_TOGETHER = 100


@dataclass(frozen=True)
class Watched:
    """A job that a trigger waits for."""

    result: asyncio.Future[JobResult]
    #: How far its output was read before (`Session.save_bookmark`).
    place: asyncio.Future[str | None]


class SessionWatch:
    """A session in use by triggers of one loop."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._loop = asyncio.get_running_loop()
        self._asked: list[tuple[str, Watched]] = []

    def job(self, job_id: str) -> Watched:
        """Begin to wait for a job. Jobs that are asked for in one turn of the loop share requests."""
        watched = Watched(self._loop.create_future(), self._loop.create_future())
        self._asked.append((job_id, watched))
        if len(self._asked) == 1:
            self._loop.call_soon(self._attach)
        return watched

    def _attach(self) -> None:
        from executors import SessionClosedError

        asked, self._asked = self._asked[:_TOGETHER], self._asked[_TOGETHER:]
        if self._asked:
            self._loop.call_soon(self._attach)
        ids = [job_id for job_id, _ in asked]
        try:
            handles = self.session.attach(ids)
        except SessionClosedError as err:
            for _, watched in asked:
                _settle(watched.result, err)
                _settle(watched.place, None)
            return
        for handle, (_, watched) in zip(handles, asked, strict=True):
            handle.add_done_callback(self._tell(watched.result))

        def looked_up(reply: Future[list[JobInfo]]) -> None:
            # Without an answer the session is lost, which the results tell.
            places = {} if reply.exception() is not None else {job.id: job.bookmark for job in reply.result()}
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._place_all, asked, places)

        self.session.jobs_later(ids=ids).add_done_callback(looked_up)

    def _place_all(self, asked: list[tuple[str, Watched]], places: dict[str, str | None]) -> None:
        """A few in each turn of the loop: those that have their place go on at once, and others are waiting too."""
        for job_id, watched in asked[:_AT_ONCE]:
            _settle(watched.place, places.get(job_id))
        if len(asked) > _AT_ONCE:
            self._loop.call_soon(self._place_all, asked[_AT_ONCE:], places)

    def _tell(self, future: asyncio.Future[JobResult]) -> Callable[[JobHandle], None]:
        def ended(handle: JobHandle) -> None:
            result = handle.result()
            # The loop may have been closed with its process's triggers.
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(_settle, future, result)

        return ended

    def follow(
        self, job_id: str, stream: str, offset: int, sink: Callable[[bytes | BaseException | None], None]
    ) -> Callable[[], None]:
        """`Session.follow`, with ``sink`` called on the loop."""

        def forward(piece: bytes | BaseException | None) -> None:
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(sink, piece)

        return self.session.follow(job_id, stream, offset, forward).stop


class _SharedSession:
    """The session of one instance, and who uses it."""

    def __init__(self) -> None:
        self.users = 0
        #: Belongs to none of the users: one that is cancelled while it waits takes nothing from the others.
        self.opening: asyncio.Task[SessionWatch] | None = None
        self.closing: asyncio.TimerHandle | None = None


_shared: dict[tuple[int, str], _SharedSession] = {}


@asynccontextmanager
async def watching(name: str, opener: Callable[[], Awaitable[Session]]) -> AsyncIterator[SessionWatch]:
    """The shared watch of the instance ``name``; ``opener`` is awaited where there is none yet, or where the one that
    was there is lost. Raises what ``opener`` does.
    """
    loop = asyncio.get_running_loop()
    key = (id(loop), name)
    shared = _shared.setdefault(key, _SharedSession())
    shared.users += 1
    try:
        if shared.closing is not None:
            shared.closing.cancel()
            shared.closing = None
        if shared.opening is None or _is_lost(shared.opening):
            _discard(shared.opening)
            shared.opening = asyncio.ensure_future(_open(opener))
        yield await asyncio.shield(shared.opening)
    finally:
        shared.users -= 1
        if not shared.users and shared.closing is None:
            shared.closing = loop.call_later(_LINGER, _close, key)


async def _open(opener: Callable[[], Awaitable[Session]]) -> SessionWatch:
    return SessionWatch(await opener())


def _is_lost(opening: asyncio.Task[SessionWatch]) -> bool:
    if not opening.done():
        return False
    return opening.cancelled() or opening.exception() is not None or opening.result().session.lost is not None


def _close(key: tuple[int, str]) -> None:
    shared = _shared[key]
    if not shared.users:
        del _shared[key]
        _discard(shared.opening)


def _discard(opening: asyncio.Task[SessionWatch] | None) -> None:
    """Close a session that nobody uses any more, as soon as it is open."""

    def opened(done: asyncio.Task[SessionWatch]) -> None:
        if not done.cancelled() and done.exception() is None:
            session = done.result().session
            asyncio.get_running_loop().run_in_executor(None, session.leave)

    if opening is not None:
        opening.add_done_callback(opened)


def _settle(future: asyncio.Future[Any], value: Any) -> None:
    if future.done():
        return
    if isinstance(value, Exception):
        future.set_exception(value)
    else:
        future.set_result(value)
