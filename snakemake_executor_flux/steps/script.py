"""The script step: Snakemake's main process runs its own code up to the moment at which it would start a process, and
that process is the Flux job.

Snakemake's local executor runs ``script:``, ``wrapper:`` and ``shell:`` rules so: in the main process it writes the
script with its preamble and puts conda, containers, modules and the shell's prefix around the command (script/,
shell.py); then it calls Popen. Here a stand-in for `subprocess` in snakemake.shell takes the command instead, in the
thread that asks for it; all other threads, local rules for instance, get the real thing.
"""

from __future__ import annotations

import importlib
import inspect
import io
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from snakemake.settings.types import DeploymentMethod

from snakemake_executor_flux import leftovers
from snakemake_executor_flux.leftovers import remove_scratch
from snakemake_executor_flux.steps.base import StepCommand
from snakemake_executor_flux.steps.pending import Unresolved, check_text
from snakemake_executor_flux.steps.shell import declared, measured, working_directory

#: By their names: the package snakemake has attributes of the same names that are not its modules.
_SCRIPT: Any = importlib.import_module("snakemake.script")
_SHELL: Any = importlib.import_module("snakemake.shell")

_taking = threading.local()


class _Taken(BaseException):
    """Ends Snakemake's code where it would have started the process. Not an Exception: nothing may handle it."""


@dataclass
class _Capture:
    """What one call of a rule's function would have started."""

    #: Part of the names of scripts: tells whose they are.
    owner: str
    #: Scripts are removed when their job has ended.
    cleanup: bool
    scratch: list[Path] = field(default_factory=list)
    command: str = ""
    program: str = ""
    env: Mapping[str, str] = field(default_factory=dict)

    def write(self, script: Any) -> None:
        """In place of ScriptBase.evaluate, which removes the script when the command has ended."""
        leftovers.DIRECTORY.mkdir(parents=True, exist_ok=True)
        suffix = f".{self.owner}.{script.path.get_filename()}"
        with tempfile.NamedTemporaryFile(suffix=suffix, dir=leftovers.DIRECTORY, delete=False) as file:
            path = Path(file.name).absolute()  # as it is with the local executor, for scripts that look at it
            if self.cleanup:
                self.scratch.append(path)
            script.write_script(script.get_preamble(), file)
        script.execute_script(str(path))

    def start(self, command: str, env: Mapping[str, str], executable: str | None) -> None:
        # Where a command is too long for one argument, Snakemake has put it into a directory for it.
        directory = sys._getframe(2).f_locals.get("tmpdir")
        if directory is not None:
            mine = leftovers.new_directory(self.owner)
            Path(directory).replace(mine)
            self.scratch.append(mine)
            command = command.replace(Path(directory).name, mine.name)
        self.command, self.program, self.env = command, executable or "/bin/sh", env
        raise _Taken


class _Answer:
    """A finished process that wrote what an earlier one with the same command wrote."""

    pid = 0

    def __init__(self, code: int, text: str) -> None:
        self._code = code
        self.stdout = io.StringIO(text)

    def wait(self) -> int:
        return self._code


#: Answers of probes (which version has this environment's python?) by command and shell. A command names its
#: environment, so there is one process per environment, not one per job.
_answers: dict[tuple[str, str | None], tuple[int, str]] = {}


class _Subprocess:
    """`subprocess`, as snakemake.shell sees it."""

    def __getattr__(self, name: str) -> Any:
        return getattr(subprocess, name)

    def Popen(self, command: Any, **kwargs: Any) -> Any:
        capture: _Capture | None = getattr(_taking, "capture", None)
        if capture is None:
            return subprocess.Popen(command, **kwargs)
        executable = kwargs.get("executable")
        if kwargs.get("stdout") != subprocess.PIPE:
            capture.start(command, kwargs["env"], executable)
        key = (command, executable)
        if key not in _answers:
            with subprocess.Popen(command, **kwargs) as process:
                text = process.stdout.read() if process.stdout is not None else ""
            if process.returncode:
                return _Answer(process.returncode, text)  # another time it may work
            _answers[key] = (0, text)
        return _Answer(*_answers[key])


_evaluate = _SCRIPT.ScriptBase.evaluate


def _evaluate_or_write(script: Any, edit: Any = False) -> Any:
    capture: _Capture | None = getattr(_taking, "capture", None)
    return _evaluate(script, edit=edit) if capture is None else capture.write(script)


def _install() -> None:
    _SHELL.sp = _Subprocess()
    _SCRIPT.ScriptBase.evaluate = _evaluate_or_write


@contextmanager
def _capturing(capture: _Capture) -> Iterator[None]:
    if not isinstance(_SHELL.sp, _Subprocess):
        _install()
    _taking.capture = capture
    try:
        yield
    finally:
        _taking.capture = None


def script_command(job: Any, workflow: Any, record: Path, owner: str) -> StepCommand:
    """The command of a prepared job, whose values `check_values` has looked at.

    ``owner`` becomes a part of the names of its scripts.

    Raises Unresolved, and whatever Snakemake raises at such a rule; nothing of the job is left then.
    """
    capture = _Capture(owner, workflow.execution_settings.cleanup_scripts)
    repeats = (job.benchmark_repeats or 1) if job.benchmark is not None else 1
    commands = []
    try:
        for iteration in range(repeats):
            _take(job, workflow, capture, iteration if job.benchmark is not None else None)
            check_text(job, capture.command, job.rule.shellcmd or "")
            commands.append(capture.command)
    except BaseException:
        remove_scratch(capture.scratch)
        raise
    env = _changes(capture.env)
    argv = [capture.program, "-c", commands[0]]
    return StepCommand(
        argv=argv if job.benchmark is None else measured(record, capture.program, commands),
        env=env,
        secret_env=declared(workflow),
        scratch=tuple(capture.scratch),
        benchmark_record=record if job.benchmark is not None else None,
    )


def _take(job: Any, workflow: Any, capture: _Capture, iteration: int | None) -> None:
    function = job.rule.run_func
    given = _arguments(job, workflow, iteration)
    wanted = inspect.signature(function).parameters
    with _capturing(capture):
        try:
            function(**{name: value for name, value in given.items() if name in wanted})
        except _Taken:
            return
    raise Unresolved("Snakemake starts no process for it")


def _arguments(job: Any, workflow: Any, iteration: int | None) -> dict[str, Any]:
    """What executors/local.py gives to a rule's function (job_args_and_prepare, run_wrapper), by name."""
    deployment = workflow.deployment_settings
    methods = deployment.deployment_method
    return {
        "input": job.input._plainstrings(),
        "output": job.output._plainstrings(),
        "params": job.params,
        "wildcards": job.wildcards,
        "threads": job.threads,
        "resources": job.resources,
        "log": job.log._plainstrings(),
        "rule": job.rule.name,
        "conda_env": job.conda_env.address if DeploymentMethod.CONDA in methods and job.conda_env else None,
        "container_img": job.container_img_path if DeploymentMethod.APPTAINER in methods else None,
        "singularity_args": deployment.apptainer_args,
        "use_singularity": DeploymentMethod.APPTAINER in methods,
        "env_modules": job.env_modules if DeploymentMethod.ENV_MODULES in methods else None,
        "bench_record": None,
        "jobid": job.jobid,
        "is_shell": job.is_shell,
        "bench_iteration": iteration,
        "cleanup_scripts": workflow.execution_settings.cleanup_scripts,
        "shadow_dir": None,
        "edit_notebook": None,
        "conda_base_path": workflow.conda_base_path,
        "basedir": job.rule.basedir,
        "sourcecache_path": workflow.sourcecache.cache_path,
        "runtime_sourcecache_path": workflow.sourcecache.runtime_cache_path,
        "runtime_paths": workflow.runtime_paths,
    }


def _changes(env: Mapping[str, str]) -> dict[str, str | None]:
    """What a whole environment changes of this process's."""
    changed: dict[str, str | None] = {name: value for name, value in env.items() if os.environ.get(name) != value}
    changed.update((name, None) for name in os.environ if name not in env)
    changed["PWD"] = working_directory()
    return changed
