"""The Airflow provider: what a task costs beyond Airflow's own, what a triggerer's waiting costs, and the import.

Durations of tasks are those that a real Airflow notes (tests/airflow), FluxOperator and BashOperator taking turns.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from bench.common import ROOT, NotHere, Row, need_flux, percentile
from tests.airflow.environment import airflow_environment, create_database, why_missing
from tests.airflow.stack import AirflowStack
from tests.cluster.runs import spec, write_config
from tests.cluster.testbed.cluster import Cluster
from tests.cluster.testbed.missing import Missing

_PAIRS = 10
_DAG = """
import datetime
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, chain
from airflow_provider_flux.operators import FluxMiniCluster, FluxOperator

with DAG("pairs", schedule=None, start_date=datetime.datetime(2026, 1, 1)), FluxMiniCluster():
    tasks = []
    for index in range({pairs}):
        tasks += [BashOperator(task_id=f"bash_{{index}}", bash_command="echo 1")]
        tasks += [FluxOperator(task_id=f"flux_{{index}}", command="echo 1")]
    chain(*tasks)
"""


def measure_airflow() -> list[Row]:
    if reason := why_missing():
        raise NotHere(reason)
    need_flux()
    rows = [_import(), *_triggers(500), *_triggers(1000)]
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        (Path(directory) / "database").mkdir()
        database = create_database(Path(directory) / "database")
        rows.append(_overhead(Path(directory) / "local", database, "local", 0.2, {"provisioner": "local"}))
        try:
            bed = Cluster()
        except Missing as reason_why:
            raise NotHere(str(reason_why)) from None
        with bed as cluster:
            namespace = cluster.create_namespace(labels={})
            file = write_config(Path(directory) / "run.yaml", spec(cluster.image.name))
            extra = {
                "provisioner": "direct",
                "kubeconfig": str(cluster.kubeconfig),
                "namespace": namespace,
                "config": str(file),
            }
            rows.append(_overhead(Path(directory) / "direct", database, "direct", 0.5, extra))
    return rows


def _overhead(place: Path, database: Path, name: str, limit: float, extra: Mapping[str, str]) -> Row:
    dags = place / "dags"
    (place / "home").mkdir(parents=True)
    dags.mkdir()
    (dags / "pairs.py").write_text(_DAG.format(pairs=_PAIRS))
    connection = json.dumps({"conn_type": "flux", "extra": dict(extra)})
    with AirflowStack(place / "home", database, dags, {"AIRFLOW_CONN_FLUX_DEFAULT": connection}) as airflow:
        run_id = airflow.trigger("pairs")
        state = airflow.wait_run("pairs", run_id, 600.0)
        tasks = airflow.task_instances("pairs", run_id)
    assert state == "success", tasks
    seconds = {
        task["task_id"]: (_time(task["end_date"]) - _time(task["start_date"]))
        for task in tasks
        if task["task_id"].startswith(("bash_", "flux_"))
    }
    differences = [seconds[f"flux_{index}"] - seconds[f"bash_{index}"] for index in range(_PAIRS)]
    median = statistics.median(differences)
    bash = statistics.median(value for task, value in seconds.items() if task.startswith("bash_"))
    return Row(
        f"Airflow: a FluxOperator task over a BashOperator task beside it, {name}",
        f"{median:.2f} s more than {bash:.2f} s",
        f"<= {limit} s median",
        median <= limit,
        [f"{min(differences):.2f} to {max(differences):.2f} s"],
    )


def _time(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _triggers(count: int) -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="bench-") as home:
        done = subprocess.run(
            [sys.executable, "-m", "bench.airflow_triggers", str(count)],
            cwd=ROOT,
            env=airflow_environment(Path(home), Path(home), {}),
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if count == 500:
        late = percentile(seen["delays"], 0.99)
        return [
            Row(
                "Airflow, deferred: finished (Flux's timestamp) -> trigger's event, 500 jobs in flight",
                f"median {statistics.median(seen['delays']) * 1000:.0f} ms, p99 {late * 1000:.0f} ms",
                "<= 200 ms p99",
                late <= 0.2,
            )
        ]
    grown, blocked = seen["grown"] / 2**20, seen["blocked"] * 1000
    good = seen["streams"] == 1 and grown <= 100 and blocked <= 50
    return [
        Row(
            "Airflow: 1,000 triggers of one run",
            f"{seen['streams']} stream, {grown:.0f} MB, the loop blocked for {blocked:.0f} ms at most "
            f"({seen['busy'] * 1000:.0f} ms of its own processor time)",
            "1 stream, <= 100 MB, <= 50 ms",
            good,
        )
    ]


def _import() -> Row:
    """Beyond what a DAG file with Airflow's own operators has loaded anyway."""
    code = (
        "import time; import airflow.sdk; from airflow.providers.standard.operators.bash import BashOperator\n"
        "import airflow.providers.common.compat.sdk\n"
        "begin = time.perf_counter()\n"
        "from airflow_provider_flux.operators import FluxMiniCluster, FluxOperator\n"
        "from airflow_provider_flux.sensors import FluxJobSensor\n"
        "import sys; print(time.perf_counter() - begin, 'kubernetes' in sys.modules)"
    )
    found = []
    with tempfile.TemporaryDirectory(prefix="bench-") as home:
        for _ in range(5):
            done = subprocess.run(
                [sys.executable, "-c", code],
                env=airflow_environment(Path(home), Path(home), {}),
                capture_output=True,
                text=True,
                check=True,
            )
            seconds, kubernetes = done.stdout.split()[-2:]
            assert kubernetes == "False", "the provider imports kubernetes"
            found.append(float(seconds))
    median = statistics.median(found) * 1000
    return Row(
        "Airflow: import of operators and sensors beyond Airflow's own", f"{median:.0f} ms", "<= 100 ms", median <= 100
    )
