"""The stack itself, with nothing of Flux: what the other tests of this folder stand on."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.airflow.inprocess import DagTest
from tests.airflow.rest import RestError
from tests.airflow.stack import AirflowStack
from tests.airflow.waiting import until
from tests.processes import alive

SMOKE = Path(__file__).parent / "dags" / "smoke.py"


def test_a_task_runs_and_its_log_and_value_can_be_read(airflow: AirflowStack) -> None:
    run = airflow.trigger("smoke_bash")
    assert airflow.wait_run("smoke_bash", run) == "success"
    assert "hello from 42" in airflow.log("smoke_bash", run, "hello")
    assert airflow.xcom("smoke_bash", run, "hello") == "42"
    assert airflow.links("smoke_bash", run, "hello") == {}


def test_mapped_tasks_are_told_apart(airflow: AirflowStack) -> None:
    run = airflow.trigger("smoke_mapped")
    assert airflow.wait_run("smoke_mapped", run) == "success"
    assert sorted(task["map_index"] for task in airflow.task_instances("smoke_mapped", run)) == [0, 1, 2]
    assert [airflow.xcom("smoke_mapped", run, "square", map_index=index) for index in range(3)] == [1, 4, 9]
    airflow.clear("smoke_mapped", run, [("square", 1)])
    airflow.wait_task("smoke_mapped", run, "square", ["success"], map_index=1, try_number=2)
    assert airflow.task_instance("smoke_mapped", run, "square", 0)["try_number"] == 1


def test_a_task_whose_process_is_killed_is_tried_again(airflow: AirflowStack, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    run = airflow.trigger("smoke_gate", {"gate": str(gate)})
    airflow.wait_log("smoke_gate", run, "gated", f"waiting for {gate}")
    os.kill(airflow.worker("smoke_gate", run, "gated").task, signal.SIGKILL)
    airflow.wait_task("smoke_gate", run, "gated", ["running"], try_number=2)
    gate.touch()
    assert airflow.wait_run("smoke_gate", run) == "success"
    assert "through" in airflow.log("smoke_gate", run, "gated", try_number=2)


def test_a_task_marked_failed_is_killed_by_its_worker(airflow: AirflowStack, tmp_path: Path) -> None:
    run = airflow.trigger("smoke_gate", {"gate": str(tmp_path / "never")})
    airflow.wait_log("smoke_gate", run, "gated", "waiting for")
    task = airflow.worker("smoke_gate", run, "gated").task
    airflow.set_task_state("smoke_gate", run, "gated", "failed")
    until(lambda: not alive(task), 30, lambda: "the task's process still runs")
    assert airflow.wait_run("smoke_gate", run) == "failed"
    airflow.delete_run("smoke_gate", run)
    with pytest.raises(RestError, match="404"):
        airflow.run("smoke_gate", run)


def test_a_deferred_task_outlives_restarts_of_the_triggerer(airflow: AirflowStack, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    run = airflow.trigger("smoke_deferred", {"gate": str(gate)})
    airflow.wait_task("smoke_deferred", run, "deferred", ["deferred"])
    airflow.restart("triggerer")
    airflow.lose("triggerer")
    airflow.start("triggerer")
    assert airflow.task_instance("smoke_deferred", run, "deferred")["state"] == "deferred"
    gate.touch()
    assert airflow.wait_run("smoke_deferred", run) == "success"


def test_a_dag_runs_in_a_process_of_its_own(dag_test: DagTest) -> None:
    outcome = dag_test(SMOKE, "smoke_mapped")
    assert outcome.state == "success", outcome.log
    assert outcome.tasks == {f"square[{index}]": "success" for index in range(3)}
    assert outcome.xcoms["square[2]"]["return_value"] == 9


def test_a_deferrable_task_runs_in_a_process_of_its_own(dag_test: DagTest, tmp_path: Path) -> None:
    (tmp_path / "gate").touch()
    outcome = dag_test(SMOKE, "smoke_deferred", {"gate": str(tmp_path / "gate")})
    assert outcome.tasks == {"deferred": "success"}, outcome.log
