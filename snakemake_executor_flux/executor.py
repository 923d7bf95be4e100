"""The executor: what Snakemake's base class wants of one.

Jobs go to a session in batches (`preparation`), and each is reported the moment its event arrives (`reporting`).
Snakemake's scheduler thread calls `run_jobs`, `cancel` and `shutdown`. There is no polling thread: the one that
`RemoteExecutor` starts ends at once.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any

from snakemake.exceptions import RuleException
from snakemake.settings.types import Quietness
from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor

from executors import ExecutorsError, JobRequest, Session, SessionClosedError
from snakemake_executor_flux.instance import Instance
from snakemake_executor_flux.preparation import JobPreparation
from snakemake_executor_flux.reporting import Reporter, Submitted
from snakemake_executor_flux.resources import ResourceError
from snakemake_executor_flux.settings import ExecutorSettings
from snakemake_executor_flux.steps.choice import StepChoice
from snakemake_executor_flux.steps.snakemake import NO_IDLE_EXIT, Program, job_arguments, quoted_for_a_shell
from snakemake_executor_flux.survivors import REPLACE_LIMIT

#: Seconds after which what has been prepared is sent, though more is being prepared: the first jobs start early.
_BATCH_SECONDS = 0.05
#: What says by itself why a job cannot begin. Anything else is reported with its type.
_PROBLEMS = (WorkflowError, RuleException, ResourceError, OSError, ExecutorsError, TimeoutError)


@dataclass(frozen=True)
class _Run:
    """What there is once the instance is there."""

    session: Session
    preparation: JobPreparation
    reporter: Reporter


class Executor(RemoteExecutor):
    """See the module. Snakemake's classes are untyped; the typing rules end at its calls."""

    def __post_init__(self) -> None:
        # None: used from Python without our settings.
        self._settings = self.workflow.executor_settings or ExecutorSettings()
        self._settings.check()
        self._cancelled = False
        self._shut = False
        #: What starts the nested Snakemake whose command is being made (`steps.snakemake`).
        self.program = Program("")
        self._instance = Instance(self.workflow, self._settings, self.logger)
        #: None before the first job.
        self._run: _Run | None = None

    def _begin(self) -> _Run:
        """Before any job; the instance is made for the first one. Raises UserError."""
        if self._run is None:
            self._instance.open()
            session = self._instance.session
            files_shared = self._instance.places.files
            self._run = _Run(
                session,
                JobPreparation(self, self._settings, self._instance),
                Reporter(self, self._instance.efficiency, session.external_id, files_shared=files_shared),
            )
        return self._run

    # -- Snakemake's calls

    def additional_general_args(self) -> str:
        return NO_IDLE_EXIT

    def get_python_executable(self) -> str:
        # The base class adds "-m snakemake", which our entry expects.
        return self.program.words

    def get_job_args(self, job: Any, **_: Any) -> str:
        # A group has as many cores as its jobs may use side by side; a single job's threads are its own limit.
        return job_arguments(job, self, job.threads if job.is_group() else self.cores)

    def format_job_exec(self, job: Any) -> str:
        with quoted_for_a_shell():
            return str(super().format_job_exec(job))

    async def _wait_for_jobs(self) -> None:
        """Nothing to wait for: the session reports by itself."""

    async def check_active_jobs(self, active_jobs: list[SubmittedJobInfo]) -> Any:
        """Never called, since nothing polls; abstract in the base class."""
        for info in active_jobs:
            yield info

    def run_job(self, job: Any) -> None:
        self.run_jobs([job], announced=True)

    def run_jobs(self, jobs: list[Any], announced: bool = False) -> None:
        run = self._begin()
        batch: list[tuple[Submitted, JobRequest]] = []
        since = time.monotonic()
        for job in jobs:
            prepared = self._prepare(run, job, announced)
            if prepared is not None:
                batch.append(prepared)
            if time.monotonic() - since > _BATCH_SECONDS:
                _submit(run, batch)
                batch = []
                since = time.monotonic()
        _submit(run, batch)

    def cancel(self) -> None:
        self._cancelled = True
        try:
            if self._run is not None:
                self._cancel_jobs_of(self._run)
        except KeyboardInterrupt:
            self.logger.warning("flux-operator: interrupted again: the run is ended, with the jobs that still run")
        try:
            self.shutdown()
        except KeyboardInterrupt:
            self.logger.warning("flux-operator: interrupted again: nobody waits for the end of the run's instance")

    def _cancel_jobs_of(self, run: _Run) -> None:
        handles = run.reporter.active()
        run.session.cancel(handles, "cancelled by Snakemake")
        for handle in handles:
            try:
                handle.result(REPLACE_LIMIT)
            except TimeoutError:
                self.logger.warning(f"flux-operator: {handle.name} has not ended within {REPLACE_LIMIT:g} s")

    def cancel_jobs(self, active_jobs: list[SubmittedJobInfo]) -> None:
        """Abstract in the base class; `cancel` cancels from the executor's own list, which is complete."""

    def shutdown(self) -> None:
        if self._shut:
            return
        self._shut = True
        if self._run is not None:
            self._end(self._run)
        super().shutdown()
        if self._run is not None and self._instance.efficiency.jobs:
            self.logger.info(f"flux-operator: {self._instance.efficiency.summary()}")
        _end_idle_timers()

    def _end(self, run: _Run) -> None:
        run.reporter.finish()
        keep = self._settings.keep_on_failure and (self._cancelled or run.reporter.failed)
        if keep:
            hello = run.session.hello
            look = f"; look inside by FLUX_URI={hello.uri} flux jobs -a" if hello.uri else ""
            self.logger.info(
                f"flux-operator: the instance of run {hello.run} is kept until its idle time-out "
                f"({hello.idle_timeout:g} s){look}"
            )
        self._instance.close(keep=keep)

    def print_job_error(self, job_info: SubmittedJobInfo, msg: str | None = None, **kwargs: Any) -> None:
        """Without the base class's hint at "cluster logs": the message has the log's path and last lines."""
        if job_info.external_jobid is not None:
            kwargs["external_jobid"] = job_info.external_jobid
        if job_info.job.is_group() and msg:
            # Snakemake's own report of a group has no place for a message.
            self.logger.error(f"Error in group {job_info.job.groupid}: {msg}")
        elif msg and Quietness.RULES in (self.workflow.output_settings.quiet or ()):
            # Snakemake's own report is of what `--quiet rules` leaves out; with a local run, an exception is told then.
            self.logger.error(f"Error in rule {job_info.job.rule.name}: {msg}")
        job_info.job.log_error(msg, **kwargs)

    def report_submitted(self, info: SubmittedJobInfo) -> None:
        """See `reporting.Snakemake`."""
        self.report_job_submission(info)
        with self.lock:
            self.active_jobs.clear()  # the base class's list is for its polling; the reporter has its own

    # -- submitting

    def _prepare(self, run: _Run, job: Any, announced: bool) -> tuple[Submitted, JobRequest] | None:
        """What to submit for a job; None when it failed already, and was reported so."""
        problem: Exception | None = None
        choice = StepChoice("snakemake")
        try:
            choice = run.preparation.choose_step(job)
        except Exception as err:  # the workflow's code may have run; it is this job's problem
            problem = err
        if not announced:
            self.run_job_pre(job)  # shows params and resources, so they are known by now
        try:
            if problem is not None:
                raise problem
            return run.preparation.prepare(job, choice)
        except Exception as err:  # what the workflow's values and functions raise may be anything
            # As with any remote executor, a job that cannot begin fails; the others go on as Snakemake was told.
            if not isinstance(err, _PROBLEMS):
                self.logger.debug(f"flux-operator: job {job.jobid} ({job.name}) cannot be prepared", exc_info=err)
            text = str(err) if isinstance(err, _PROBLEMS) else f"{type(err).__name__}: {err}"
            run.reporter.refuse(job, text)
            return None


def _submit(run: _Run, batch: list[tuple[Submitted, JobRequest]]) -> None:
    if not batch:
        return
    try:
        handles = run.session.submit([request for _, request in batch])
    except SessionClosedError as err:
        for submitted, _ in batch:
            run.reporter.refuse(submitted.job, str(err))
        return
    run.reporter.follow([submitted for submitted, _ in batch], handles)


def _end_idle_timers() -> None:
    """Snakemake's rate limiter sets a timer after each round (scheduling/job_scheduler.py); the last one would hold the
    interpreter's exit for the rest of a second."""
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer) and "_schedule_reevalutation" in thread.function.__qualname__:
            thread.cancel()
