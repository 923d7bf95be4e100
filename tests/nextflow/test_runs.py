"""What a user of Nextflow sees of the command ``flux``: tasks that end, in every way that they can."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.nextflow.pipelines import Process, Row
from tests.nextflow.runs import Run, Runner, interrupt_group, wait_until
from tests.processes import alive

pytestmark = pytest.mark.timeout(300)

#: Ends the wrapper itself as the kernel does where memory runs out.
KILL_WRAPPER = """
pid=$$
while [ "$pid" -gt 1 ]; do
    case $(tr '\\0' ' ' < /proc/$pid/cmdline) in /bin/bash*.command.run*) wrappers="$pid ${wrappers:-}" ;; esac
    pid=$(ps -o ppid= -p $pid | tr -d ' ')
done
kill -9 ${wrappers:-}
sleep 30
"""


def tries(rows: list[Row]) -> list[tuple[int, str, int | None]]:
    return sorted((row.attempt, row.status, row.exit) for row in rows)


def test_tasks_complete_and_the_table_tells_what_they_used(runner: Runner) -> None:
    run = runner([Process("HELLO", "echo hello $index; echo oops >&2", count=3, memory=100)])
    assert run.process.returncode == 0, run.output
    assert [(row.status, row.exit) for row in run.rows] == [("COMPLETED", 0)] * 3
    for row in run.rows:
        assert row.native_id.startswith("f") and row.text(".command.out").startswith("hello")
        assert row.text(".exitcode") == "0" and "flux:" not in row.text(".command.log")
    table = run.efficiency()
    assert {row["job"] for row in table} == {row.native_id for row in run.rows}
    assert {row["mem_asked_mb"] for row in table} == {"100"} and "3 tasks" in run.output


def test_a_task_over_its_limit_is_143_is_said_so_and_is_tried_again(runner: Runner) -> None:
    run = runner([Process("OVER", "test $attempt = 2 || sleep 100", time=2)])
    assert run.process.returncode == 0, run.output
    assert tries(run.rows) == [(1, "FAILED", 143), (2, "COMPLETED", 0)]
    first = next(row for row in run.rows if row.attempt == 1)
    assert "time limit of 2 s reached" in first.text(".command.log")


def test_a_task_that_ignores_its_limit_is_killed(runner: Runner) -> None:
    script = "trap '' TERM; for i in $(seq 300); do sleep 0.2 || true; done"
    run = runner([Process("STUBBORN", script, time=2, retries=0, strategy="ignore")])
    assert [(row.status, row.exit) for row in run.rows] == [("FAILED", 143)], run.output
    assert "time limit of 2 s reached" in run.rows[0].text(".command.log")


def test_a_task_is_ended_where_there_is_no_ps(tmp_path: Path, runner: Runner) -> None:
    """By which a wrapper finds what it has started, to pass TERM on."""
    if runner.nextflow is not None:
        pytest.skip("a real Nextflow that writes a trace, as here, needs ps itself")
    tools = tmp_path / "tools"
    tools.mkdir()
    for place in reversed(runner.environ["PATH"].split(":")):
        for program in Path(place).iterdir() if os.path.isdir(place) else ():
            if program.name != "ps" and os.access(program, os.X_OK):
                (tools / program.name).unlink(missing_ok=True)
                (tools / program.name).symlink_to(program)
    runner.environ["PATH"] = str(tools)
    script = "command -v ps && exit 3; sh -c 'echo $$ > ../../../pid; sleep 300'; true"
    run = runner([Process("OVER", script, time=2, retries=0, strategy="ignore")])
    assert [(row.status, row.exit) for row in run.rows] == [("FAILED", 143)], run.output
    assert not alive(int((runner.directory / "pid").read_text()))


def test_what_ignores_the_limit_is_gone_while_the_run_goes_on(runner: Runner) -> None:
    stubborn = "trap '' TERM; echo $$ > ../../../pid; for i in $(seq 300); do sleep 0.2 || true; done"
    waits = "while [ ! -e ../../../go ]; do sleep 0.2; done"
    processes = [Process("STUBBORN", stubborn, time=2, retries=0, strategy="ignore"), Process("WAITS", waits)]
    run = runner.start(processes)
    file = runner.directory / "pid"
    wait_until(lambda: file.exists() and file.read_text().strip())
    wait_until(lambda: not alive(int(file.read_text())), 30.0)
    assert run.process.poll() is None
    (runner.directory / "go").touch()
    assert run.wait() == 0, run.output


def test_a_wrapper_that_is_killed_is_137_and_is_tried_again(runner: Runner) -> None:
    run = runner([Process("KILLED", f"test $attempt = 1 || exit 0\n{KILL_WRAPPER}")])
    assert run.process.returncode == 0, run.output
    assert tries(run.rows) == [(1, "FAILED", 137), (2, "COMPLETED", 0)]
    assert "signal 9" in next(row for row in run.rows if row.attempt == 1).text(".command.log")


def test_a_failing_task_keeps_its_own_status_and_ends_the_others(runner: Runner) -> None:
    run = runner([Process("FAILS", "sleep 1; exit 7"), Process("LONG", "sleep 100")])
    assert run.process.returncode == 1
    assert [(row.status, row.exit) for row in run.rows if row.name.startswith("FAILS")] == [("FAILED", 7)]


def test_names_and_directories_may_hold_anything(tmp_path: Path, runner: Runner) -> None:
    runner.directory = tmp_path / "a work 'dir' (é)"
    run = runner([Process("NAMED", "echo $PWD", tag='it\'s "ça" & more')])
    assert run.process.returncode == 0, run.output
    assert run.rows[0].text(".command.out").strip() == str(run.rows[0].workdir)
    assert run.efficiency()[0]["task"].endswith('it\'s "ça" & more)')


@pytest.mark.parametrize(
    ("process", "words"),
    [
        (Process("WIDE", "true", cpus=4000), ["4000", "the largest node has"]),
        (Process("BIG", "true", memory=2**30), ["memory", "the largest node has", "resourceLimits"]),
        (Process("WORDS", "true", cluster_options='--env=A="x y"'), ["clusterOptions", "y"]),
        (Process("NODES", "true", cluster_options="--nodes=3"), ["clusterOptions", "--nodes=3"]),
        (Process("QUEUED", "true", queue="nowhere"), ["nowhere", "queue"]),
    ],
)
def test_what_can_never_run_is_refused_at_once_with_the_reason(
    runner: Runner, process: Process, words: list[str]
) -> None:
    run = runner([process])
    assert run.process.returncode == 1
    for word in words:
        assert word in run.output


def test_a_run_goes_on_without_tasks_that_can_never_run_if_it_ignores_that(runner: Runner) -> None:
    never = {
        "the largest node has": Process("WIDE", "true", cpus=4000, strategy="ignore"),
        "clusterOptions": Process("WORDS", "true", cluster_options='--env=A="x y"', strategy="ignore"),
        "nowhere": Process("QUEUED", "true", queue="nowhere", strategy="ignore"),
    }
    run = runner([*never.values(), Process("OTHER", "true")])
    assert run.process.returncode == 0, run.output
    table = {row["job"] for row in run.efficiency()}
    for word, process in never.items():
        [row] = [row for row in run.rows if row.name.startswith(process.name)]
        assert (row.status, row.exit) == ("FAILED", 1) and word in row.text(".command.log")
        assert row.native_id not in table
    assert len(table) == 1


def test_words_for_slurm_are_taken_or_named(runner: Runner) -> None:
    options = "--account=me --qos=low --mem=200M --time-limit=2s"
    run = runner([Process("SLURM", "sleep 60", cluster_options=options, retries=0, strategy="ignore")])
    assert [row.exit for row in run.rows] == [143], run.output
    assert "--qos=low" in run.log()
    assert run.efficiency()[0]["mem_asked_mb"] == "200"


def test_tasks_see_the_tools_of_the_launching_shell_and_nothing_of_ours(runner: Runner) -> None:
    runner.environ.update(MY_TOOL="here", FLUX_FOO="there", NXF_OPTS="-Xmx500m")
    run = runner([Process("ENV", "env", count=1)])
    seen = dict(line.split("=", 1) for line in run.rows[0].text(".command.out").splitlines() if "=" in line)
    assert seen["MY_TOOL"] == "here" and "FLUX_FOO" not in seen and "NXF_OPTS" not in seen
    assert seen["PATH"].endswith(runner.environ["PATH"]) and "/bin/flux" not in seen["PATH"]
    assert not any((Path(one) / "nextflow").exists() for one in seen["PATH"].split(":") if "fluxop-nf" in one)


def test_many_tasks_and_no_more_at_once_than_allowed(runner: Runner) -> None:
    script = "cd ../../..; mkdir -p seen; ls seen | wc -l; touch seen/$index; sleep 0.05; rm seen/$index"
    run = runner([Process("MANY", "true", count=188), Process("FEW", script, count=12, max_forks=2)])
    assert run.process.returncode == 0, run.output
    assert len(run.rows) == 200
    few = [row for row in run.rows if row.name.startswith("FEW")]
    assert max(int(row.text(".command.out")) for row in few) <= 1


# -- ends


def start_long(runner: Runner) -> Run:
    run = runner.start([Process("LONG", "echo $$ > ../../../pid.$index; sleep 300", count=2)])
    wait_until(lambda: len(list(runner.directory.glob("pid.*"))) == 2 or run.process.poll() is not None)
    assert run.process.poll() is None, run.output
    return run


def nothing_is_left(run: Run) -> None:
    wait_until(lambda: not run.jobs(), 5.0)
    wait_until(lambda: not run.left(), 20.0)


def test_ctrl_c_ends_tasks_instance_and_session(runner: Runner) -> None:
    run = start_long(runner)
    interrupt_group(run)
    nothing_is_left(run)


def test_sigterm_ends_tasks_instance_and_session(runner: Runner) -> None:
    run = start_long(runner)
    run.process.terminate()
    nothing_is_left(run)


def test_a_killed_nextflow_leaves_nothing(runner: Runner) -> None:
    run = start_long(runner)
    run.engine().kill()
    nothing_is_left(run)


def test_everything_but_the_session_killed_leaves_nothing(runner: Runner) -> None:
    run = start_long(runner)
    run.process.kill()
    run.engine().kill()
    run.process.wait()
    nothing_is_left(run)


def test_a_killed_session_ends_the_run_with_the_reason(runner: Runner) -> None:
    run = start_long(runner)
    run.session().kill()
    assert run.wait() != 0
    nothing_is_left(run)
    rows = run.rows
    assert 143 in {row.exit for row in rows}
    assert any("ended unexpectedly" in row.text(".command.log") for row in rows)


def test_a_stopped_session_is_waited_for(runner: Runner) -> None:
    run = runner.start([Process("SLOW", "sleep 1", count=3)])
    session = run.session()
    wait_until(lambda: run.jobs())
    session.suspend()
    time.sleep(2)
    session.resume()
    assert run.wait() == 0, run.output
    assert not run.left()


def test_tasks_live_on_if_nextflow_is_told_so(runner: Runner) -> None:
    runner.environ["NXF_DISABLE_JOBS_CANCELLATION"] = "true"
    script = "touch ../../../begun.$index; sleep 5; touch ../../../done.$index"
    run = runner.start([Process("STAYS", script, count=2)])
    wait_until(lambda: len(list(runner.directory.glob("begun.*"))) == 2)
    run.engine().kill()
    wait_until(lambda: len(list(runner.directory.glob("done.*"))) == 2)
    wait_until(lambda: not run.left(), 30.0)
    assert "in the background" in run.output


def test_a_command_of_ours_is_not_ended_by_ctrl_c(runner: Runner) -> None:
    run = start_long(runner)
    session = run.session()
    session.suspend()
    [command] = runner.runtime.glob("fluxop-nf-*/bin/flux")
    words = ["jobs", "--suppress-header", "--format={id.f58} {status_abbrev}", "--since=-15m"]
    asking = subprocess.Popen([str(command), *words], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
    time.sleep(1)
    asking.send_signal(signal.SIGINT)
    time.sleep(0.5)
    session.resume()
    out, _ = asking.communicate(timeout=30)
    assert asking.returncode == 0 and out.count(" R\n") == 2, out
    interrupt_group(run)
    nothing_is_left(run)


def test_two_runs_have_a_session_each(tmp_path: Path, runner: Runner) -> None:
    first = runner.start([Process("ONE", "sleep 3")])
    runner.directory = tmp_path / "other"
    second = runner.start([Process("TWO", "sleep 3")])
    assert first.wait() == 0 and second.wait() == 0, first.output + second.output
    assert [row.name[:3] for row in first.rows] == ["ONE"] and [row.name[:3] for row in second.rows] == ["TWO"]
    assert not first.left()


def test_a_task_that_takes_more_memory_than_it_asked_for_is_137(runner: Runner) -> None:
    need_control_groups()
    script = "test $attempt = 2 || head -c 300M /dev/zero | tail -c 299M | wc -c"
    run = runner([Process("GREEDY", f"set -o pipefail\n{script}", memory=60)])
    assert run.process.returncode == 0, run.output
    assert tries(run.rows) == [(1, "FAILED", 137), (2, "COMPLETED", 0)]
    assert "out of memory" in next(row for row in run.rows if row.attempt == 1).text(".command.log")


def need_control_groups() -> None:
    from executors.flux_command.memory import Groups

    groups = Groups()
    groups.close()
    if groups.reason:
        pytest.skip(f"memory cannot be enforced here: {groups.reason}")


def test_a_limit_of_memory_is_one_of_control_groups_version_2(runner: Runner) -> None:
    controllers = Path("/sys/fs/cgroup/cgroup.controllers")
    if not controllers.exists() or "memory" not in controllers.read_text().split():
        pytest.skip("no memory controller of control groups version 2: boot with systemd.unified_cgroup_hierarchy=1")
    need_control_groups()
    script = "cat /sys/fs/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup)/memory.max"
    run = runner([Process("LIMITED", script, memory=60)])
    assert run.rows[0].text(".command.out").strip() == str(60 * 2**20), run.output


def test_flux_run_inside_a_task_has_the_cores_of_the_task(runner: Runner) -> None:
    if runner.engine == "embedded":
        pytest.skip("the embedded engine has no Flux")
    run = runner([Process("MPI", "flux run -n2 sh -c 'echo rank $FLUX_TASK_RANK'", cpus=2, time=60)])
    assert run.process.returncode == 0, run.output
    assert sorted(run.rows[0].text(".command.out").split()) == ["0", "1", "rank", "rank"]
