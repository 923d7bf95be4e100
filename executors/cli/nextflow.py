"""`flux-minicluster nextflow`: a Nextflow whose tasks run in an instance of the run's."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from executors.cli.common import cluster_options, config_of, fail, guarded, say
from executors.flux_command import launch, settings
from executors.flux_command.preparation import MEMORY


@click.command(context_settings={"allow_interspersed_args": False})
@click.option(
    "--name",
    metavar="NAME",
    help="Share the session and instance of this name with other Nextflow runs. Default: its own.",
)
@click.option("--env", "as_env", is_flag=True, help="Print shell commands to eval, instead of running a command.")
@click.option("--print-config", is_flag=True, help="Print the configuration that is passed to Nextflow, and exit.")
@click.option(
    "--memory",
    type=click.Choice(MEMORY),
    default="enforce",
    show_default=True,
    help="What a task's memory does. enforce: reserves cores by its share of a node's memory, and is a limit if "
    "control groups are available. cores: only reserves cores. ignore: nothing.",
)
@click.option("-q", "--quiet", is_flag=True, help="Do not print which instance is used.")
@cluster_options
@click.argument("argv", nargs=-1, metavar="[-- nextflow ...]")
@guarded
def nextflow(
    name: str | None,
    as_env: bool,
    print_config: bool,
    memory: str,
    quiet: bool,
    argv: tuple[str, ...],
    **options: Any,
) -> None:
    """Run Nextflow with its tasks as Flux jobs.

    Nextflow's executor `flux` submits them to an instance of this run. The instance starts first and ends with the run.
    You need not change the pipeline or Nextflow's configuration. The exit code is Nextflow's.

    With --env, the session lives until its terminal or script ends, or until `down NAME`.
    """
    if print_config:
        click.echo(settings.TEXT, nl=False)
        return
    if as_env == bool(argv):
        raise click.UsageError("give a command, as in `flux-minicluster nextflow -- nextflow run ...`, or --env")
    config_of(options)  # what is wrong is said before anything is started
    environ = dict(os.environ)
    if argv and (problem := launch.find_nextflow(argv, environ)):
        fail(problem, 127)
    cwd = Path.cwd()
    wanted = launch.Wanted(
        config=options["config_file"],
        options={f"run.{key}": options[key] for key in ("provisioner", "namespace", "context", "kubeconfig")},
        name=name or (f"nextflow-{os.urandom(3).hex()}" if as_env else None),
        cwd=cwd,
        work=_absolute(settings.work_directory(argv, environ.get("NXF_WORK")), cwd),
        memory=memory,
        # What leads the terminal's or the batch script's session; 1 where that is outside of this container.
        holders=[max(1, os.getsid(0)) if as_env else os.getpid()],
        shell=as_env,
    )

    def report_progress(line: str) -> None:
        if not quiet:
            say(f"flux: {line}")

    started = launch.start(wanted, environ, report_progress)
    if not as_env:
        raise SystemExit(launch.run_nextflow(argv, started, environ, report_progress))
    for line in launch.shell_lines(started, environ):
        click.echo(line)
    report_progress(f"the session ends with this terminal, or by: flux-minicluster down {started.name}")


def _absolute(path: str | None, cwd: Path) -> str | None:
    """The nearest directory of a path that is there already; None for no path, or one that is no local path."""
    if path is None or "://" in path:
        return None
    whole = cwd / path
    return str(next(one for one in (whole, *whole.parents) if one.exists()))


COMMANDS: Sequence[click.Command] = (nextflow,)
