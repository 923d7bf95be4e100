"""FluxJobTrigger: waits for one job in the triggerer, with its output into the task's log."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_flux.minicluster import DEFAULT_CONNECTION
from airflow_provider_flux.output import STREAMS, OutputLog
from airflow_provider_flux.triggers.watch import Watch, watching

if TYPE_CHECKING:
    from executors import JobResult, Session

#: Seconds of trying to reach the instance before its jobs are given up as UNKNOWN.
_REACH_LIMIT = 120.0
#: Seconds for a cancelled job to end.
_CANCEL_LIMIT = 30.0
#: Seconds between two marks of how far the output was logged.
_MARK_INTERVAL = 1.0
#: Lines that are logged in one turn of the loop: other triggers are waiting.
_LINES = 50


class FluxJobTrigger(BaseTrigger):
    """Waits for a job of a run's instance. All triggers of a process share one stream per instance.

    Yields one event: {"job_id", "result" (see `executors.JobResult`), "result_line" ([text, bytes] or None), "tail",
    "timed_out", "links"}.

    :param run_name: of the instance. :param options: by which it is found (`hook.joinable`).
    :param attempt: number of the try, whose log the output goes to.
    :param deadline: seconds since the epoch; then the job is cancelled.
    :param limit, marker: see `OutputLog`.
    :param want_result: whether the task needs stdout even if it is not logged.
    :param cancel_on_kill: whether the job is this task's own. :param links: for the task that goes on.
    """

    def __init__(
        self,
        *,
        run_name: str,
        options: Mapping[str, Any],
        job_id: str,
        flux_conn_id: str = DEFAULT_CONNECTION,
        attempt: int = 1,
        deadline: float | None = None,
        get_logs: bool = True,
        limit: int = 65536,
        marker: str = "",
        want_result: bool = True,
        cancel_on_kill: bool = True,
        links: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.run_name = run_name
        self.options = dict(options)
        self.job_id = job_id
        self.flux_conn_id = flux_conn_id
        self.attempt = attempt
        self.deadline = deadline
        self.get_logs = get_logs
        self.limit = limit
        self.marker = marker
        self.want_result = want_result
        self.cancel_on_kill = cancel_on_kill
        self.links = dict(links or {})

    def serialize(self) -> tuple[str, dict[str, Any]]:
        names = (
            "run_name", "options", "job_id", "flux_conn_id", "attempt", "deadline", "get_logs", "limit", "marker",
            "want_result", "cancel_on_kill", "links",
        )  # fmt: skip
        return (f"{type(self).__module__}.{type(self).__qualname__}", {name: getattr(self, name) for name in names})

    async def run(self) -> AsyncIterator[TriggerEvent]:
        from executors import ExecutorsError, JobResult, Outcome

        timed_out = False
        output = OutputLog(self.limit, self.marker)
        try:
            async with await self._reach() as watch:
                job = watch.job(self.job_id)
                ended = job.result
                try:
                    output = OutputLog(self.limit, self.marker, self._place(await job.place))
                    follower = asyncio.ensure_future(self._log_output(watch, output))
                    try:
                        timed_out = not await self._wait(ended)
                        if timed_out:
                            watch.session.cancel(watch.session.attach([self.job_id]), "over its execution_timeout")
                            await asyncio.wait([ended], timeout=_CANCEL_LIMIT)
                        result = await ended if ended.done() or not timed_out else _unknown("it does not end")
                        await follower
                    finally:
                        follower.cancel()
                        with contextlib.suppress(asyncio.CancelledError):
                            await follower
                finally:
                    ended.cancel()
        except ExecutorsError as err:
            result = JobResult.without_run(Outcome.UNKNOWN, "lost", str(err))
        line = output.result
        yield TriggerEvent(
            {
                "job_id": self.job_id,
                "result": {**asdict(result), "outcome": str(result.outcome)},
                "result_line": None if line is None else [line.text, line.length],
                "tail": output.tail,
                "timed_out": timed_out,
                "links": self.links,
            }
        )

    async def on_kill(self) -> None:
        """A user has acted on the task: cancel its job, and wait a little for its end."""
        if not self.cancel_on_kill:
            return
        from executors import ExecutorsError

        try:
            async with await self._reach() as watch:
                watch.session.cancel(watch.session.attach([self.job_id]), "the Airflow task was killed")
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(watch.job(self.job_id).result, _CANCEL_LIMIT / 2)
        except ExecutorsError as err:
            self.log.info("job %s cannot be cancelled: %s", self.job_id, err)  # deleted, most often

    # -- small parts

    async def _reach(self) -> contextlib.AbstractAsyncContextManager[Watch]:
        """The shared stream. Waits for an instance that does not answer now; raises ExecutorsError after a while."""
        from executors import TransportError

        deadline = time.monotonic() + _REACH_LIMIT
        delay = 0.5
        while True:
            watch = watching(self.run_name, self._open)
            try:
                return _Entered(watch, await watch.__aenter__())
            except TransportError:
                if time.monotonic() > deadline:
                    raise
            await asyncio.sleep(delay)
            delay = min(2 * delay, 10.0)

    async def _open(self) -> Session:
        """Called for the first trigger of an instance only."""
        try:
            connection = await _connection(self.flux_conn_id)
        except AirflowNotFoundException:
            if self.flux_conn_id != DEFAULT_CONNECTION:
                raise
            connection = None
        return await asyncio.to_thread(self._join, connection)

    def _join(self, connection: Any) -> Session:
        from airflow_provider_flux.hook import FluxHook, connection_settings, join_config
        from executors import join_session

        config = join_config(self.options, connection_settings(self.flux_conn_id, connection))
        return join_session(self.run_name, config, environ=FluxHook(self.flux_conn_id).environment())

    async def _wait(self, ended: asyncio.Future[JobResult]) -> bool:
        """Whether the job has ended before the deadline."""
        left = None if self.deadline is None else max(0.0, self.deadline - time.time())
        done, _ = await asyncio.wait([ended], timeout=left)
        return bool(done)

    def _place(self, kept: str | None) -> str | None:
        """From where an earlier triggerer of this try has left off."""
        attempt, _, place = (kept or "").partition(":")
        return place if place and attempt == str(self.attempt) else None

    async def _log_output(self, watch: Watch, output: OutputLog) -> None:
        pieces: asyncio.Queue[tuple[str, bytes | BaseException | None]] = asyncio.Queue()
        streams: Sequence[str] = STREAMS if self.get_logs else STREAMS[:1] if self.want_result else ()

        def put(stream: str, piece: bytes | BaseException | None) -> None:
            pieces.put_nowait((stream, piece))

        stops = [watch.follow(self.job_id, name, output.offset(name), partial(put, name)) for name in streams]
        open_streams = len(stops)
        marker = _Marker(partial(self._mark, watch, output))
        try:
            while open_streams:
                stream, piece = await pieces.get()
                if isinstance(piece, bytes):
                    await self._log_lines(output.feed(stream, piece))
                    marker.due()
                    continue
                open_streams -= 1
                if piece is not None:
                    self.log.warning("the rest of %s is not to be had: %s", stream, piece)
            await self._log_lines(output.end())
        finally:
            for stop in stops:
                stop()
            marker.finish()

    def _mark(self, watch: Watch, output: OutputLog) -> None:
        if watch.session.lost is None:
            watch.session.mark(self.job_id, f"{self.attempt}:{output.place}")

    async def _log_lines(self, lines: Sequence[str]) -> None:
        if not self.get_logs:
            return
        for index, line in enumerate(lines):
            self.log.info("%s", line)
            if index % _LINES == _LINES - 1:
                await asyncio.sleep(0)


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


class _Entered(contextlib.AbstractAsyncContextManager[Watch]):
    """A context manager that was entered already."""

    def __init__(self, manager: contextlib.AbstractAsyncContextManager[Watch], value: Watch) -> None:
        self._manager = manager
        self._value = value

    async def __aenter__(self) -> Watch:
        return self._value

    async def __aexit__(self, *exc: Any) -> None:
        await self._manager.__aexit__(*exc)


async def _connection(conn_id: str) -> Any:
    """A connection, where Airflow has a way that does not block; else by a thread (Airflow 2)."""
    asking = getattr(BaseHook, "aget_connection", None)
    if asking is not None:
        return await asking(conn_id)
    return await asyncio.to_thread(BaseHook.get_connection, conn_id)


def _unknown(why: str) -> JobResult:
    from executors import JobResult, Outcome

    return JobResult.without_run(Outcome.UNKNOWN, "cancel", why)
