"""With ``[flux] listener`` a DAG run's own MiniCluster ends with the run, also where no teardown task ran."""

from __future__ import annotations

import os
from pathlib import Path

from executors.provision.local.rundir import base_directory
from tests.airflow.conftest import DAGS
from tests.airflow.stack import AirflowStack
from tests.airflow.waiting import until


def test_a_run_over_its_time_leaves_nothing(airflow_database: Path, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    with AirflowStack(tmp_path / "home", airflow_database, DAGS, {"AIRFLOW__FLUX__LISTENER": "True"}) as airflow:
        before = _instances()
        run_id = airflow.trigger("run_limited_worker", {"dir": str(tmp_path)})
        until(lambda: (tmp_path / "ran").exists(), 60, lambda: "the job does not run")
        [own] = _instances() - before
        assert airflow.wait_run("run_limited_worker", run_id) == "failed"
        until(lambda: own not in _instances(), 60, lambda: "it is still there")
        assert "-run-limited-" not in airflow.command("flux", "list").stdout


def _instances() -> set[Path]:
    """The directories of those of this DAG's runs. (The command line takes too long to look at one that will end.)"""
    return {path for path in base_directory(dict(os.environ)).glob("airflow-*-run-limited-*") if path.is_dir()}
