"""Commands for jobs."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import click

from executors.cli.common import (
    INTERRUPTED,
    RUN_FAILED,
    TIMED_OUT,
    cluster_options,
    config_of,
    copy_output,
    find,
    guarded,
    instance_argument,
    json_option,
    print_json,
    print_table,
    say,
)
from executors.cli.signals import first_one_calls
from executors.config import RunConfig
from executors.errors import AgentError
from executors.handle import JobHandle
from executors.job import NO_INPUT, Defaults, Environments, JobRequest, make_item
from executors.names import RunId
from executors.provision.inventory import own_config
from executors.results import JobResult, Outcome
from executors.session import Session, join_session, open_session
from executors.spec import default_document, parse_spec


class _WrongUse(click.UsageError):
    exit_code = RUN_FAILED


class _Run(click.Command):
    """Wrong options have the exit code of all that is not the job's own."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        with _wrong_use():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        with _wrong_use():
            return super().invoke(ctx)


@contextlib.contextmanager
def _wrong_use() -> Iterator[None]:
    try:
        yield
    except click.UsageError as err:
        raise _WrongUse(err.format_message(), err.ctx) from None


def _pairs(_context: click.Context, _parameter: click.Parameter, words: tuple[str, ...]) -> dict[str, str]:
    for word in words:
        if not word.partition("=")[1]:
            raise click.BadParameter(f"{word!r} is not NAME=VALUE")
    return dict(word.partition("=")[::2] for word in words)


# As with srun: what follows the command are its own options.
@click.command(cls=_Run, context_settings={"allow_interspersed_args": False})
@click.option(
    "--name", help="Run in the instance of that name, and leave it. Default: one of its own, which ends then."
)
@click.option(
    "-N",
    "--nodes",
    type=click.IntRange(min=1),
    help="Nodes; a MiniCluster that no config describes has as many pods. Default: wherever there is room.",
)
@click.option("-n", "--tasks", type=click.IntRange(min=1), help="Tasks. Default: one per node.")
@click.option(
    "-c",
    "--cores-per-task",
    type=click.IntRange(min=1),
    help="Cores of each task. Default: the config's, else 1.",
)
@click.option(
    "-g",
    "--gpus-per-task",
    type=click.IntRange(min=0),
    help="GPUs of each task. Default: the config's, else 0.",
)
@click.option(
    "-t",
    "--time-limit",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Seconds that the job may run, 0: no limit. Default: the config's, else no limit.",
)
@click.option("--cwd", metavar="DIR", help="Working directory. Default: this one on this machine, / elsewhere.")
@click.option(
    "--env",
    multiple=True,
    metavar="NAME=VALUE",
    callback=_pairs,
    help="Environment variable of the job. On this machine it has those of this command too.",
)
@click.option("-q", "--quiet", is_flag=True, help="Do not say which instance is used.")
@cluster_options
@click.argument("argv", nargs=-1, required=True)
@functools.partial(guarded, failed=RUN_FAILED, wrong=RUN_FAILED)
def run(
    name: str | None,
    nodes: int | None,
    tasks: int | None,
    cores_per_task: int | None,
    gpus_per_task: int | None,
    time_limit: float | None,
    cwd: str | None,
    env: dict[str, str],
    quiet: bool,
    argv: tuple[str, ...],
    **options: Any,
) -> None:
    """Run one command as a Flux job; its output and its exit code are this command's own.

    The options of this command come before ARGV; -- may stand between them. The job's stdin is empty: this command's
    own is not passed on. Ctrl-C cancels the job, a second one does not wait for it, a third one leaves at once.

    Exit codes: the job's own; 128+N after signal N; 124 at its time limit; 125 where it could not be run or was
    lost; 130 where it was cancelled.
    """
    request = JobRequest(
        argv=argv,
        name=os.path.basename(argv[0]),
        nodes=nodes,
        tasks=tasks or nodes or 1,
        cores_per_task=cores_per_task,
        gpus_per_task=gpus_per_task,
        duration=time_limit,
        cwd=os.path.abspath(cwd) if cwd else None,
        env=env,
        key=os.urandom(16).hex(),
        attributes=NO_INPUT,
    )
    make_item(request, Defaults(), Environments(None), "/")  # what is wrong is said before anything is started
    config = _with_nodes(config_of(options), nodes, name)
    run_id = RunId("cli", name) if name else RunId("cli-run", os.urandom(4).hex())
    session = open_session(run_id, config, announce=(lambda _: None) if quiet else say)
    try:
        [handle] = session.submit([request])
        with first_one_calls(lambda signum: handle.cancel(f"by {signum.name}")):
            _copy_until_unread(handle)
            result = handle.result()
    finally:
        session.close(release=not name)
    raise SystemExit(_exit_code(result))


def _with_nodes(config: RunConfig, nodes: int | None, name: str | None) -> RunConfig:
    """With a MiniCluster of so many pods, unless the config has one. Raises UsageError for one that is too small."""
    if nodes is None or config.run.provisioner not in ("direct", "operator"):
        return config
    if config.minicluster is None:
        return replace(config, minicluster=parse_spec(default_document(nodes)))
    if not name and config.minicluster.size < nodes:
        raise click.UsageError(
            f"-N {nodes}: the config's MiniCluster has minicluster.size {config.minicluster.size}; raise that"
        )
    return config


def _copy_until_unread(handle: JobHandle) -> None:
    """Raises OSError when the output can no longer be written; the job has ended then."""
    try:
        copy_output(handle.output)
    except OSError:
        handle.cancel("its output is not taken any more")
        handle.result()
        raise


def _exit_code(result: JobResult) -> int:
    if result.outcome is Outcome.COMPLETED:
        return 0
    if result.outcome is Outcome.FAILED and result.exception is None and result.returncode:
        return result.returncode
    say(f"flux-minicluster: the job {result.describe()}")
    match result.outcome:
        case Outcome.CANCELLED:
            return INTERRUPTED
        case Outcome.TIMEOUT:
            return TIMED_OUT
        case Outcome.FAILED | Outcome.SIGNALED:
            return result.returncode or RUN_FAILED
        case _:
            return RUN_FAILED


@click.command()
@instance_argument
@click.option("-a", "--all", "every", is_flag=True, help="Those that have ended, too.")
@cluster_options
@json_option
@guarded
def jobs(instance: str, every: bool, as_json: bool, **options: Any) -> None:
    """List the jobs of an instance."""
    with _joined(instance, options) as session:
        found = [job for job in session.request("list")["jobs"] if every or job["result"] is None]
    if as_json:
        print_json(found)
        return
    rows = []
    for job in found:
        result = JobResult.of(job["result"]) if job["result"] is not None else None
        code = "" if result is None or result.returncode is None else result.returncode
        rows.append((job["id"], job["name"], job["state"], result.outcome if result else "", code, job["node"] or ""))
    print_table(("JOB", "NAME", "STATE", "OUTCOME", "CODE", "NODE"), rows)


@click.command()
@instance_argument
@click.argument("job")
@cluster_options
@guarded
def logs(instance: str, job: str, **options: Any) -> None:
    """Print what a job has written, to stdout and stderr as it did, and follow it until its end.

    Not of jobs that write into files of their own, as those of Snakemake do.
    """
    with _joined(instance, options) as session:
        if not session.request("list", ids=[job])["jobs"]:
            raise AgentError("not-found", f"{job}: no such job; `flux-minicluster jobs -a {instance}` lists them")
        copy_output(lambda stream: session.output_of(job, stream))


@click.command()
@instance_argument
@click.argument("job_ids", nargs=-1, metavar="[JOB]...")
@click.option("-a", "--all", "every", is_flag=True, help="All active jobs.")
@cluster_options
@json_option
@guarded
def cancel(instance: str, job_ids: tuple[str, ...], every: bool, as_json: bool, **options: Any) -> None:
    """Cancel jobs. It does not wait for their end."""
    if bool(job_ids) == every:
        raise click.UsageError("give either job ids or --all")
    with _joined(instance, options) as session:
        ids = list(job_ids) or [job["id"] for job in session.request("list")["jobs"] if job["result"] is None]
        errors = session.request("cancel", ids=ids, note="cancelled by flux-minicluster")["errors"]
    if errors:
        raise AgentError("not-possible", "; ".join(f"{job}: {text}" for job, text in errors.items()))
    if as_json:
        print_json({"cancelled": ids})
    else:
        say(f"{len(ids)} job{'s' if len(ids) != 1 else ''} cancelled")


@contextlib.contextmanager
def _joined(given: str, options: Any) -> Iterator[Session]:
    config = config_of(options)
    found = find(config, given)
    session = join_session(found.name, own_config(config, found))
    try:
        yield session
    finally:
        session.close(release=False)


COMMANDS: Sequence[click.Command] = (run, jobs, logs, cancel)
