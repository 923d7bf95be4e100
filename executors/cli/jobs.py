"""Commands for jobs."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import click

from executors.cli.common import (
    RUN_FAILED,
    cluster_options,
    config_of,
    find,
    guarded,
    json_option,
    print_json,
    print_table,
    say,
    with_provisioner,
)
from executors.errors import RequestError
from executors.job import JobRequest
from executors.names import RunId
from executors.results import JobResult, Outcome
from executors.session import JobHandle, Session, join_session, open_session


@click.command(context_settings={"ignore_unknown_options": True})
@click.option(
    "--name", help="Run in the instance of that name, and leave it. Default: one of its own, which ends then."
)
@click.option("-N", "--nodes", type=click.IntRange(min=1), help="Nodes.")
@click.option("-n", "--tasks", type=click.IntRange(min=1), help="Tasks. Default: one per node.")
@click.option("-c", "--cores-per-task", type=click.IntRange(min=1), help="Cores of each task.")
@click.option("-g", "--gpus-per-task", type=click.IntRange(min=0), help="GPUs of each task.")
@click.option("-t", "--time-limit", type=float, metavar="SECONDS", help="Time limit. Default: none.")
@click.option("--cwd", help="Working directory. Default: this one on this machine, / elsewhere.")
@click.option("--env", multiple=True, metavar="NAME=VALUE", help="Environment variable of the job.")
@cluster_options
@click.argument("argv", nargs=-1, required=True)
@functools.partial(guarded, failed=RUN_FAILED)
def run(
    name: str | None,
    nodes: int | None,
    tasks: int | None,
    cores_per_task: int | None,
    gpus_per_task: int | None,
    time_limit: float | None,
    cwd: str | None,
    env: tuple[str, ...],
    argv: tuple[str, ...],
    **options: Any,
) -> None:
    """Run one command as a Flux job; its output and its exit code are this command's own."""
    pairs = dict(word.partition("=")[::2] for word in env)
    request = JobRequest(
        argv=argv,
        nodes=nodes,
        tasks=tasks or nodes or 1,
        cores_per_task=cores_per_task,
        gpus_per_task=gpus_per_task,
        duration=time_limit,
        cwd=cwd,
        env=pairs,
        key=os.urandom(16).hex(),
    )
    run_id = RunId("cli", name) if name is not None else RunId("cli-run", os.urandom(4).hex())
    session = open_session(run_id, config_of(options), announce=say)
    try:
        [handle] = session.submit([request])
        with _cancelled_by_signals(handle):
            _copy_output(handle)
            result = handle.result()
    finally:
        session.close(release=name is None)
    raise SystemExit(_exit_code(result))


@contextlib.contextmanager
def _cancelled_by_signals(handle: JobHandle) -> Iterator[None]:
    def cancel(signum: int, _frame: object) -> None:
        handle.cancel(f"got {signal.Signals(signum).name}")

    before = {signum: signal.signal(signum, cancel) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _copy_output(handle: JobHandle) -> None:
    def copy(stream: str, target: int) -> None:
        for piece in handle.output(stream):
            view = memoryview(piece)
            while view:
                view = view[os.write(target, view) :]

    sys.stdout.flush()
    errors = threading.Thread(target=copy, args=("stderr", 2), daemon=True)
    errors.start()
    copy("stdout", 1)
    errors.join()


def _exit_code(result: JobResult) -> int:
    if result.outcome is Outcome.COMPLETED:
        return 0
    if result.outcome is Outcome.FAILED and result.exception is None and result.returncode:
        return result.returncode
    say(f"flux-minicluster: the job {result.describe()}")
    if result.outcome is Outcome.CANCELLED:
        return 130
    return result.returncode or RUN_FAILED


@click.command()
@click.argument("instance")
@click.option("--all", "-a", "every", is_flag=True, help="Those that have ended, too.")
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
        rows.append(
            (job["id"], job["name"], job["state"], result.outcome if result else "", result.node if result else "")
        )
    print_table(("JOB", "NAME", "STATE", "OUTCOME", "NODE"), rows)


@click.command()
@click.argument("instance")
@click.argument("job")
@click.option("--stderr", "stream", flag_value="stderr", help="stderr instead of stdout.")
@cluster_options
@guarded
def logs(instance: str, job: str, stream: str | None, **options: Any) -> None:
    """Print what a job has written, and follow it until its end. (Not of jobs that write into files of their own.)"""
    with _joined(instance, options) as session:
        for piece in session.output_of(job, stream or "stdout"):
            sys.stdout.buffer.write(piece)
            sys.stdout.flush()


@click.command()
@click.argument("instance")
@click.argument("job_ids", nargs=-1, metavar="[JOB]...")
@click.option("--all", "-a", "every", is_flag=True, help="All active jobs.")
@cluster_options
@guarded
def cancel(instance: str, job_ids: tuple[str, ...], every: bool, **options: Any) -> None:
    """Cancel jobs."""
    if bool(job_ids) == every:
        raise RequestError(["give either job ids or --all"])
    with _joined(instance, options) as session:
        ids = list(job_ids) or [job["id"] for job in session.request("list")["jobs"] if job["result"] is None]
        errors = session.request("cancel", ids=ids, note="cancelled by flux-minicluster")["errors"]
    if errors:
        raise RequestError([f"{job}: {text}" for job, text in errors.items()])
    say(f"{len(ids)} job{'s' if len(ids) != 1 else ''} cancelled")


@contextlib.contextmanager
def _joined(instance: str, options: Any) -> Iterator[Session]:
    config = config_of(options)
    found = find(config, instance)
    session = join_session(found.name, with_provisioner(config, found.provisioner))
    try:
        yield session
    finally:
        session.close(release=False)


COMMANDS: Sequence[click.Command] = (run, jobs, logs, cancel)
