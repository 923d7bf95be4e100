"""Telling Snakemake of its jobs, each the moment that something is known of it.

The session's dispatcher only queues here; one thread tells Snakemake, since Snakemake may hold its lock while it
postprocesses other jobs. Where files are not shared, a few *savers* bring the logs of ended jobs before that.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo

from executors import ExecutorsError, JobHandle, JobResult, Outcome
from snakemake_executor_flux import logs
from snakemake_executor_flux.benchmark import write_benchmark
from snakemake_executor_flux.efficiency import Asked, Efficiency
from snakemake_executor_flux.leftovers import remove_scratch
from snakemake_executor_flux.steps.base import StepCommand

#: Logs that are fetched at once, where files are not shared.
_SAVERS = 4


@dataclass
class Submitted:
    """A job on its way, from its preparation to its report."""

    job: Any
    info: SubmittedJobInfo
    log: Path
    asked: Asked
    command: StepCommand


class Snakemake(Protocol):
    """What reports go to: the executor, by its base class."""

    workflow: Any
    logger: Any

    def report_submitted(self, info: SubmittedJobInfo) -> None: ...

    def report_job_success(self, job_info: SubmittedJobInfo) -> None: ...

    def report_job_error(self, job_info: SubmittedJobInfo, msg: str | None = None, **kwargs: Any) -> None: ...


@dataclass(frozen=True)
class _Refused:
    """It could not be submitted."""

    job: Any
    reason: str


@dataclass(frozen=True)
class _Accepted:
    """The instance has it."""

    handle: JobHandle


@dataclass(frozen=True)
class _Ended:
    handle: JobHandle


@dataclass(frozen=True)
class _Saved:
    """It has ended, and its log is here."""

    handle: JobHandle


class Reporter:
    """Thread-safe, but `finish`, which comes last."""

    def __init__(
        self,
        snakemake: Snakemake,
        efficiency: Efficiency,
        external_id: Callable[[JobHandle], str],
        *,
        files_shared: bool,
    ) -> None:
        self._snakemake = snakemake
        self._efficiency = efficiency
        self._external_id = external_id
        self._files_shared = files_shared
        #: Whether a job has failed.
        self.failed = False
        #: Whether it was told that records are missing.
        self._warned = False
        self._inbox: queue.SimpleQueue[_Refused | _Accepted | _Ended | _Saved | None] = queue.SimpleQueue()
        self._active: dict[JobHandle, Submitted] = {}
        self._lock = threading.Lock()
        self._savers = ThreadPoolExecutor(_SAVERS, "flux-operator-logs")
        self._thread = threading.Thread(target=self._report_forever, name="flux-operator-reporter", daemon=True)
        self._thread.start()

    def refuse(self, job: Any, reason: str) -> None:
        """A job that cannot be submitted."""
        self._inbox.put(_Refused(job, reason))

    def follow(self, submitted: list[Submitted], handles: list[JobHandle]) -> None:
        """Jobs that were submitted."""
        with self._lock:
            self._active.update(zip(handles, submitted, strict=True))
        for handle in handles:
            handle.add_submit_callback(lambda handle: self._inbox.put(_Accepted(handle)))
            handle.add_done_callback(lambda handle: self._inbox.put(_Ended(handle)))

    def active(self) -> list[JobHandle]:
        """Jobs whose end was not reported yet."""
        with self._lock:
            return list(self._active)

    def finish(self) -> None:
        """Report what there is, and end."""
        self._inbox.put(None)
        self._thread.join()

    # -- on the thread

    def _report_forever(self) -> None:
        while (message := self._inbox.get()) is not None:
            self._report(message)
        self._savers.shutdown()
        while not self._inbox.empty():
            message = self._inbox.get()
            if isinstance(message, _Saved):
                self._report(message)

    def _report(self, message: _Refused | _Accepted | _Ended | _Saved) -> None:
        try:
            match message:
                case _Refused(job, reason):
                    self._report_refusal(job, reason)
                case _Accepted(handle):
                    self._report_submission(handle)
                case _Ended(handle) if not self._files_shared:
                    # Not here: the others' reports would wait for a long log.
                    self._savers.submit(self._save_log, handle)
                case _Ended(handle) | _Saved(handle):
                    self._report_end(handle)
        except Exception as err:  # Snakemake must hear of a defect here, or it would wait for ever
            self._snakemake.logger.error(f"flux-operator: reporting failed: {err!r}")
            self._snakemake.workflow.scheduler.executor_error_callback(err)

    def _report_refusal(self, job: Any, reason: str) -> None:
        self.failed = True
        self._snakemake.report_job_error(SubmittedJobInfo(job), msg=f"The job could not be submitted: {reason}")

    def _report_submission(self, handle: JobHandle) -> None:
        with self._lock:
            submitted = self._active.get(handle)
        if submitted is None:
            return
        submitted.info.external_jobid = self._external_id(handle)
        self._snakemake.report_submitted(submitted.info)

    def _report_end(self, handle: JobHandle) -> None:
        with self._lock:
            submitted = self._active.pop(handle, None)
        if submitted is None:
            return
        problem = self._finish_job(submitted, handle, handle.result(0))
        if problem is None:
            self._snakemake.report_job_success(submitted.info)
        else:
            self.failed = True
            self._snakemake.report_job_error(
                submitted.info, msg=problem, aux_logs=[str(submitted.log)] if submitted.log.exists() else []
            )
        handle.acknowledge()

    def _finish_job(self, submitted: Submitted, handle: JobHandle, result: JobResult) -> str | None:
        """Finish what belongs to a job. Returns what to tell the user if it failed."""
        problem = None if result.ok else _message(result, submitted.log)
        if result.ok and submitted.command.benchmark_record is not None:
            try:
                write_benchmark(submitted.job, self._snakemake.workflow, submitted.command.benchmark_record)
            except OSError as err:
                problem = f"The job completed, but its benchmark cannot be written: {err}"
        try:
            remove_scratch(submitted.command.scratch)
            self._efficiency.add(submitted.asked, handle.id, result)
        except OSError as err:  # what a job has made is no worse for it
            if not self._warned:
                self._warned = True
                self._snakemake.logger.warning(
                    f"flux-operator: {self._efficiency.path} is not complete, since it cannot be written: {err}; make "
                    "room, or choose another directory by --flux-operator-logdir"
                )
        logs.remove_if_empty(submitted.log)
        return problem

    # -- on a saver

    def _save_log(self, handle: JobHandle) -> None:
        """Bring the log of an ended job here, then let its end be reported."""
        with self._lock:
            log = self._active[handle].log  # nobody else reports its end, so it is there
        try:
            logs.save(log, handle)
        except (OSError, ExecutorsError) as err:
            self._snakemake.logger.warning(f"flux-operator: {log}: the log is not complete: {err}")
        finally:
            self._inbox.put(_Saved(handle))


def _message(result: JobResult, log: Path) -> str:
    last = logs.tail(log)
    lines = [f"The job {result.describe()}."]
    note = result.exception.note if result.exception is not None else ""
    if result.outcome is Outcome.TIMEOUT:
        lines.append("Raise its resource runtime (minutes; or --set-resources, or jobDefaults.duration in seconds).")
    elif result.outcome is Outcome.REJECTED and "unsatisfiable" in note:
        lines.append("No node has that: lower its threads, tasks * cpus_per_task, gpu or nodes.")
    elif result.outcome is Outcome.REJECTED and "queue" in note:
        lines.append("Give the name of a queue of the instance by flux_queue, --flux-operator-queue or the config.")
    if last:
        lines.append(f"Last lines of {log}:")
        lines += [f"    {line}" for line in last.splitlines()]
    elif result.outcome not in (Outcome.REJECTED, Outcome.CANCELLED):
        lines.append(f"It wrote nothing to its log, {log}.")
    return "\n".join(lines)
