"""The shell step: Snakemake's main process prepares and formats, the Flux job is the rule's own shell command.

It does what `snakemake.shell` and the local executor do around a command, in the same order (Snakemake 9.27: shell.py
118-348, executors/local.py 109-160), except that the command is handed to Flux instead of being started here.
"""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import Any

from snakemake.deployment import singularity
from snakemake.settings.types import DeploymentMethod
from snakemake.shell import MAX_ARG_LEN, shell

from snakemake_executor_flux import leftovers
from snakemake_executor_flux.namespaces import shell_text
from snakemake_executor_flux.steps.base import StepCommand
from snakemake_executor_flux.steps.pending import check_text

#: Set to the number of threads for every shell command (shell.py:279-285).
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "GOTO_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
_TMP_VARIABLES = ("TMPDIR", "TMP", "TEMPDIR", "TEMP")
#: Removed where a conda environment is used (shell.py:307-314).
_CONDA_CONFLICTS = ("R_LIBS", "PYTHONPATH", "PERLLIB", "PERL5LIB")


def check_command(job: Any) -> None:
    """Whether a job's command can be made here, before anything is done for it. Raises RuleException, Unresolved."""
    check_text(job, shell_text(job), job.rule.shellcmd)


def shell_command(job: Any, workflow: Any, record: Path, owner: str) -> StepCommand:
    """The command of a prepared job. ``owner`` becomes a part of the name of what it leaves for its time.

    Raises RuleException for one that cannot be formatted, Unresolved.
    """
    executable = job.resources.get("shell_exec") or shell.get_executable()
    shell._check_executable(executable)
    scratch: list[Path] = []
    repeats = (job.benchmark_repeats or 1) if job.benchmark is not None else 1
    commands = [_text(job, workflow, executable, iteration, scratch, owner) for iteration in range(repeats)]
    program = executable or "/bin/sh"
    return StepCommand(
        argv=[program, "-c", commands[0]] if job.benchmark is None else measured(record, program, commands),
        env=_environment(job, workflow),
        secret_env=declared(workflow),
        scratch=tuple(scratch),
        benchmark_record=record if job.benchmark is not None else None,
    )


def measured(record: Path, program: str, commands: list[str]) -> list[str]:
    """The command that runs others for ``benchmark:``; with -P, since the working directory may have a platform.py."""
    return [sys.executable, "-P", "-m", "snakemake_executor_flux.steps.measured", str(record), program, *commands]


def _text(job: Any, workflow: Any, executable: str | None, iteration: int, scratch: list[Path], owner: str) -> str:
    deployment = workflow.deployment_settings.deployment_method
    conda_env = job.conda_env.address if DeploymentMethod.CONDA in deployment and job.conda_env else None
    image = job.container_img_path if DeploymentMethod.APPTAINER in deployment else None
    modules = job.env_modules if DeploymentMethod.ENV_MODULES in deployment else None
    text = shell_text(
        job,
        bench_iteration=iteration if job.benchmark is not None else None,
        conda_env=conda_env,
        container_img=image,
        basedir=job.rule.basedir,
    )
    check_text(job, text, job.rule.shellcmd)
    text = " ".join((shell._get_process_prefix(executable), text, shell._process_suffix)).strip()
    if modules:
        text = modules.shellcmd(text)
    if conda_env:
        from snakemake.deployment.conda import Conda

        text = Conda(container_img=image, prefix_path=workflow.conda_base_path).shellcmd(conda_env, text)
    if len(text.replace("'", r"'\''")) + 2 > MAX_ARG_LEN:
        text = _spill(text, executable, scratch, owner)
    if image:
        text = singularity.shellcmd(
            image,
            text,
            bind=workflow.runtime_paths,
            args=workflow.deployment_settings.apptainer_args,
            envvars=None,
            shell_executable=executable,
            container_workdir=None,
            is_python_script=False,
        )
    return str(text)


def _spill(text: str, executable: str | None, scratch: list[Path], owner: str) -> str:
    """Put a text that is too long for one argument into a script, as Snakemake does."""
    directory = leftovers.new_directory(owner)
    scratch.append(directory)
    script = directory / "script.sh"
    script.write_text(text + "\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR | stat.S_IRUSR)
    return f'"{executable or "/bin/sh"}" "{script}"'


def declared(workflow: Any) -> dict[str, str]:
    """What ``envvars:`` and ``--envvars`` name. Not the storage plugins' settings, of no use to a plain command:
    they have defaults, and each job would be given a secret environment for them."""
    names = {*workflow.envvars, *workflow.remote_execution_settings.envvars}
    return {name: os.environ[name] for name in sorted(names)}


def _environment(job: Any, workflow: Any) -> dict[str, str | None]:
    env: dict[str, str | None] = dict.fromkeys(_THREAD_VARIABLES, str(job.threads))
    tmpdir = job.resources.get("tmpdir")
    if tmpdir:
        env.update(dict.fromkeys(_TMP_VARIABLES, str(tmpdir)))
    uses_conda = DeploymentMethod.CONDA in workflow.deployment_settings.deployment_method and job.conda_env
    if uses_conda and shell.conda_block_conflicting_envvars:
        env.update(dict.fromkeys(_CONDA_CONFLICTS))
    # Flux does not set it, and a shell that starts elsewhere would keep the client's.
    env["PWD"] = working_directory()
    return env


def working_directory() -> str:
    """By the name that it was entered by, as a shell keeps it: users' files may hold it, and other nodes may have no
    other."""
    entered = os.environ.get("PWD", "")
    try:
        if os.path.isabs(entered) and os.path.samefile(entered, "."):
            return entered
    except OSError:
        pass  # it is of another directory, long gone
    return os.getcwd()
