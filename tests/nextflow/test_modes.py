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
    assert "using the running session of" in first.output + second.output
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


def with_two_gpus(runner: Runner, processes: list[Process]) -> tuple[Run, str]:
    """A run in an instance whose configuration says that there are two GPUs; and its output."""
    if runner.engine == "embedded":
        pytest.skip("the embedded engine finds its GPUs by the machine's devices, and there are none")
    argv = [*cli_runs.COMMAND, "nextflow", "--", *runner_command(runner, processes)]
    conf = runner.directory / "conf"
    conf.mkdir()
    found = f'hosts = "{os.uname().nodename}"\ncores = "0-3"\ngpus = "0-1"\n'
    (conf / "resource.toml").write_text(f"[resource]\nnoverify = true\n[[resource.config]]\n{found}")
    done = subprocess.run(
        ["flux", "start", f"--config-path={conf}", *argv], cwd=runner.directory, env=runner.environ,
        capture_output=True, text=True, check=False, timeout=LIMIT, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    run = Run(done, runner.directory, runner.nextflow is not None, runner.runtime)  # type: ignore[arg-type]
    return run, done.stdout + done.stderr


def test_accelerators_are_gpus_of_the_instance(runner: Runner) -> None:
    # Both at once, so that each has one of its own.
    other = "../../../on.$((3 - index))"
    script = f"echo $CUDA_VISIBLE_DEVICES; touch ../../../on.$index; while [ ! -e {other} ]; do sleep 0.1; done"
    run, output = with_two_gpus(runner, [Process("GPU", script, accelerator=1, count=2)])
    assert sorted(row.text(".command.out").strip() for row in run.rows) == ["0", "1"], output


def test_more_accelerators_than_a_node_has_are_refused(runner: Runner) -> None:
    _, output = with_two_gpus(runner, [Process("MANY", "true", accelerator=3)])
    assert "accelerator 3: the largest node has 2 GPUs" in output


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


@pytest.mark.parametrize(
    ("said", "known"),
    [
        ("", "capacity: 1000; pollInterval: 1s;"),
        ("executor { queueSize = 7; pollInterval = '3 sec' }", "capacity: 7; pollInterval: 3s;"),
    ],
)
def test_nextflow_has_many_tasks_in_the_instance_and_polls_often_unless_the_user_says_otherwise(
    runner: Runner, said: str, known: str
) -> None:
    if runner.nextflow is None:
        pytest.skip("the stand-in has no configuration")
    argv = runner_command(runner, [Process("ASKS", "true")])
    with (runner.directory / "nextflow.config").open("a") as config:
        config.write(f"{said}\n")
    cli = cli_runs.Cli(runner.directory, runner.environ)
    cli("nextflow", "-q", "--", *argv)
    log = (runner.directory / ".nextflow.log").read_text()
    assert known in log, [line for line in log.splitlines() if "capacity" in line]


def test_a_nextflow_that_a_script_starts_by_its_path_polls_each_second(runner: Runner) -> None:
    if runner.nextflow is None:
        pytest.skip("the stand-in has no configuration")
    argv = runner_command(runner, [Process("ASKS", "true")])
    cli_runs.Cli(runner.directory, runner.environ)("nextflow", "-q", "--", "sh", "-c", shlex.join(argv))
    log = (runner.directory / ".nextflow.log").read_text()
    assert "capacity: 1000; pollInterval: 1s;" in log, log[-4000:]


def test_an_error_strategy_may_assert_that_there_is_an_exit_status(runner: Runner) -> None:
    if runner.nextflow is None:
        pytest.skip("the stand-in has no closures")
    argv = runner_command(runner, [Process("ASKS", "exit 3", strategy="ignore")])
    main = runner.directory / "main.nf"
    main.write_text(main.read_text().replace("errorStrategy {", "errorStrategy { assert task.exitStatus == 3;"))
    cli_runs.Cli(runner.directory, runner.environ)("nextflow", "-q", "--", *argv)
    trace = (runner.directory / "trace.tsv").read_text()
    assert "ASKS (1)\tFAILED\t3\t" in trace, trace


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
    assert "as in: -- nextflow run 'a b.nf' -resume" in cli("nextflow", "--", "a b.nf", "-resume", code=127).err
    assert "as in: -- nextflow run x" in cli("nextflow", "--", "run", "x", code=127).err
    assert cli("nextflow", code=2).err and "jobName" in cli("nextflow", "--print-config").out


def test_a_place_that_cannot_be_written_to_is_said_with_the_cure(tmp_path: Path, runner: Runner) -> None:
    cli = cli_runs.Cli(runner.runtime, {**runner.environ, "FLUX_OPERATOR_RUNTIME_DIR": "/proc/self"})
    assert "set FLUX_OPERATOR_RUNTIME_DIR to a short directory" in cli("nextflow", "--", "true", code=1).err
    (tmp_path / ".nextflow").touch()
    argv = [*cli_runs.COMMAND, "nextflow", "--", "true"]
    done = subprocess.run(
        argv, cwd=tmp_path, env=runner.environ, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )
    assert done.returncode == 1 and "start Nextflow in a directory that you may write to" in done.stderr
    assert not list(runner.runtime.glob("fluxop*"))


def test_the_exit_code_is_that_of_the_command(runner: Runner) -> None:
    cli = cli_runs.Cli(runner.runtime, runner.environ)
    assert cli("nextflow", "-q", "--", "sh", "-c", "exit 5", code=5).err == ""
    assert cli("nextflow", "-q", "--", "sh", "-c", "kill -9 $$", code=137).out == ""


def runner_command(runner: Runner, processes: list[Process]) -> list[str]:
    runner.directory.mkdir(parents=True, exist_ok=True)
    return runner.command(processes)
