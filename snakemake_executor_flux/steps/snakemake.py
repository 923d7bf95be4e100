"""The snakemake step: a whole nested Snakemake runs the job. Slower, and right for every kind of rule."""

from __future__ import annotations

import shlex
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snakemake.shell import MAX_ARG_LEN, shell
from snakemake_interface_executor_plugins import utils
from snakemake_interface_executor_plugins.settings import SharedFSUsage

from snakemake_executor_flux import leftovers
from snakemake_executor_flux.importing import given_by_start
from snakemake_executor_flux.steps import nested
from snakemake_executor_flux.steps.base import StepCommand

#: A nested Snakemake has one job, so its rate limiter only costs: its timer would hold the interpreter's exit for the
#: rest of a second (scheduling/job_scheduler.py, _schedule_reevalutation).
NO_IDLE_EXIT = "--max-jobs-per-timespan 100/0s"

#: Snakemake's own preparation of a job calls python, which Debian and its kin only have by the name python3.
_PYTHON = 'command -v python >/dev/null 2>&1 || python() { python3 "$@"; }'
#: More files to wait for go into a file, as with Snakemake's own remote executors.
_FILES_AS_WORDS = 20


@dataclass(frozen=True)
class Program:
    """What a shell starts a nested Snakemake by: ``words``, after the text ``definition``."""

    words: str
    definition: str = ""


def text_of(module: Any) -> str:
    """A module's source."""
    return Path(module.__file__).read_text(encoding="utf-8")


def nested_words(python: str, package: bool) -> list[str]:
    """What starts our entry: by its name where this package is, else by its text."""
    return [python, "-P", "-m", nested.__name__] if package else [python, "-c", text_of(nested)]


def first_on_path(package: bool) -> list[str]:
    """What our entry is told of the place where the user of ``python -m snakemake`` imports from."""
    first = given_by_start() if package else None
    return [] if first is None else [nested.PATH, first]


def python_program(python: str, package: bool) -> Program:
    """What comes before ``-m snakemake ...``."""
    words = shlex.join([*nested_words(python, package), *first_on_path(package)])
    return Program(words, "" if package else f"{_PYTHON}\n")


def job_arguments(job: Any, executor: Any, cores: int | str) -> str:
    """What tells the nested Snakemake its job, quoted for a shell (as real.py and remote.py of Snakemake's executor
    interface do by Python's quotes)."""
    words = ["--target-jobs", *nested.encode_target_jobs(job.get_target_spec())]
    words += ["--allowed-rules", *sorted(job.rules)]
    if job.is_group():
        words += ["--local-groupid", str(job.jobid)]
    else:
        words += ["--force-use-threads"]
    words += ["--cores", str(cores), "--attempt", str(job.attempt)]
    unneeded = list(executor.workflow.dag.get_unneeded_temp_files(job))
    if unneeded:
        words += ["--unneeded-temp-files", *map(str, unneeded)]
    if SharedFSUsage.INPUT_OUTPUT in executor.workflow.storage_settings.shared_fs_usage:
        words += _wait_for([executor.tmpdir, *map(str, job.get_wait_for_files())], executor.tmpdir, job.jobid)
    return shlex.join(words)


def _wait_for(files: list[str], tmpdir: str, jobid: object) -> list[str]:
    # A name that begins with a dash is no option.
    files = [f"./{name}" if name.startswith("-") else name for name in files]
    if len(files) <= _FILES_AS_WORDS or any("\n" in name for name in files):
        return ["--wait-for-files", *files]
    listed = Path(tmpdir) / f"{jobid}.waitforfilesfile.txt"
    listed.write_text("".join(f"{name}\n" for name in files))
    return ["--wait-for-files-file", str(listed)]


@contextmanager
def quoted_for_a_shell() -> Iterator[None]:
    """Within, Snakemake's own words for a nested Snakemake are quoted for a shell. Local rules that Snakemake spawns
    meanwhile are, too, which does them no harm."""
    original = utils.format_cli_value
    utils.format_cli_value = nested.format_value
    try:
        yield
    finally:
        utils.format_cli_value = original


def snakemake_command(job: Any, executor: Any, program: Program, cwd: str, owner: str) -> StepCommand:
    """The command that an executor of Snakemake's own kind would put into its jobscript. It begins in ``cwd``, where
    this Snakemake began: it reads the workflow again, a relative ``workdir:`` included.
    ``owner`` is for the name of what it leaves for its time."""
    # The storage plugins' settings are among them: a nested Snakemake takes them from there.
    secrets = executor.envvars()
    executor.program = program
    env = {"PWD": cwd}
    if not executor.is_default_jobscript:
        script = executor.get_jobscript(job)
        executor.write_jobscript(job, script)
        return StepCommand([script], env, secrets, cwd=cwd)
    text = program.definition + executor.format_job_exec(job)
    # Not any sh: some drop what bash has exported, the function `module` above all.
    interpreter = shell.get_executable() or "/bin/sh"
    if len(text.encode()) > MAX_ARG_LEN:
        directory = leftovers.new_directory(owner)
        long = directory / "job.sh"
        long.write_text(text + "\n")
        long.chmod(long.stat().st_mode | stat.S_IXUSR)
        return StepCommand([interpreter, str(long)], env, secrets, (directory,), cwd=cwd)
    return StepCommand([interpreter, "-c", text], env, secrets, cwd=cwd)
