"""From a job of Snakemake's to what is submitted for it: its step, its command, its request."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo

from executors import JobRequest
from snakemake_executor_flux import groups, identity, leftovers, logs
from snakemake_executor_flux.benchmark import record_path
from snakemake_executor_flux.efficiency import Asked
from snakemake_executor_flux.instance import Instance
from snakemake_executor_flux.reporting import Submitted
from snakemake_executor_flux.request import Target, make_request
from snakemake_executor_flux.resources import ignored, parse_resources
from snakemake_executor_flux.settings import ExecutorSettings
from snakemake_executor_flux.steps.base import StepCommand, changed_since
from snakemake_executor_flux.steps.choice import StepChoice, choose_step, job_traits
from snakemake_executor_flux.steps.pending import Unresolved, check_values, forget_params, resolve
from snakemake_executor_flux.steps.script import script_command
from snakemake_executor_flux.steps.shell import check_command, shell_command
from snakemake_executor_flux.steps.snakemake import Program, python_program, snakemake_command
from snakemake_executor_flux.survivors import Survivors

#: Steps whose commands this Snakemake makes.
_HERE = ("shell", "script")


class JobPreparation:
    """Of one run's jobs. Called on Snakemake's scheduler thread."""

    def __init__(self, executor: Any, settings: ExecutorSettings, instance: Instance) -> None:
        """``executor`` makes the arguments of a nested Snakemake, as Snakemake's base class does."""
        self._executor = executor
        self._workflow = executor.workflow
        self._logger = executor.logger
        self._settings = settings
        self._instance = instance
        self._survivors: Survivors = instance.survivors
        self._warned: set[str] = set()

    def choose_step(self, job: Any) -> StepChoice:
        """The step of a job, with its resources as they are where it runs. Raises what makes the job fail."""
        shape = self._instance.shape
        members = groups.members(job)
        for member in members:
            # Resources that were evaluated before there was an instance know no largest node.
            if member.threads > shape.cores:
                member._resources = None
                forget_params(member)
        if job.is_group():
            groups.bound(job, shape, use_memory=self._settings.memory == "cores")
        facts = job_traits(
            job,
            self._workflow,
            custom_jobscript=not self._executor.is_default_jobscript,
            no_package=not self._instance.places.package,
        )
        choice = choose_step(
            facts, self._settings.job_step or "auto", self._instance.warm.against(self._executor.envvars())
        )
        self._logger.debug(f"flux-operator: job {job.jobid} ({job.name}) takes the {choice.step} step{choice.why}")
        if choice.step in _HERE:
            resolve(job)
        for member in members:
            self._name_ignored(member)
        if self._settings.job_step == "shell" and choice.step != "shell" and job.name not in self._warned:
            self._warned.add(job.name)
            reasons = "; ".join(choice.against["shell"])
            self._logger.warning(f"flux-operator: {job.name} cannot take the shell step: {reasons}")
        return choice

    def _name_ignored(self, job: Any) -> None:
        for name, instead in ignored(job.resources).items():
            if name not in self._warned:
                self._warned.add(name)
                self._logger.warning(f"flux-operator: {name} ({job.name}) has no effect here; see {instead}")

    def prepare(self, job: Any, choice: StepChoice) -> tuple[Submitted, JobRequest]:
        """What to submit. Raises what makes the job fail."""
        ask = parse_resources(
            job.threads, job.resources, self._instance.shape, use_memory=self._settings.memory == "cores"
        )
        base = identity.base_key(job)
        digest = identity.digest(job)
        known = self._survivors.take(job, base, digest)
        key = known or identity.attempt_key(base, job.attempt, os.urandom(4).hex())
        # A job that is taken up may be a later attempt than this Snakemake's first, and writes to that one's files.
        attempt = identity.attempt_of(key)
        log = logs.log_path(self._instance.logdir, job.name, identity.wildcards_text(job), base, attempt)
        log.parent.mkdir(parents=True, exist_ok=True)
        step = choice.step
        if known is not None:
            request = JobRequest(argv=["true"], key=key, identity=digest, name=job.name)  # its argv is not used
            record = record_path(log) if step in _HERE and job.benchmark is not None else None
            command = StepCommand([], scratch=leftovers.paths_of_job(key), benchmark_record=record)
        else:
            step, command = self._command(job, step, key, record_path(log))
            target = Target(
                engine=self._instance.session.hello.engine,
                run_id=self._instance.run.id,
                cwd=self._instance.cwd,
                places=self._instance.places,
                inherited=self._instance.inherited,
            )
            request = make_request(job, ask, command, key=key, digest=digest, log=log, target=target)
        memory = job.resources.get("mem_mb")
        asked = Asked(
            rule=job.name,
            wildcards=identity.wildcards_text(job),
            attempt=job.attempt,
            step=step,
            cores=ask.cores,
            memory=float(memory) if isinstance(memory, int | float) else None,
        )
        return Submitted(job, SubmittedJobInfo(job), log, asked, command), request

    def _command(self, job: Any, step: str, key: str, record: Path) -> tuple[str, StepCommand]:
        """A job's command by its step, or by a nested Snakemake where it turns out that only that can make it."""
        owner = leftovers.owner(self._instance.run.id, key)
        if step in _HERE:
            # Before `prepare`: a nested Snakemake prepares too, and a second time is not the same as the first.
            check = check_command if step == "shell" else check_values
            try:
                check(job)
            except Unresolved as err:
                reason = str(err)
            else:
                self._workflow.async_run(job.prepare())
                try:
                    if step == "shell":
                        return step, shell_command(job, self._workflow, record, owner)
                    return step, script_command(job, self._workflow, record, owner)
                except Unresolved as err:
                    reason = str(err)
                except Exception as err:
                    # Any code of Snakemake's and of the workflow's may have run. A nested Snakemake runs it again: it
                    # succeeds, or says what is wrong as the local executor would.
                    if step == "shell":
                        raise
                    reason = f"{type(err).__name__}: {err}"
            step = "snakemake" if self._instance.warm.against(self._executor.envvars()) else "warm"
            self._logger.debug(f"flux-operator: job {job.jobid} ({job.name}) takes the {step} step after all: {reason}")
        return step, snakemake_command(job, self._executor, self._program(step), self._workflow.workdir_init, owner)

    def _program(self, step: str) -> Program:
        places = self._instance.places
        if step == "snakemake":
            return python_program(places.python, places.package)
        inherited = self._instance.inherited
        secrets = self._executor.envvars()
        changes = changed_since(inherited) if inherited is not None else {}
        return self._instance.warm.program(secrets, {**changes, **dict.fromkeys(secrets)})
