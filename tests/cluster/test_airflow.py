"""DAGs on a real Kubernetes: one MiniCluster per DAG run, under the Role of the documents, and what is lost there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.airflow.conftest import DAGS, airflow_database
from tests.airflow.stack import AirflowStack
from tests.cluster.rights import grant, role
from tests.cluster.runs import Runs
from tests.cluster.testbed.cluster import Cluster
from tests.cluster.workflows import (
    EXAMPLE,
    assert_variants,
    config_file,
    for_everybody,
    open_namespace,
    python_in_pods,
    volume,
)

__all__ = ["airflow_database", "open_namespace", "python_in_pods", "volume"]

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "airflow"
LIMIT = 120.0


@pytest.fixture
def stack(
    cluster: Cluster, runs: Runs, open_namespace: str, volume: Path, airflow_database: Path, tmp_path: Path
) -> Iterator[AirflowStack]:
    """An Airflow whose connections lead into a namespace where it has the Role of the documents, and no more."""
    grant(cluster, runs, role("direct"))
    extra = {
        "provisioner": "direct",
        "kubeconfig": str(runs.kubeconfig),
        "namespace": runs.namespace,
        "config": str(config_file(runs, tmp_path, volume)),
        "minicluster_url": "https://dashboard.example/{namespace}/{name}",
        "job_url": "https://dashboard.example/{namespace}/{name}/{job}",
    }
    connection = json.dumps({"conn_type": "flux", "extra": extra})
    dags = tmp_path / "dags"
    dags.mkdir()
    shutil.copy(DAGS / "cluster.py", dags)
    shutil.copy(EXAMPLES / "variant_calling.py", dags)
    (tmp_path / "home").mkdir()
    environment = {"AIRFLOW_CONN_FLUX_DEFAULT": connection, "AIRFLOW_CONN_FLUX_CLUSTER": connection}
    with AirflowStack(tmp_path / "home", airflow_database, dags, environment) as airflow:
        yield airflow


def test_the_example_in_pods_and_what_is_lost_there(stack: AirflowStack, runs: Runs, volume: Path) -> None:
    example = volume / "example"
    shutil.copytree(EXAMPLE, example)
    for_everybody(volume)
    conf = {"data": str(example), "output": str(volume), "python": "python3", "threads": 1}
    run_id = stack.trigger("variant_calling", conf, run_id="first")
    assert stack.wait_run("variant_calling", run_id, limit=300) == "success"
    assert_variants(volume / "first" / "variants.tsv")
    assert stack.xcom("variant_calling", run_id, "summary")["variants"] == 84
    links = stack.links("variant_calling", run_id, "merge")
    name = str(links["MiniCluster"]).rpartition("/")[2]
    assert links["MiniCluster"] == f"https://dashboard.example/{runs.namespace}/{name}"
    assert str(links["Flux job"]).startswith(f"https://dashboard.example/{runs.namespace}/{name}/")
    runs.wait_nothing_left()

    for mode, lose in (("worker", _lose_follower), ("deferred", _lose_follower), ("deferred", _lose_minicluster)):
        _lost_and_tried_again(stack, runs, volume, f"on_cluster_{mode}", lose)


def _lost_and_tried_again(stack: AirflowStack, runs: Runs, volume: Path, dag_id: str, lose: object) -> None:
    assert callable(lose)
    run_id = stack.trigger(dag_id, {"dir": str(volume)})
    stack.wait_log(dag_id, run_id, "work", "ran", limit=LIMIT)
    lose(runs)
    stack.wait_log(dag_id, run_id, "work", "ran", try_number=2, limit=LIMIT)
    assert "this is a loss of infrastructure, not a failure of the command" in stack.log(dag_id, run_id, "work", 1)
    (volume / "go-2").touch()
    assert stack.wait_run(dag_id, run_id, limit=LIMIT) == "success"
    (volume / "go-2").unlink()
    runs.wait_nothing_left()


def _job_name(runs: Runs) -> str:
    [name] = runs.bed.kubectl("get", "jobs", f"--namespace={runs.namespace}", "--output=name").split()
    return name.rpartition("/")[2]


def _lose_follower(runs: Runs) -> None:
    pod = runs.pod(_job_name(runs), 1)["metadata"]["name"]
    runs.bed.kubectl("delete", "pod", pod, f"--namespace={runs.namespace}", "--grace-period=0", "--force")


def _lose_minicluster(runs: Runs) -> None:
    name = _job_name(runs)
    runs.bed.kubectl("delete", "job", name, f"--namespace={runs.namespace}")
