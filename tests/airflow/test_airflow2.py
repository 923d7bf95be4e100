"""The provider in Airflow 2.11, where a Python that has it is named: it is another environment than the tests' own."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from tests.airflow.environment import ROOT
from tests.conftest import missing

CODE = """
import datetime, importlib, json, pkgutil
from airflow import DAG, __version__
import airflow_provider_flux
from airflow_provider_flux.operators import FluxMiniCluster, FluxOperator
names = [one.name for one in pkgutil.walk_packages(airflow_provider_flux.__path__, "airflow_provider_flux.")]
for name in names:
    importlib.import_module(name)
with DAG("d", schedule=None, start_date=datetime.datetime(2026, 1, 1)) as dag, FluxMiniCluster():
    mapped = FluxOperator.partial(task_id="mapped").expand(command=["true"])
print(json.dumps([__version__, len(names), sorted(mapped.upstream_task_ids)]))
"""


def test_all_modules_are_imported_and_a_dag_is_made(tmp_path: Path) -> None:
    python = os.environ.get("FLUXOP_TEST_AIRFLOW2")
    if not python:
        missing(
            "airflow2", "no Airflow 2.11: give a Python that has it and this package's needs in FLUXOP_TEST_AIRFLOW2"
        )
    environ = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    done = subprocess.run(
        [python, "-W", "ignore", "-c", CODE],
        env={**environ, "AIRFLOW_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    version, modules, upstream = json.loads(done.stdout.splitlines()[-1])
    assert version.startswith("2.")
    assert modules > 20 and upstream == ["minicluster.create"]
