"""The ways in which a session is started and shared, and what becomes of it."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
from pathlib import Path

import pytest

from tests import cli_runs
from tests.nextflow.pipelines import Process
from tests.nextflow.runs import LIMIT, Run, Runner, wait_until

pytestmark = pytest.mark.timeout(300)


def in_a_shell(runner: Runner, script: str) -> subprocess.Popen[str]:
    """A terminal's shell of its own, with flux-minicluster on its PATH."""
    runner.directory.mkdir(parents=True, exist_ok=True)
    minicluster = shlex.join(cli_runs.COMMAND)
    text = f'minicluster() {{ {minicluster} "$@"; }}\n{script}'
    return subprocess.Popen(
        ["bash", "-c", text], cwd=runner.directory, env=runner.environ,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> str:
    try:
        out, _ = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return out


def test_a_shell_may_have_the_command_and_ends_it_by_down(runner: Runner) -> None:
    argv = shlex.join(runner_command(runner, [Process("HELLO", "true", count=2)]))
    process = in_a_shell(
        runner,
        f'eval "$(minicluster nextflow --env --name shell)"\n{argv} || echo failed\n{argv} || echo failed\n'
        "command -v flux; minicluster down shell; sleep 1; ls $FLUXOP_NEXTFLOW 2>&1",
    )
    out = finish(process)
    assert "failed" not in out and re.search(r"/bin/flux$", out, re.M), out
    assert "is gone" in out and "No such file" in out, out
    run = Run(process, runner.directory, runner.nextflow is not None, runner.runtime)  # type: ignore[arg-type]
    assert [row.status for row in run.rows] == ["COMPLETED"] * 2
    wait_until(lambda: not run.left(), 20.0)


def test_a_session_of_a_shell_ends_with_the_terminal(runner: Runner) -> None:
    process = in_a_shell(runner, 'eval "$(minicluster nextflow --env)"; ls $FLUXOP_NEXTFLOW/bin')
    assert "flux" in finish(process)
    run = Run(process, runner.directory, False, runner.runtime)  # type: ignore[arg-type]
    wait_until(lambda: not run.left(), 20.0)


def test_runs_share_a_session_if_asked(tmp_path: Path, runner: Runner) -> None:
    first = runner.start([Process("ONE", "sleep 4")], options=("--name", "both"))
    first.session()
    runner.directory = tmp_path / "other"
    second = runner.start([Process("TWO", "sleep 1")], options=("--name", "both"))
    assert second.wait() == 0 and first.wait() == 0, first.output + second.output
    assert "which is there" in first.output + second.output
    wait_until(lambda: not first.left(), 10.0)


def test_in_an_allocation_the_instance_that_is_there_is_used(runner: Runner) -> None:
    if runner.engine == "embedded":
        pytest.skip("FLUX_URI is Flux's")
    runner.directory.mkdir(parents=True, exist_ok=True)
    argv = [*cli_runs.COMMAND, "nextflow", "--", *runner_command(runner, [Process("HELLO", "hostname", count=3)])]
    done = subprocess.run(
        ["flux", "start", "sh", "-c", f"{shlex.join(argv)}; echo code $?; flux jobs -a -no '{{name}} {{status}}'"],
        cwd=runner.directory, env=runner.environ, capture_output=True, text=True, check=False, timeout=LIMIT,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert "code 0" in done.stdout, done.stdout + done.stderr
    assert "provisioner: attach" in done.stderr
    assert done.stdout.count("nf-HELLO") == 3 and done.stdout.count("COMPLETED") == 3


def test_nextflow_in_the_background_keeps_its_session(runner: Runner) -> None:
    script = "sleep 4; touch ../../../done.$index"
    argv = runner_command(runner, [Process("LATER", script, count=2)])
    runner.directory.mkdir(parents=True, exist_ok=True)
    if runner.nextflow is None:
        argv = ["sh", "-c", f"{shlex.join(argv)} < /dev/null > /dev/null 2>&1 &"]
    else:
        argv.insert(1, "-bg")
    process = in_a_shell(runner, f"minicluster nextflow -- {shlex.join(argv)} > said 2>&1; cat said")
    assert "in the background" in finish(process)
    run = Run(process, runner.directory, runner.nextflow is not None, runner.runtime)  # type: ignore[arg-type]
    wait_until(lambda: len(list(runner.directory.glob("done.*"))) == 2, LIMIT)
    wait_until(lambda: not run.left(), 60.0)
    assert [row.status for row in run.rows] == ["COMPLETED"] * 2


@pytest.mark.parametrize("parser", ["v1", "v2"])
def test_nextflow_takes_our_configuration_without_a_word_and_resumes(runner: Runner, parser: str) -> None:
    if runner.nextflow is None:
        pytest.skip("the stand-in has no configuration")
    runner.environ["NXF_SYNTAX_PARSER"] = parser
    run = runner([Process("ASKS", "true", cpus=2, memory=100, time=70)])
    assert run.process.returncode == 0 and "WARN" not in run.output, run.output
    assert run.efficiency()[0]["mem_asked_mb"] == "100" and "whole minutes" not in run.log()
    again = runner([Process("ASKS", "true", cpus=2, memory=100, time=70)], "-resume")
    assert [row.status for row in again.rows] == ["CACHED"], again.output


def test_a_task_that_waits_and_is_cancelled_from_outside_is_143(runner: Runner) -> None:
    name = ("--name", "outside")
    script = "while [ ! -e ../../../go ]; do sleep 0.2; done"
    run = runner.start([Process("HOLDS", script, cpus=os.cpu_count() or 1, count=2, retries=0)], options=name)
    cli = cli_runs.Cli(runner.runtime, runner.environ)
    wait_until(lambda: run.jobs())
    waiting: list[str] = []

    def one_waits() -> bool:
        found = cli("jobs", "outside", "--json").json
        waiting[:] = [job["id"] for job in found if job["state"] not in ("RUN", "CLEANUP", "INACTIVE")]
        return bool(waiting)

    wait_until(one_waits)
    cli("cancel", "outside", *waiting)
    (runner.directory / "go").touch()
    assert run.wait() == 1
    assert [row.exit for row in run.rows if row.status == "FAILED"] == [143], run.output
    assert "was cancelled" in next(row for row in run.rows if row.exit == 143).text(".command.log")


def test_a_run_that_is_interrupted_while_it_starts_leaves_nothing(runner: Runner) -> None:
    run = runner.start([Process("NEVER", "true")])
    wait_until(lambda: run.of_kind("executors.flux_command", "serve"))
    run.process.terminate()
    assert run.wait() != 0
    wait_until(lambda: not run.left(), 30.0)


def test_a_command_that_is_not_there_is_said_and_starts_nothing(runner: Runner) -> None:
    cli = cli_runs.Cli(runner.runtime, runner.environ)
    done = cli("nextflow", "--", "no-such-nextflow", "run", "x", code=127)
    assert "no-such-nextflow: no such program" in done.err and "provisioner" not in done.err
    assert cli("nextflow", code=2).err and "jobName" in cli("nextflow", "--print-config").out


def test_the_exit_code_is_that_of_the_command(runner: Runner) -> None:
    cli = cli_runs.Cli(runner.runtime, runner.environ)
    assert cli("nextflow", "-q", "--", "sh", "-c", "exit 5", code=5).err == ""
    assert cli("nextflow", "-q", "--", "sh", "-c", "kill -9 $$", code=137).out == ""


def runner_command(runner: Runner, processes: list[Process]) -> list[str]:
    runner.directory.mkdir(parents=True, exist_ok=True)
    return runner.command(processes)
