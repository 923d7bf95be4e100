"""Commands for jobs."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

import click

from executors.cli.common import (
    INTERRUPTED,
    RUN_FAILED,
    TIMED_OUT,
    Duration,
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
from executors.config import ORPHAN_TIMEOUT_ALONE, RunConfig
from executors.errors import AgentError
from executors.job import NO_INPUT, Defaults, Environments, JobRequest, prepare_submission
from executors.names import RunId
from executors.provision.choice import choose_provisioner
from executors.provision.inventory import own_config
from executors.results import JobInfo, JobResult, Outcome
from executors.session import JobHandle, Session, join_session, open_session
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
    "--name", help="Run in the instance of this name, and keep it. Default: a new instance, which ends with the job."
)
@click.option(
    "-N",
    "--nodes",
    type=click.IntRange(min=1),
    help="Nodes. Without a MiniCluster in the config, this is its number of pods too. Default: any nodes with room.",
)
@click.option("-n", "--tasks", type=click.IntRange(min=1), help="Tasks. Default: one per node.")
@click.option(
    "-c",
    "--cores-per-task",
    type=click.IntRange(min=1),
    help="Cores of each task. Default: from the config, else 1.",
)
@click.option(
    "-g",
    "--gpus-per-task",
    type=click.IntRange(min=0),
    help="GPUs of each task. Default: from the config, else 0.",
)
@click.option(
    "-t",
    "--time-limit",
    type=Duration(),
    metavar="SECONDS",
    help="Time limit of the job, or with a unit, like 5m; 0: none. Default: from the config, else none.",
)
@click.option("--cwd", metavar="DIR", help="Working directory. Default: the current directory on this machine, else /.")
@click.option(
    "--env",
    multiple=True,
    metavar="NAME=VALUE",
    callback=_pairs,
    help="Environment variable of the job. On this machine, the job also inherits yours.",
)
@click.option("-q", "--quiet", is_flag=True, help="Do not print which instance is used.")
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
    """Run one command as a Flux job.

    Output and exit code are those of the job. Options come before ARGV; you may put -- between them. The job's stdin is
    empty. Ctrl-C cancels the job and waits for its end. A second Ctrl-C does not wait for the job, a third exits at
    once.

    Exit codes: that of the job; 128+N if signal N ended it; 124 at its time limit; 125 if it could not run or was
    lost; 130 if it was cancelled.
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
    # What is wrong is said before anything is started.
    prepare_submission(request, Defaults(), Environments(None), "/")
    config = _with_nodes(config_of(options), nodes, name)
    if cwd and choose_provisioner(config, os.environ).name == "local" and not os.path.isdir(cwd):
        raise click.UsageError(f"--cwd {cwd}: there is no such directory on this machine")
    run_id = RunId("cli", name) if name else RunId("cli-run", os.urandom(4).hex())
    on_kubernetes = config.run.provisioner in ("direct", "operator")
    if not name and not on_kubernetes:  # where a network may be cut between
        config = config.with_default("run.orphanTimeout", ORPHAN_TIMEOUT_ALONE)
    session = open_session(run_id, config, report_progress=(lambda _: None) if quiet else say)
    try:
        handle = session.submit_one(request)
        with first_one_calls(lambda signum: handle.cancel(f"by {signum.name}")):
            _copy_until_unread(handle)
            result = handle.result()
    finally:
        if name:
            session.leave()
        else:
            session.release()
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
        handle.cancel("nobody reads its output any more")
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
            say("flux-minicluster: give a higher --time-limit, or jobDefaults.duration in the config")
            return TIMED_OUT
        case Outcome.FAILED | Outcome.SIGNALED:
            return result.returncode or RUN_FAILED
        case _:
            return RUN_FAILED


@click.command()
@instance_argument
@click.option("-a", "--all", "every", is_flag=True, help="Also list jobs that have ended.")
@cluster_options
@json_option
@guarded
def jobs(instance: str, every: bool, as_json: bool, **options: Any) -> None:
    """List the jobs of an instance."""
    with _joined(instance, options) as session:
        listed = [job for job in session.jobs() if every or job.result is None]
    if as_json:
        print_json([_as_json(job) for job in listed])
        return
    rows = []
    for job in listed:
        result = job.result
        code = "" if result is None or result.returncode is None else result.returncode
        rows.append((job.id, job.name, job.state, result.outcome if result else "", code, job.node))
    print_table(("JOB", "NAME", "STATE", "OUTCOME", "CODE", "NODE"), rows)


@click.command()
@instance_argument
@click.argument("job")
@cluster_options
@guarded
def logs(instance: str, job: str, **options: Any) -> None:
    """Print the output of a job, and follow it until the job ends.

    Its stdout goes to stdout, its stderr to stderr. Output that a job writes to files of its own, as Snakemake's jobs
    do, is not shown.
    """
    with _joined(instance, options) as session:
        if not session.jobs(ids=[job]):
            raise AgentError("not-found", f"{job}: no such job; `flux-minicluster jobs -a {instance}` lists them")
        copy_output(lambda stream: session.output_of(job, stream))


@click.command()
@instance_argument
@click.argument("job_ids", nargs=-1, metavar="[JOB]...")
@click.option("-a", "--all", "every", is_flag=True, help="Cancel all active jobs.")
@cluster_options
@json_option
@guarded
def cancel(instance: str, job_ids: tuple[str, ...], every: bool, as_json: bool, **options: Any) -> None:
    """Cancel jobs, without waiting for their end."""
    if bool(job_ids) == every:
        raise click.UsageError("give either job ids or --all")
    with _joined(instance, options) as session:
        known = session.jobs(ids=job_ids or None)
        ended = [job.id for job in known if job_ids and job.result is not None]
        unknown = set(job_ids) - {job.id for job in known}  # which is said by the agent
        ids = [*(job.id for job in known if job.result is None), *sorted(unknown)]
        errors = session.cancel_ids(ids, "cancelled by flux-minicluster")
    ids = [job for job in ids if job not in errors]
    if as_json and not errors:
        print_json({"cancelled": ids})
    else:
        for job in ended:
            say(f"{job}: it had ended already")
        say(
            f"{len(ids)} job{'s' if len(ids) != 1 else ''} cancelled{': ' if errors and ids else ''}"
            f"{', '.join(ids) if errors else ''}"
        )
    if errors:
        raise AgentError("not-possible", "; ".join(f"{job}: {text}" for job, text in errors.items()))


@contextlib.contextmanager
def _joined(given: str, options: Any) -> Iterator[Session]:
    config = config_of(options)
    found = find(config, given)
    with join_session(found.name, own_config(config, found)) as session:
        yield session


def _as_json(job: JobInfo) -> dict[str, Any]:
    """The form of `jobs --json`, whose fields scripts know by these names."""
    fields = asdict(job)
    return {"acked": fields.pop("acknowledged"), "place": fields.pop("bookmark"), **fields}


COMMANDS: Sequence[click.Command] = (run, jobs, logs, cancel)
