"""FluxJobTrigger: waits for one job in the triggerer, with its output into the task's log."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import conf
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_flux.cluster_reference import DEFAULT_CONNECTION
from airflow_provider_flux.masking import Masker
from airflow_provider_flux.output import STREAMS, OutputLog
from airflow_provider_flux.sealing import Kept, unseal
from airflow_provider_flux.triggers.reading import LogForwarder
from airflow_provider_flux.triggers.watch import SessionWatch, watching

if TYPE_CHECKING:
    from executors import JobResult, Session

#: Seconds of trying to reach the instance before its jobs are given up as UNKNOWN.
_REACH_LIMIT = 120.0
#: Seconds for the instance to say that a job has ended already.
_FIRST_WORD = 1.0
#: Seconds for a cancelled job to end.
_CANCEL_LIMIT = 30.0
#: Seconds for the last lines of an ended job.
_READ_GRACE = 2.0
#: Seconds for Airflow's scheduler to hear that the worker of a deferred task has ended, once the worker has noticed it.
_SCHEDULER_GRACE = 2.0


class FluxJobTrigger(BaseTrigger):
    """Waits for a job of a run's instance. All triggers of a process share one stream per instance.

    Yields one event, `shortest_deferral` after its start at the earliest:
    {"job_id", "run_name", "options", "flux_conn_id", "links" (as given), "result" (see `executors.JobResult`),
    "timed_out", "read" (whether all output that is wanted was read and logged), "place" (how far it was),
    "result_line" ([text, bytes, masked] or None) and "tail", which are complete if all was read, "sealed" (as given)}.
    It is stored in Airflow's database: nothing of it is secret.

    :param run_name: of the instance. :param options: by which it is found (`hook.reconnect_options`).
    :param attempt: number of the try, whose log the output goes to.
    :param deadline: seconds since the epoch; then the job is cancelled.
    :param limit, marker: see `OutputLog`.
    :param want_result: whether the task needs stdout even if it is not logged.
    :param cancel_on_kill: whether the job is this task's own. :param links: for the task that goes on.
    :param sealed: values to mask, see `sealing`. Without their key all output is left to the task that goes on.
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
        sealed: str = "",
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
        self.sealed = sealed
        self._key = ""
        #: Tells this trigger from another one of the same task, in another triggerer.
        self._reader = os.urandom(6).hex()

    def serialize(self) -> tuple[str, dict[str, Any]]:
        names = (
            "run_name", "options", "job_id", "flux_conn_id", "attempt", "deadline", "get_logs", "limit", "marker",
            "want_result", "cancel_on_kill", "links", "sealed",
        )  # fmt: skip
        return (f"{type(self).__module__}.{type(self).__qualname__}", {name: getattr(self, name) for name in names})

    async def run(self) -> AsyncIterator[TriggerEvent]:
        from executors import ExecutorsError, JobResult, Outcome, Reason

        timed_out, read = False, True
        earliest = time.monotonic() + shortest_deferral()
        output = OutputLog(self.limit, self.marker)
        try:
            async with contextlib.AsyncExitStack() as stack:
                watch = await self._reach(stack)
                job = watch.job(self.job_id)
                kept = Kept.parse(await job.place)
                self._key = kept.key if kept is not None else ""
                self._save(watch, self._place(kept) or "")
                # In a thread: the first one imports cryptography.
                masker = await asyncio.to_thread(self._masker) if self.sealed else Masker()
                output = OutputLog(self.limit, self.marker, self._place(kept), masker)
                reading = asyncio.ensure_future(self._read(watch, output, known=masker is not None))
                try:
                    timed_out = not await self._wait(job.result)
                    if timed_out:
                        watch.session.cancel(watch.session.attach([self.job_id]), "over its execution_timeout")
                        await asyncio.wait([job.result], timeout=_CANCEL_LIMIT)
                        timed_out = not (job.result.done() and job.result.result().ok)
                    result = (
                        job.result.result() if job.result.done() else _unknown("it was cancelled, but does not end")
                    )
                    # The last lines come with the end. Who is further behind leaves them to the worker.
                    await asyncio.wait([reading], timeout=_READ_GRACE)
                    read = reading.done() and reading.result()
                finally:
                    reading.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await reading
                    job.result.cancel()
        except ExecutorsError as err:
            result = JobResult.without_run(Outcome.UNKNOWN, Reason.AGENT_LOST, str(err))
        line = output.result
        await asyncio.sleep(max(0.0, earliest - time.monotonic()))
        yield TriggerEvent(
            {
                "job_id": self.job_id,
                "run_name": self.run_name,
                "options": self.options,
                "flux_conn_id": self.flux_conn_id,
                "links": self.links,
                "result": {**asdict(result), "outcome": str(result.outcome)},
                "timed_out": timed_out,
                "read": read,
                "place": output.place,
                "result_line": None if line is None else [line.text, line.length, line.masked],
                "tail": output.tail,
                "sealed": self.sealed,
            }
        )

    async def on_kill(self) -> None:
        """A user has acted on the task: cancel its job, and wait a little for its end.

        Airflow (3.3) calls it also in a triggerer that was away for so long that another one has its triggers by now;
        then the job is that one's.
        """
        if not self.cancel_on_kill:
            return
        from executors import ExecutorsError

        try:
            async with contextlib.AsyncExitStack() as stack:
                watch = await self._reach(stack)
                job = watch.job(self.job_id)
                kept = Kept.parse(await job.place)
                if kept is not None and kept.reader not in ("", self._reader):
                    self.log.info("job %s is not cancelled: another triggerer waits for it by now", self.job_id)
                    job.result.cancel()
                    return
                watch.session.cancel(watch.session.attach([self.job_id]), "the Airflow task was killed")
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(job.result, _CANCEL_LIMIT / 2)
        except ExecutorsError as err:
            self.log.info("job %s cannot be cancelled: %s", self.job_id, err)  # deleted, most often

    # -- small parts

    async def _reach(self, stack: contextlib.AsyncExitStack) -> SessionWatch:
        """The shared stream, until ``stack`` is left.

        Waits for an instance that does not answer now; raises ExecutorsError after a while.
        """
        from executors import ExecutorsError

        deadline = time.monotonic() + _REACH_LIMIT
        delay = 0.5
        while True:
            try:
                return await stack.enter_async_context(watching(self.run_name, self._open))
            except ExecutorsError as err:
                if not err.transient or time.monotonic() > deadline:
                    raise
            await asyncio.sleep(delay)
            delay = min(2 * delay, 10.0)

    async def _open(self) -> Session:
        """Called for the first trigger of an instance only."""
        from airflow_provider_flux.hooks.flux import FluxHook

        hook = FluxHook(self.flux_conn_id)
        await hook.load()
        return await asyncio.to_thread(hook.join_session, self.run_name, self.options, self.log.debug)

    async def _wait(self, ended: asyncio.Future[JobResult]) -> bool:
        """Whether the job has ended before the deadline."""
        # A triggerer that comes back late hears first how the job has ended.
        left = None if self.deadline is None else max(_FIRST_WORD, self.deadline - time.time())
        done, _ = await asyncio.wait([ended], timeout=left)
        return bool(done)

    def _masker(self) -> Masker | None:
        """None where it is not known what to mask."""
        values = unseal(self.sealed, self._key)
        return None if values is None else Masker(values)

    def _place(self, kept: Kept | None) -> str | None:
        """From where an earlier triggerer of this try has left off."""
        return kept.place or None if kept is not None and kept.attempt == self.attempt else None

    async def _read(self, watch: SessionWatch, output: OutputLog, known: bool) -> bool:
        """Whether all that is wanted was read. ``known``: what is to be masked."""
        streams = STREAMS if self.get_logs else STREAMS[:1] if self.want_result else ()
        if streams and not known:
            self.log.info(
                "the values of secret_env are not available here, so the output is logged when the job has ended"
            )
            return False
        log = partial(self.log.info, "%s") if self.get_logs else None
        reader = LogForwarder(watch, self.job_id, output, streams, log)
        return await reader.read(partial(self._mark, watch, output), self.log.warning)

    def _mark(self, watch: SessionWatch, output: OutputLog) -> None:
        self._save(watch, output.place)

    def _save(self, watch: SessionWatch, place: str) -> None:
        if watch.session.lost is None:
            watch.session.save_bookmark(self.job_id, str(Kept(self.attempt, place, self._key, self._reader)))


def shortest_deferral() -> float:
    """Seconds for which a task is deferred at least.

    Airflow 3.3 fails a task that goes on before the scheduler knows that its deferring worker has ended ("finished with
    state success, but the task instance's state attribute is running", SchedulerJobRunner.process_executor_events). The
    worker's supervisor may notice that end a whole heartbeat late (ActivitySubprocess._monitor_subprocess).
    """
    return conf.getint("workers", "min_heartbeat_interval", fallback=5) + _SCHEDULER_GRACE


def _unknown(why: str) -> JobResult:
    from executors import JobResult, Outcome, Reason

    return JobResult.without_run(Outcome.UNKNOWN, Reason.CANCELLED, why)
