"""The snakemake step: a whole nested Snakemake runs the job. Slower, and right for every kind of rule."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path
from typing import Any

from snakemake.shell import MAX_ARG_LEN, shell

from snakemake_executor_flux.steps.base import StepCommand

#: A nested Snakemake has one job, so its rate limiter only costs: its timer would hold the interpreter's exit for the
#: rest of a second (scheduling/job_scheduler.py, _schedule_reevalutation).
NO_IDLE_EXIT = "--max-jobs-per-timespan 100/0s"


#: Snakemake's own preparation of a job calls python, which Debian and its kin only have by the name python3.
_PYTHON = 'command -v python >/dev/null 2>&1 || python() { python3 "$@"; }'


def snakemake_command(job: Any, executor: Any) -> StepCommand:
    """The command that an executor of Snakemake's own kind would put into its jobscript."""
    # The storage plugins' settings are among them: a nested Snakemake takes them from there.
    secrets = executor.envvars()
    if not executor.is_default_jobscript:
        script = executor.get_jobscript(job)
        executor.write_jobscript(job, script)
        return StepCommand([script], {"PWD": os.getcwd()}, secrets)
    text = executor.format_job_exec(job)
    if executor.jobs_have_own_software:
        text = f"{_PYTHON}\n{text}"
    # Not any sh: some drop what bash has exported, the function `module` above all.
    program = shell.get_executable() or "/bin/sh"
    scratch: tuple[Path, ...] = ()
    if len(text.encode()) > MAX_ARG_LEN:
        directory = Path(tempfile.mkdtemp(dir=".snakemake", prefix="shell_tmp.")).absolute()
        script = directory / "job.sh"
        script.write_text(text + "\n")
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
        scratch = (directory,)
        return StepCommand([program, str(script)], {"PWD": os.getcwd()}, secrets, scratch)
    return StepCommand([program, "-c", text], {"PWD": os.getcwd()}, secrets)
