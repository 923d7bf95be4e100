"""What a task's state, XCom and log tell of its job, whether a worker or the triggerer has waited for it."""

from __future__ import annotations

import base64
import hashlib
import re
import sqlite3
import urllib.parse
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.airflow.rest import RestError
from tests.airflow.stack import AirflowStack
from tests.airflow.waiting import until

SECRET = "hunter2-and-more"


class Run(NamedTuple):
    airflow: AirflowStack
    dag_id: str
    run_id: str
    state: str
    tasks: dict[str, Any]
    directory: Path

    def check_state(self, task: str, state: str) -> None:
        """A task that ended otherwise is told with its log, which is gone when a test has failed."""
        found = self.tasks[task]
        assert found["state"] == state, f"{task}: {found}\n{self.log(task, found['try_number'])}"

    def log(self, task: str, try_number: int = 1) -> str:
        return self.airflow.log(self.dag_id, self.run_id, task, try_number)

    def xcom(self, task: str) -> Any:
        return self.airflow.xcom(self.dag_id, self.run_id, task)


def run(airflow: AirflowStack, dag_id: str, directory: Path) -> Run:
    run_id = airflow.trigger(dag_id, {"dir": str(directory)})
    state = airflow.wait_run(dag_id, run_id)
    tasks = {
        one["task_id"] + (f"[{one['map_index']}]" if one["map_index"] >= 0 else ""): one
        for one in airflow.task_instances(dag_id, run_id)
    }
    return Run(airflow, dag_id, run_id, state, tasks, directory)


@pytest.fixture(scope="module", params=["worker", "deferred"])
def outcomes(request: pytest.FixtureRequest, airflow: AirflowStack, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run(airflow, f"outcomes_{request.param}", tmp_path_factory.mktemp("outcomes"))


def told_late(outcomes: Run, task: str) -> list[str]:
    """What the triggerer logged of a task after Airflow had closed the task's own log there.

    A trigger that ends soon on a busy machine is taken off Airflow's list before its last lines are read, and these
    stand in the triggerer's log instead.
    """
    line = re.compile(
        rf"\S+ \[info +\] (.*?) +\[airflow_provider_flux\.triggers\.job\..* run_id={re.escape(outcomes.run_id)} "
    )
    text = (outcomes.airflow.home / "triggerer.out").read_text()
    found = [(one, line.match(one)) for one in text.splitlines() if f"task_id={task} " in one]
    return [match[1] for _, match in found if match]


def tries(outcomes: Run, task: str) -> tuple[str, int]:
    return outcomes.tasks[task]["state"], outcomes.tasks[task]["try_number"]


def test_the_commands_own_failure_is_retried(outcomes: Run) -> None:
    assert tries(outcomes, "fails") == ("failed", 2)
    log = outcomes.log("fails", 2)
    assert "no such luck" in log
    assert "FluxJobFailed" in log and "failed on" in log and "with exit code 7" in log
    assert "loss of infrastructure" not in log


def test_an_exit_code_can_skip(outcomes: Run) -> None:
    assert tries(outcomes, "skips") == ("skipped", 1)


def test_what_can_never_fit_fails_without_a_retry(outcomes: Run) -> None:
    assert tries(outcomes, "never_fits") == ("failed", 1)
    assert "it will never run, and is not tried again" in outcomes.log("never_fits")


def test_a_wrong_request_names_field_and_value_and_is_not_retried(outcomes: Run) -> None:
    assert tries(outcomes, "wrong") == ("failed", 1)
    assert "nodes: 'many' is not a whole number" in outcomes.log("wrong")


def test_a_time_limit_is_told(outcomes: Run) -> None:
    assert tries(outcomes, "over_its_limit") == ("failed", 1)
    assert "was ended on" in outcomes.log("over_its_limit") and "at its time limit" in outcomes.log("over_its_limit")


def test_a_result_that_is_too_long_is_refused_with_the_cure(outcomes: Run) -> None:
    assert tries(outcomes, "too_much") == ("failed", 1)
    assert "the line has 100000 bytes, more than the 65536 of [flux] max_xcom_bytes" in outcomes.log("too_much")


def test_a_result_that_is_no_json_is_told(outcomes: Run) -> None:
    assert tries(outcomes, "no_json") == ("failed", 2)
    assert "is not JSON" in outcomes.log("no_json", 2)
    # The second try has run the command again.
    assert (outcomes.directory / "no_json").read_text() == "ran\nran\n"


def test_a_secret_reaches_the_job_and_nothing_else(outcomes: Run) -> None:
    outcomes.check_state("secret", "success")
    assert outcomes.xcom("secret").split()[0] == hashlib.md5(SECRET.encode()).hexdigest()
    forms = [
        SECRET.encode(),
        base64.b64encode(SECRET.encode())[:-4],
        urllib.parse.quote(SECRET, safe="").encode(),
    ]
    home = outcomes.airflow.home
    searched = [path for path in home.rglob("*") if path.is_file()]
    assert any(path.suffix == ".log" for path in searched) and any(path.suffix == ".db" for path in searched)
    for path in searched:
        content = path.read_bytes()
        assert not [form for form in forms if form in content], path
    # The database may hold what its file does not yet.
    with sqlite3.connect(f"file:{home / 'airflow.db'}?mode=ro", uri=True) as database:
        dump = "\n".join(database.iterdump()).encode()
    assert b"outcomes_worker" in dump
    assert not [form for form in forms if form in dump]


def test_a_secret_that_a_job_tells_is_masked_by_every_process_that_logs_it(outcomes: Run) -> None:
    """Not in the log in any form is what the test before this one shows."""
    outcomes.check_state("tells", "success")
    assert outcomes.xcom("tells") == "the end"
    lines = [*outcomes.log("tells").splitlines(), *told_late(outcomes, "tells")]
    assert "token=***." in lines and "cut:***" in lines, lines
    assert lines.count("***") == 1  # in base64
    assert [line for line in lines if line.startswith("dXNlcj") and line.endswith("***")]


def test_an_xcom_that_would_hold_a_secret_is_refused(outcomes: Run) -> None:
    outcomes.check_state("gives", "failed")
    assert "holds a value of secret_env" in outcomes.log("gives") and "it is ***" in outcomes.log("gives")


def test_what_airflow_cannot_store_fails_with_the_reason_and_is_run_again(outcomes: Run) -> None:
    assert tries(outcomes, "unstorable") == ("success", 2)
    assert "$[1] is nan, which is not in JSON" in outcomes.log("unstorable")
    assert outcomes.xcom("unstorable") == [1, 2]


def test_a_failure_without_logs_shows_its_last_lines(outcomes: Run) -> None:
    outcomes.check_state("silent", "failed")
    log = outcomes.log("silent")
    assert "| said" in log and "| why" in log


def test_mapped_tasks_share_one_minicluster_and_can_be_cleared_alone(airflow: AirflowStack, tmp_path: Path) -> None:
    first = run(airflow, "mapped", tmp_path)
    assert first.state == "success"
    assert [airflow.xcom("mapped", first.run_id, "work", map_index=index) for index in range(3)] == ["0", "1", "2"]
    airflow.clear("mapped", first.run_id, [("work", 1)])
    until(
        lambda: (tmp_path / "ran-1").read_text() == "ran\nran\n", 60, lambda: "the cleared one does not run again"
    )  # fmt: skip
    assert airflow.wait_run("mapped", first.run_id) == "success"
    assert (tmp_path / "ran-0").read_text() == (tmp_path / "ran-2").read_text() == "ran\n"
    # Airflow has run setup and teardown again for it.
    assert "-mapped-" not in airflow.command("flux", "list").stdout


def test_a_failed_run_keeps_its_minicluster_where_asked(airflow: AirflowStack, tmp_path: Path) -> None:
    found = run(airflow, "kept", tmp_path)
    assert found.state == "failed"
    assert "left to its idle time-out, because work failed" in found.log("minicluster.delete")
    listed = [line for line in airflow.command("flux", "list").stdout.splitlines() if "-kept-" in line]
    assert len(listed) == 1 and listed[0].endswith("\trunning")
    assert "left: in use" in airflow.command("flux", "reap", "--dry-run").stdout


def test_a_sensor_waits_for_a_job_of_another_task(airflow: AirflowStack, tmp_path: Path) -> None:
    found = run(airflow, "awaited", tmp_path)
    assert found.state == "success", found.log("wait_deferred")
    assert "completed" in found.log("wait_worker")


def test_a_long_output_is_logged_once_over_a_restart_of_the_triggerer(airflow: AirflowStack, tmp_path: Path) -> None:
    run_id = airflow.trigger("talkative", {"dir": str(tmp_path)})
    airflow.wait_log("talkative", run_id, "work", "line 50")
    airflow.restart("triggerer")
    airflow.wait_log("talkative", run_id, "work", "line 500")
    (tmp_path / "go").touch()
    assert airflow.wait_run("talkative", run_id) == "success"
    count = airflow.xcom("talkative", run_id, "work")
    lines = [line for line in airflow.log("talkative", run_id, "work").splitlines() if line.startswith("line ")]
    assert lines == [f"line {number}" for number in range(1, count + 1)]


def test_a_flood_of_output_does_not_hold_up_the_triggerer(airflow: AirflowStack, tmp_path: Path) -> None:
    """Airflow writes a triggerer's log at some 60 KB/s, and stands still meanwhile: most of it is left to a worker."""
    found = run(airflow, "flood", tmp_path)
    assert found.state == "success"
    assert found.xcom("work") == 7
    lines = [line for line in found.log("work").splitlines() if line.isdigit()]
    late = [line for line in told_late(found, "work") if line.isdigit()]
    assert sorted([*lines, *late], key=int) == sorted([*map(str, range(1, 60001)), "7"], key=int)
    assert lines[-1] == "7" and lines[:-1] == sorted(lines[:-1], key=int)
    ends = {name: found.tasks[name]["end_date"] for name in ("neighbour", "work")}
    assert ends["neighbour"] < ends["work"]


def test_functions_travel_with_arguments_and_values(airflow: AirflowStack, tmp_path: Path) -> None:
    found = run(airflow, "functions", tmp_path)
    found.check_state("show", "success")
    assert found.xcom("give") == [0, 1, 2]
    assert "computing" in found.log("give") and "fxo-result" not in found.log("give")
    assert "0 1 2" in found.log("show")
    with pytest.raises(RestError):
        found.xcom("show")
    found.check_state("unspeakable", "failed")
    assert "the return value of unspeakable is not plain data that JSON can hold" in found.log("unspeakable")
