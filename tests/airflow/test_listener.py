"""With ``[flux] listener`` a DAG run's own MiniCluster ends with the run, also where no teardown task ran."""

from __future__ import annotations

from pathlib import Path

from tests.airflow.conftest import DAGS
from tests.airflow.stack import AirflowStack
from tests.airflow.waiting import until


def test_a_run_over_its_time_leaves_nothing(airflow_database: Path, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    with AirflowStack(tmp_path / "home", airflow_database, DAGS, {"AIRFLOW__FLUX__LISTENER": "True"}) as airflow:
        run_id = airflow.trigger("run_limited_worker", {"dir": str(tmp_path)})
        until(lambda: (tmp_path / "ran").exists(), 60, lambda: "the job does not run")
        assert "-run-limited-" in airflow.command("flux", "list").stdout
        assert airflow.wait_run("run_limited_worker", run_id) == "failed"
        until(
            lambda: "-run-limited-" not in airflow.command("flux", "list").stdout, 60, lambda: "it is still there"
        )  # fmt: skip
