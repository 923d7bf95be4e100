"""The executor: hands jobs to a session in batches, and reports each the moment its event arrives.

Threads: Snakemake's scheduler thread calls `run_jobs`, `cancel` and `shutdown`. The session's dispatcher only queues;
one *reporter* thread tells Snakemake, since Snakemake may hold its lock while it postprocesses other jobs. Where files
are not shared, a few *savers* bring the logs of ended jobs before that.
There is no polling thread: the one that `RemoteExecutor` starts ends at once.
"""

from __future__ import annotations

import json
import os
import queue
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snakemake.exceptions import RuleException
from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor

from executors import ExecutorsError, JobHandle, JobRequest, JobResult, Outcome, SessionClosedError
from snakemake_executor_flux import groups, identity, leftovers, logs
from snakemake_executor_flux.efficiency import Asked
from snakemake_executor_flux.instance import CORES, INSIDE, Instance
from snakemake_executor_flux.resources import Ask, ResourceError, ask_of, ignored
from snakemake_executor_flux.settings import ExecutorSettings
from snakemake_executor_flux.steps.base import StepCommand, changed_since, remove_scratch
from snakemake_executor_flux.steps.choice import Choice, choose, facts_of
from snakemake_executor_flux.steps.pending import Unresolved, check_values, forget_params, resolve
from snakemake_executor_flux.steps.script import script_command
from snakemake_executor_flux.steps.shell import check_command, shell_command
from snakemake_executor_flux.steps.snakemake import (
    NO_IDLE_EXIT,
    job_arguments,
    python_program,
    quoted_for_a_shell,
    snakemake_command,
)

#: Logs that are fetched at once, where files are not shared.
_SAVERS = 4
#: Seconds after which what has been prepared is sent, though more is being prepared: the first jobs start early.
_BATCH_SECONDS = 0.05
#: What says by itself why a job cannot begin. Anything else is told with its type.
_PROBLEMS = (WorkflowError, RuleException, ResourceError, OSError, ExecutorsError, TimeoutError)
#: Seconds to wait for the end of a job of an earlier Snakemake that must make room for a new one.
_REPLACE_LIMIT = 120.0


@dataclass
class _Submitted:
    """A job on its way, from its preparation to its report."""

    job: Any
    info: SubmittedJobInfo
    log: Path
    asked: Asked
    command: StepCommand
    handle: JobHandle | None = None


class Executor(RemoteExecutor):
    """See the module. Snakemake's classes are untyped; the typing rules end at its calls."""

    def __post_init__(self) -> None:
        # None: used from Python without settings of ours.
        self._settings = self.workflow.executor_settings or ExecutorSettings()
        self._settings.check()
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._active: dict[JobHandle, _Submitted] = {}
        self._active_lock = threading.Lock()
        self._failed = False
        self._shut = False
        self._warned: set[str] = set()
        #: Outputs of jobs of an earlier Snakemake that this one has taken up.
        self._made_earlier: set[str] = set()
        self._instance = Instance(self.workflow, self._settings, self.logger)
        self._reporter = threading.Thread(target=self._report_forever, name="flux-operator-reporter", daemon=True)

    def _begin(self) -> None:
        """Before the first job. Raises UserError."""
        if self._instance.is_open:
            return
        self._instance.open()
        self._session = self._instance.session
        self._places = self._instance.places
        #: Bring logs of ended jobs here, where files are not shared.
        self._savers = ThreadPoolExecutor(_SAVERS, "flux-operator-logs")
        self._reporter.start()

    # -- Snakemake's calls

    @property
    def jobs_have_own_software(self) -> bool:
        """Whether a nested Snakemake runs with other software than this one."""
        return not self._places.package

    def additional_general_args(self) -> str:
        return NO_IDLE_EXIT

    def get_python_executable(self) -> str:
        # The base class adds "-m snakemake", which our entry expects.
        return python_program(self._places.python, self._places.package)

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
        self._begin()
        batch: list[tuple[_Submitted, JobRequest]] = []
        since = time.monotonic()
        for job in jobs:
            prepared = self._prepare(job, announced)
            if prepared is not None:
                batch.append(prepared)
            if time.monotonic() - since > _BATCH_SECONDS:
                self._submit(batch)
                batch = []
                since = time.monotonic()
        self._submit(batch)

    def cancel(self) -> None:
        with self._active_lock:
            handles = list(self._active)
        self._failed = True
        if handles:
            self._session.cancel(handles, "cancelled by Snakemake")
        for handle in handles:
            try:
                handle.result(_REPLACE_LIMIT)
            except TimeoutError:
                self.logger.warning(f"flux-operator: {handle.name} has not ended within {_REPLACE_LIMIT:g} s")
        self.shutdown()

    def cancel_jobs(self, active_jobs: list[SubmittedJobInfo]) -> None:
        """Abstract in the base class; `cancel` cancels from the executor's own list, which is complete."""

    def shutdown(self) -> None:
        if self._shut:
            return
        self._shut = True
        if self._instance.is_open:
            self._end()
        super().shutdown()
        if self._instance.is_open and self._instance.efficiency.jobs:
            self.logger.info(f"flux-operator: {self._instance.efficiency.summary()}")
        _end_idle_timers()

    def _end(self) -> None:
        self._inbox.put(None)
        self._reporter.join()
        keep = self._settings.keep_on_failure and self._failed
        if keep:
            self.logger.info(f"flux-operator: {self._kept()}")
        self._instance.close(keep=keep)

    def _kept(self) -> str:
        info = self._session.hello
        look = f"; look inside by FLUX_URI={info.uri} flux jobs -a" if info.uri else ""
        return f"the instance of run {info.run} is kept until its idle time-out ({info.idle_timeout:g} s){look}"

    def print_job_error(self, job_info: SubmittedJobInfo, msg: str | None = None, **kwargs: Any) -> None:
        """Without the base class's hint at "cluster logs": the message has the log's path and last lines."""
        if job_info.external_jobid is not None:
            kwargs["external_jobid"] = job_info.external_jobid
        if job_info.job.is_group() and msg:
            # Snakemake's own report of a group has no place for a message.
            self.logger.error(f"Error in group {job_info.job.groupid}: {msg}")
        job_info.job.log_error(msg, **kwargs)

    # -- preparing

    def _prepare(self, job: Any, announced: bool) -> tuple[_Submitted, JobRequest] | None:
        """What to submit for a job; None when it failed already, and was reported so."""
        problem: Exception | None = None
        choice = Choice("snakemake")
        try:
            choice = self._choose(job)
        except Exception as err:  # the workflow's code may have run; it is this job's problem
            problem = err
        if not announced:
            self.run_job_pre(job)  # shows params and resources, so they are known by now
        try:
            if problem is not None:
                raise problem
            return self._prepare_or_raise(job, choice)
        except Exception as err:  # what the workflow's values and functions raise may be anything
            # As with any remote executor, a job that cannot begin fails; the others go on as Snakemake was told.
            if not isinstance(err, _PROBLEMS):
                self.logger.debug(f"flux-operator: job {job.jobid} ({job.name}) cannot be prepared", exc_info=err)
            text = str(err) if isinstance(err, _PROBLEMS) else f"{type(err).__name__}: {err}"
            self._inbox.put(("refused", job, text))
            return None

    def _choose(self, job: Any) -> Choice:
        """The step of a job, with its resources as they are where it runs. Raises what makes it fail."""
        shape = self._instance.shape
        members = groups.members(job)
        for member in members:
            # Resources that were evaluated before there was an instance know no largest node.
            if member.threads > shape.cores:
                member._resources = None
                forget_params(member)
        if job.is_group():
            groups.bound(job, shape, use_memory=self._settings.memory == "cores")
        facts = facts_of(
            job, self.workflow, custom_jobscript=not self.is_default_jobscript, no_package=not self._places.package
        )
        choice = choose(facts, self._settings.job_step or "auto")
        self.logger.debug(f"flux-operator: job {job.jobid} ({job.name}) takes the {choice.step} step{choice.why}")
        if choice.step != "snakemake":
            resolve(job)
        for member in members:
            self._name_ignored(member)
        if self._settings.job_step == "shell" and choice.step != "shell" and job.name not in self._warned:
            self._warned.add(job.name)
            reasons = "; ".join(choice.against["shell"])
            self.logger.warning(f"flux-operator: {job.name} cannot take the shell step: {reasons}")
        return choice

    def _name_ignored(self, job: Any) -> None:
        for name, instead in ignored(job.resources).items():
            if name not in self._warned:
                self._warned.add(name)
                self.logger.warning(f"flux-operator: {name} ({job.name}) has no effect here; see {instead}")

    def _prepare_or_raise(self, job: Any, choice: Choice) -> tuple[_Submitted, JobRequest]:
        use_memory = self._settings.memory == "cores"
        ask = ask_of(job.threads, job.resources, self._instance.shape, use_memory=use_memory)
        base = identity.base_key(job)
        digest = identity.digest(job)
        key = self._find_living(job, base, digest)
        resumed = key is not None
        key = key or identity.attempt_key(base, job.attempt, os.urandom(4).hex())
        log = logs.log_path(self._instance.logdir, job.name, identity.wildcards_text(job), base, job.attempt)
        log.parent.mkdir(parents=True, exist_ok=True)
        step = choice.step
        if resumed:
            request = JobRequest(argv=["true"], key=key, identity=digest, name=job.name)  # known: its argv is not used
            record = _record(log) if step != "snakemake" and job.benchmark is not None else None
            command = StepCommand([], scratch=leftovers.of_job(key), benchmark_record=record)
        else:
            step, command = self._command(job, step, key, _record(log))
            request = self._request(job, ask, command, key, digest, log)
        memory = job.resources.get("mem_mb")
        asked = Asked(
            rule=job.name,
            wildcards=identity.wildcards_text(job),
            attempt=job.attempt,
            step=step,
            cores=ask.cores,
            memory=float(memory) if isinstance(memory, int | float) else None,
        )
        return _Submitted(job, SubmittedJobInfo(job), log, asked, command), request

    def _command(self, job: Any, step: str, key: str, record: Path) -> tuple[str, StepCommand]:
        """A job's command by its step, or by the snakemake step where it turns out that only that can make it."""
        owner = leftovers.owner(self._instance.run.id, key)
        if step != "snakemake":
            # Before `prepare`: a nested Snakemake prepares too, and a second time is not the same as the first.
            check = check_command if step == "shell" else check_values
            try:
                check(job)
            except Unresolved as err:
                reason = str(err)
            else:
                self.workflow.async_run(job.prepare())
                try:
                    if step == "shell":
                        return step, shell_command(job, self.workflow, record, owner)
                    return step, script_command(job, self.workflow, record, owner)
                except Unresolved as err:
                    reason = str(err)
                except Exception as err:
                    # Any code of Snakemake's and of the workflow's may have run. A nested Snakemake runs it again: it
                    # succeeds, or says what is wrong as the local executor would.
                    if step == "shell":
                        raise
                    reason = f"{type(err).__name__}: {err}"
            self.logger.debug(
                f"flux-operator: job {job.jobid} ({job.name}) takes the snakemake step after all: {reason}"
            )
        return "snakemake", snakemake_command(job, self, self.workflow.workdir_init, owner)

    def _request(self, job: Any, ask: Ask, command: StepCommand, key: str, digest: str, log: Path) -> JobRequest:
        secrets = {name: value for name, value in command.secret_env.items() if name not in command.env}
        attributes = {f"system.shell.options.{name}": value for name, value in ask.shell_options.items()}
        argv = command.argv
        if ask.nested and self._session.hello.engine != "flux" and str(job.resources.get("mpi", "")).startswith("flux"):
            raise ResourceError(
                f"mpi={job.resources.get('mpi')!r}: the embedded engine has no Flux to start tasks with; install Flux, "
                'or give mpi="mpirun"'
            )
        since = changed_since(self._instance.inherited) if self._instance.inherited is not None else {}
        for name in secrets:
            since.pop(name, None)
        env: dict[str, str | None] = {**since, **command.env, INSIDE: self._instance.run.id, CORES: str(ask.cores)}
        if ask.nested and self._session.hello.engine == "flux":
            # One broker per node of the job, with all that the job holds there; as `flux batch` does.
            argv = ["flux", "start", *argv]
            attributes.update(
                {
                    "system.shell.options.per-resource": {"type": "node"},
                    "system.shell.options.mpi": "none",
                    "system.shell.options.exit-timeout": "none",
                }
            )
            env[INSIDE] = env[CORES] = None  # what is attached to there has its cores to itself
        return JobRequest(
            argv=self._places.argv(argv),
            name=job.name,
            key=key,
            identity=digest,
            cwd=(command.cwd or self._instance.cwd) if self._places.files else None,
            env=env,
            secret_env=secrets,
            nodes=ask.nodes,
            tasks=ask.slots,
            cores_per_task=ask.cores_per_slot,
            gpus_per_task=ask.gpus_per_slot or None,
            duration=ask.duration or None,
            queue=ask.queue,
            urgency=ask.urgency,
            constraint=ask.constraint,
            # Without shared files, the log comes by the stream when the job has ended.
            stdout=str(log) if self._places.files else None,
            stderr=str(log) if self._places.files else None,
            attributes=attributes,
            measure=not ask.nested,
        )

    def _find_living(self, job: Any, base: str, digest: str) -> str | None:
        """The key of an earlier Snakemake's job that does the same and lives or has done it; others make room.

        Must come before ``prepare``, which removes the outputs of whoever still writes them.
        """
        candidates = self._instance.survivors.pop(base, [])
        if not candidates and self._instance.run.resumed:
            candidates = self._by_marker(job)
        usable = None
        doomed = []
        for found in candidates:
            result = found["result"]
            same = found["digest"] == _short(digest) and not self._is_outdated(job, found)
            if usable is None and same and (result is None or result["outcome"] == Outcome.COMPLETED):
                usable = found
            else:
                doomed.append(found["id"])
        if doomed:
            self.logger.info(f"flux-operator: earlier job(s) {', '.join(doomed)} of {job.name} make room for a new one")
            self._session.cancel_and_wait(doomed, _REPLACE_LIMIT)
            leftovers.remove_of_jobs(found["key"] for found in candidates if found["id"] in doomed)
        if usable is None:
            return None
        self.logger.info(f"flux-operator: {job.name} is attached to job {usable['id']} of an earlier Snakemake")
        self._made_earlier.update(map(str, job.output))
        return str(usable["key"])

    def _is_outdated(self, job: Any, found: dict[str, Any]) -> bool:
        since = found["times"]["submit"]
        changed = since is not None and identity.changed_input(job, since, self._made_earlier)
        if changed:
            self.logger.info(
                f"flux-operator: {changed} has changed since job {found['id']} of {job.name} was submitted"
            )
        return bool(changed)

    def _by_marker(self, job: Any) -> list[dict[str, Any]]:
        """Jobs that Snakemake's own incomplete markers name (``incomplete_external_jobid`` hides them on a rerun)."""
        prefix = f"{self._session.hello.instance}/"
        members = job if job.is_group() else [job]
        ids = {
            external.removeprefix(prefix)
            for member in members
            for external in self.workflow.persistence.external_jobids(member)
            if external.startswith(prefix)
        }
        return [found for found in self._session.unacknowledged() if found["id"] in ids] if ids else []

    def _submit(self, batch: list[tuple[_Submitted, JobRequest]]) -> None:
        if not batch:
            return
        try:
            handles = self._session.submit([request for _, request in batch])
        except SessionClosedError as err:
            for submitted, _ in batch:
                self._inbox.put(("refused", submitted.job, str(err)))
            return
        with self._active_lock:
            for (submitted, _), handle in zip(batch, handles, strict=True):
                submitted.handle = handle
                self._active[handle] = submitted
        for handle in handles:
            handle.add_submit_callback(lambda handle: self._inbox.put(("accepted", handle, "")))
            handle.add_done_callback(lambda handle: self._inbox.put(("ended", handle, "")))

    # -- reporting

    def _report_forever(self) -> None:
        while (message := self._inbox.get()) is not None:
            self._report(*message)
        self._savers.shutdown()
        while not self._inbox.empty():
            message = self._inbox.get()
            if message is not None and message[0] == "saved":
                self._report(*message)

    def _report(self, kind: str, subject: Any, text: str) -> None:
        try:
            if kind == "refused":
                self._refused(subject, text)
            elif kind == "accepted":
                self._accepted(subject)
            elif kind == "ended" and not self._places.files:
                # Not here: the others' reports would wait for a long log.
                self._savers.submit(self._save_log, subject)
            else:
                self._ended(subject)
        except Exception as err:  # Snakemake must hear of a bug here, or it would wait for ever
            self.logger.error(f"flux-operator: reporting failed: {err!r}")
            self.workflow.scheduler.executor_error_callback(err)

    def _refused(self, job: Any, text: str) -> None:
        self._failed = True
        self.report_job_error(SubmittedJobInfo(job), msg=f"The job could not be submitted: {text}")

    def _accepted(self, handle: JobHandle) -> None:
        with self._active_lock:
            submitted = self._active.get(handle)
        if submitted is None:
            return
        submitted.info.external_jobid = self._session.external_id(handle)
        self.report_job_submission(submitted.info)
        with self.lock:
            self.active_jobs.clear()  # the base class's list is for its polling; ours is `_active`

    def _save_log(self, handle: JobHandle) -> None:
        """Bring the log of an ended job here, then let its end be reported."""
        with self._active_lock:
            log = self._active[handle].log  # nobody else reports its end, so it is there
        try:
            logs.save(log, handle)
        except (OSError, ExecutorsError) as err:
            self.logger.warning(f"flux-operator: {log}: the log is not complete: {err}")
        finally:
            self._inbox.put(("saved", handle, ""))

    def _ended(self, handle: JobHandle) -> None:
        with self._active_lock:
            submitted = self._active.pop(handle, None)
        if submitted is None:
            return
        result = handle.result(0)
        problem = self._after(submitted, handle, result)
        if problem is None:
            self.report_job_success(submitted.info)
        else:
            self._failed = True
            self.report_job_error(
                submitted.info, msg=problem, aux_logs=[str(submitted.log)] if submitted.log.exists() else []
            )
        handle.acknowledge()

    def _after(self, submitted: _Submitted, handle: JobHandle, result: JobResult) -> str | None:
        """Finish what belongs to a job; what to tell the user if it failed."""
        problem = None if result.ok else _message(result, submitted.log)
        try:
            remove_scratch(submitted.command.scratch)
            if result.ok and submitted.command.benchmark_record is not None:
                write_benchmark(submitted.job, self.workflow, submitted.command.benchmark_record)
            self._instance.efficiency.add(submitted.asked, handle.id, result)
        except OSError as err:
            problem = problem or f"The job completed, but its benchmark or efficiency record cannot be written: {err}"
        logs.remove_if_empty(submitted.log)
        return problem


def _end_idle_timers() -> None:
    """Snakemake's rate limiter sets a timer after each round (scheduling/job_scheduler.py); the last one would hold the
    interpreter's exit for the rest of a second."""
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer) and "_schedule_reevalutation" in thread.function.__qualname__:
            thread.cancel()


def _record(log: Path) -> Path:
    return log.with_suffix(".benchmark.json")


def write_benchmark(job: Any, workflow: Any, record_file: Path) -> None:
    """The benchmark file, by Snakemake's own writer, from what the job measured. Raises OSError."""
    from snakemake.benchmark import BenchmarkRecord, write_benchmark_records

    if not record_file.exists():
        return  # of an earlier Snakemake, whose job took the nested step and writes the file itself
    records = []
    for values in json.loads(record_file.read_text()):
        record = BenchmarkRecord()
        for name, value in values.items():
            setattr(record, name, value)
        record.jobid = job.jobid
        record.rule_name = job.rule.name
        record.wildcards = job.wildcards
        record.params = job.params
        record.resources = job.resources
        record.input = job.input._plainstrings()
        record.threads = job.threads
        records.append(record)
    write_benchmark_records(records, str(job.benchmark), workflow.output_settings.benchmark_extended)
    record_file.unlink()


def _short(digest: str) -> str:
    """The form in which `executors.job.digest_of` passes an identity on."""
    import hashlib

    return hashlib.sha256(digest.encode()).hexdigest()[:24]


def _message(result: JobResult, log: Path) -> str:
    last = logs.tail(log)
    lines = [f"The job {result.describe()}."]
    if last:
        lines.append(f"Last lines of {log}:")
        lines += [f"    {line}" for line in last.splitlines()]
    elif result.outcome not in (Outcome.REJECTED, Outcome.CANCELLED):
        lines.append(f"It wrote nothing to its log, {log}.")
    return "\n".join(lines)
