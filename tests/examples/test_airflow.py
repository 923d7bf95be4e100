"""The Airflow examples run, and `make demo-airflow` shows one of them and leaves nothing behind."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from executors import end_run, load_config
from executors.instances import instances
from tests.airflow.conftest import airflow_database, dag_test
from tests.airflow.environment import why_missing
from tests.airflow.inprocess import DagTest
from tests.conftest import missing
from tests.examples.variants import EXAMPLE, variants

__all__ = ["airflow_database", "dag_test"]

ROOT = Path(__file__).parents[2]
DAGS = ROOT / "examples" / "airflow"
EXPECTED = EXAMPLE / "expected" / "variants.tsv"


class Demo:
    """The demonstration in a directory of its own; no terminal is there."""

    def __init__(self, directory: Path, runtime: Path) -> None:
        self.directory = directory
        self._runtime = runtime
        self._mark = uuid.uuid4().hex
        self.process = subprocess.Popen(
            [sys.executable, str(DAGS / "demo.py")],
            cwd=directory,
            env={**os.environ, "FLUX_OPERATOR_RUNTIME_DIR": str(runtime), "FXO_TEST_DEMO": self._mark},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self.process.stdout is not None
        self.output = self.process.stdout

    def left(self) -> list[object]:
        """Processes, whatever their names and owners, and run directories of instances."""
        found: list[object] = []
        for process in psutil.process_iter(["name", "environ"]):
            if (process.info["environ"] or {}).get("FXO_TEST_DEMO") == self._mark:
                found.append(process)
        base = self._runtime / "fluxop"
        return found + ([path for path in base.iterdir() if path.name != "lock"] if base.exists() else [])


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    if reason := why_missing():
        missing("airflow", reason)
    # pytest's directories are too long for sockets.
    with tempfile.TemporaryDirectory(dir="/tmp") as runtime:
        demo = Demo(tmp_path, Path(runtime))
        with demo.process as process:
            try:
                yield demo
            finally:
                # After a test that failed; it ends what it has started.
                process.terminate()


def test_the_demonstration_shows_the_variants_and_leaves_nothing(demo: Demo) -> None:
    output = demo.output.read()
    assert demo.process.wait() == 0, output
    said = next(line for line in output.splitlines() if line.startswith("XCom"))
    with EXPECTED.open(newline="") as table:
        rows = list(csv.DictReader(table, delimiter="\t"))
    assert json.loads(said.split(": ", 1)[1]) == {
        "table": "demo-output/airflow/variant-calling/demo/variants.tsv",
        "variants": 84,
        "per_sample": {sample: sum(row[f"{sample}_genotype"] == "1" for row in rows) for sample in "abc"},
    }
    assert variants(demo.directory / "demo-output/airflow/variant-calling/demo/variants.tsv") == variants(EXPECTED)
    assert "... 84 variants in all" in output
    assert output.count(" success ") == 15
    assert demo.left() == []


def test_an_interrupted_demonstration_leaves_nothing(demo: Demo) -> None:
    line = next((line for line in demo.output if line.startswith("  minicluster.create")), "")
    assert "success" in line
    assert len(demo.left()) > 5
    demo.process.terminate()
    output = demo.output.read()
    assert demo.process.wait() == 130, output
    assert output.splitlines()[-1] == "demo-airflow: interrupted; all that it had started has ended"
    assert demo.left() == []


@pytest.fixture
def deployment() -> Iterator[dict[str, str]]:
    """An environment whose DAG runs' instances are ended: without a teardown task they wait for more tasks."""
    name = f"test{uuid.uuid4().hex[:8]}"
    yield {"AIRFLOW__FLUX__DEPLOYMENT_ID": name}
    config = load_config(None, options={"run.provisioner": "local"})
    for instance in instances(config, os.environ):
        if instance.name.startswith(f"airflow-{name}-"):
            end_run(instance.name, config)


def test_a_job_over_several_tasks(dag_test: DagTest, need: Callable[[str], None]) -> None:
    need("flux")
    run = dag_test(DAGS / "mpi.py", "flux_mpi")
    assert run.state == "success", run.log
    assert "rank 0 of 2" in run.log and "rank 1 of 2" in run.log
    assert run.xcoms["nested"]["return_value"].split() == ["2", "2"]


def test_python_functions_as_jobs(dag_test: DagTest, deployment: dict[str, str]) -> None:
    run = dag_test(DAGS / "python_functions.py", "flux_python", environment=deployment)
    assert run.state == "success", run.log
    value = run.xcoms["pi"]["return_value"]
    assert 3.1 < value < 3.2
    assert run.xcoms["announce"]["return_value"] == f"pi is about {value:.2f}"
    assert run.log.count("throwing 100000 darts") == 4
