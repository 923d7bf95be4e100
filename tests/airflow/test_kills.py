"""What becomes of a task's job when somebody or something ends the task, or what it needs: the right state, one
execution, no orphan. Each test is a row of the table in docs/airflow.md.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.airflow.rest import RestError
from tests.airflow.stack import AirflowStack
from tests.airflow.waiting import until

MODES = ("worker", "deferred")
LIMIT = 60.0


@dataclass
class Held:
    """A run whose job goes on when it is let go."""

    airflow: AirflowStack
    dag_id: str
    run_id: str
    directory: Path

    def wait(self, *states: str, **options: int) -> str:
        return str(self.airflow.wait_task(self.dag_id, self.run_id, "work", states, **options)["state"])

    def started(self, times: int = 1) -> None:
        until(lambda: self.times() >= times, LIMIT, lambda: f"{self.times()} executions, not {times}")

    def times(self) -> int:
        """How often the command was run."""
        ran = self.directory / "ran"
        return len(ran.read_text().splitlines()) if ran.exists() else 0

    def let_go(self) -> None:
        (self.directory / "go").touch()

    def jobs(self) -> list[int]:
        """Processes of the job: its command names the directory."""
        return [
            process.pid
            for process in psutil.process_iter(["cmdline"])
            if any(f"{self.directory}/go" in word for word in process.info["cmdline"] or [])
            and process.info["cmdline"][0] == "/bin/sh"
        ]

    def no_orphan(self) -> None:
        until(lambda: not self.jobs(), LIMIT, lambda: f"the job goes on: {self.jobs()}")

    def ended(self) -> str:
        return self.airflow.wait_run(self.dag_id, self.run_id)

    def log(self, try_number: int = 1) -> str:
        return self.airflow.log(self.dag_id, self.run_id, "work", try_number)


@pytest.fixture
def hold(airflow: AirflowStack, tmp_path: Path) -> Iterator[Callable[[str], Held]]:
    made: list[Held] = []

    def begin(dag_id: str) -> Held:
        directory = tmp_path / str(len(made))
        directory.mkdir()
        held = Held(airflow, dag_id, airflow.trigger(dag_id, {"dir": str(directory)}), directory)
        made.append(held)
        held.started()
        return held

    yield begin
    for held in made:
        held.let_go()


def deferred(held: Held) -> None:
    """Until the triggerer waits for the job, if that is its mode."""
    if held.dag_id.endswith("_deferred"):
        held.wait("deferred")


@pytest.mark.parametrize("state", ["failed", "success"])
@pytest.mark.parametrize("mode", MODES)
def test_marked_while_it_runs(hold: Callable[[str], Held], mode: str, state: str) -> None:
    held = hold(f"held_{mode}")
    deferred(held)
    held.airflow.set_task_state(held.dag_id, held.run_id, "work", state)
    held.no_orphan()
    assert held.wait("failed", "success") == state
    assert held.ended() == ("success" if state == "success" else "failed")
    assert held.times() == 1


@pytest.mark.parametrize("mode", MODES)
def test_run_marked_failed(hold: Callable[[str], Held], mode: str) -> None:
    held = hold(f"held_{mode}")
    deferred(held)
    held.airflow.set_run_state(held.dag_id, held.run_id, "failed")
    held.no_orphan()
    assert held.wait("failed") == "failed"


@pytest.mark.parametrize("mode", MODES)
def test_cleared_while_it_runs(hold: Callable[[str], Held], mode: str) -> None:
    held = hold(f"held_{mode}")
    deferred(held)
    [first] = held.jobs()
    held.airflow.clear(held.dag_id, held.run_id, ["work"])
    held.started(2)
    until(lambda: first not in held.jobs(), LIMIT, lambda: "the first job goes on beside the second")
    held.let_go()
    assert held.ended() == "success"
    assert held.times() == 2


@pytest.mark.parametrize("mode", MODES)
def test_cleared_after_its_end(hold: Callable[[str], Held], mode: str) -> None:
    held = hold(f"held_{mode}")
    held.let_go()
    assert held.ended() == "success"
    held.airflow.clear(held.dag_id, held.run_id, ["work"])
    held.started(2)
    assert held.ended() == "success"
    assert held.times() == 2


@pytest.mark.parametrize("mode", MODES)
def test_over_its_execution_timeout(hold: Callable[[str], Held], mode: str) -> None:
    held = hold(f"limited_{mode}")
    assert held.wait("failed") == "failed"
    held.no_orphan()
    assert "Timeout" in held.log()
    assert held.ended() == "failed"


def test_over_its_execution_timeout_without_a_teardown_task(hold: Callable[[str], Held]) -> None:
    held = hold("timed")
    assert held.wait("failed") == "failed"
    held.no_orphan()


def test_worker_killed_where_each_try_has_a_job_of_its_own(hold: Callable[[str], Held]) -> None:
    held = hold("each_its_own")
    [first] = held.jobs()
    psutil.Process(held.airflow.worker(held.dag_id, held.run_id, "work").task).kill()
    held.started(2)
    assert first not in held.jobs()
    held.let_go()
    assert held.ended() == "success"
    assert held.times() == 2


def test_over_the_runs_timeout(hold: Callable[[str], Held]) -> None:
    for held in [hold(f"run_limited_{mode}") for mode in MODES]:
        assert held.ended() == "failed"
        held.no_orphan()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_worker_killed_with_a_retry(hold: Callable[[str], Held], number: signal.Signals) -> None:
    held = hold("retried_worker")
    worker = held.airflow.worker(held.dag_id, held.run_id, "work")
    psutil.Process(worker.task).send_signal(number)
    held.wait("running", try_number=2)
    if number == signal.SIGTERM:
        held.started(2)  # the task was told to end, and has cancelled its job
    else:
        held.airflow.wait_log(held.dag_id, held.run_id, "work", "taken over from an earlier try", 2)
    held.let_go()
    assert held.ended() == "success"
    assert held.times() == (2 if number == signal.SIGTERM else 1)
    # The whole output is in the log of the try that has seen the end.
    lines = held.log(2).splitlines()
    assert lines.count("first") == lines.count("last") == 1


def test_worker_killed_after_the_job_has_ended(hold: Callable[[str], Held]) -> None:
    held = hold("retried_worker")
    worker = held.airflow.worker(held.dag_id, held.run_id, "work")
    psutil.Process(worker.task).suspend()
    held.let_go()
    held.no_orphan()
    psutil.Process(worker.task).kill()
    assert held.ended() == "success"
    assert held.times() == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_triggerer_restarted(hold: Callable[[str], Held], number: signal.Signals) -> None:
    held = hold("held_deferred")
    deferred(held)
    held.airflow.wait_log(held.dag_id, held.run_id, "work", "first")
    if number == signal.SIGTERM:
        held.airflow.restart("triggerer")
    else:
        held.airflow.lose("triggerer")
        held.airflow.start("triggerer")
    held.let_go()
    assert held.ended() == "success"
    assert held.times() == 1
    lines = held.log().splitlines()
    assert lines.count("first") == lines.count("last") == 1


def test_triggerer_down_when_tasks_are_cleared_and_marked(hold: Callable[[str], Held]) -> None:
    cleared, marked = hold("held_deferred"), hold("held_deferred")
    for held in (cleared, marked):
        deferred(held)
    [first] = cleared.jobs()
    cleared.airflow.kill("triggerer")
    try:
        cleared.airflow.clear(cleared.dag_id, cleared.run_id, ["work"])
        marked.airflow.set_task_state(marked.dag_id, marked.run_id, "work", "failed")
        # Nobody has told the jobs; the next generation finds and ends the first one before it begins.
        cleared.started(2)
        assert first not in cleared.jobs()
        assert marked.ended() == "failed"  # the teardown task ends the job with its MiniCluster
        marked.no_orphan()
    finally:
        cleared.airflow.start("triggerer")
    cleared.let_go()
    assert cleared.ended() == "success"
    assert cleared.times() == 2


def test_scheduler_lost(hold: Callable[[str], Held]) -> None:
    in_worker, in_triggerer = (hold(f"retried_{mode}") for mode in MODES)
    deferred(in_triggerer)
    in_worker.airflow.lose("scheduler")  # its workers with it
    in_worker.airflow.start("scheduler")
    in_worker.airflow.wait_log(in_worker.dag_id, in_worker.run_id, "work", "taken over from an earlier try", 2)
    for held in (in_worker, in_triggerer):
        held.let_go()
        assert held.ended() == "success"
        assert held.times() == 1


@pytest.mark.parametrize("mode", MODES)
def test_agent_lost(hold: Callable[[str], Held], mode: str) -> None:
    held = hold(f"held_{mode}")
    deferred(held)
    agents = _processes_around(held, "serve")
    assert agents
    for pid in agents:
        psutil.Process(pid).kill()
    held.let_go()
    assert held.ended() == "success"
    assert held.times() == 1


@pytest.mark.parametrize("mode", MODES)
def test_minicluster_lost(hold: Callable[[str], Held], mode: str) -> None:
    held = hold(f"retried_{mode}")
    deferred(held)
    for pid in _processes_around(held, "broker"):
        psutil.Process(pid).kill()
    held.started(2)
    held.let_go()
    assert held.ended() == "success"
    assert "this is a loss of infrastructure" in held.log(1)


def _processes_around(held: Held, what: str) -> list[int]:
    """The agent, or the broker, of the instance that runs the job: what has its run directory in the environment."""
    [job] = held.jobs()
    epoch = psutil.Process(job).environ()["FXO_EPOCH"]
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        try:
            mine = process.environ().get("FXO_EPOCH") == epoch
            is_broker = process.name().startswith("flux-broker") or "broker" in " ".join(words[:1])
        except (psutil.AccessDenied, psutil.NoSuchProcess):
            continue
        is_agent = "serve" in words
        if mine and (is_agent if what == "serve" else is_broker):
            found.append(process.pid)
    return found


def test_run_deleted_while_it_runs_is_refused_by_airflow(hold: Callable[[str], Held]) -> None:
    held = hold("held_worker")
    with pytest.raises(RestError, match="409"):
        held.airflow.delete_run(held.dag_id, held.run_id)
    assert held.jobs()
    held.let_go()
    assert held.ended() == "success"
    held.airflow.delete_run(held.dag_id, held.run_id)
