"""Kueue itself holds back, admits and takes back a MiniCluster's Job, of a run and of our Flux Operator."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from executors import ProvisionError
from executors.controller import conditions as known
from executors.lifecycle.reap import reap
from executors.names import RunId, run_name
from executors.provision.inventory import instances
from executors.provision.kubernetes.direct import DirectMode
from executors.provision.kubernetes.provisioner import ClusterProvisioner
from tests.cluster.operators import MiniClusters, running
from tests.cluster.runs import LIMIT, Runs, job, spec
from tests.cluster.testbed import kueue
from tests.cluster.testbed.cluster import Cluster
from tests.cluster.testbed.missing import Missing
from tests.cluster.testbed.waiting import wait_until
from tests.conftest import missing

QUEUE = "team-a"
QUEUED: dict[str, Any] = {"jobLabels": {"kueue.x-k8s.io/queue-name": QUEUE}}
PATIENCE: dict[str, Any] = {"startTimeout": 280, "scheduleTimeout": 280}


@pytest.fixture(scope="module")
def with_kueue(cluster: Cluster) -> Iterator[None]:
    try:
        kueue.program()
    except Missing as reason:
        missing("kubernetes", f"no Kueue: {reason}")
    with kueue.running(cluster):
        yield


@pytest.fixture
def queue(cluster: Cluster, with_kueue: None, namespace: str) -> Iterator[None]:
    """Room for one pod of these tests, which ask for a tenth of a CPU, and not for two."""
    kueue.make_queue(cluster, namespace, QUEUE, cpus="150m")
    yield
    kueue.remove_queue(cluster, namespace, QUEUE)


class Workloads:
    """What Kueue has made of the Jobs of a namespace."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster, self.namespace = cluster, namespace

    def of(self, job_name: str) -> dict[str, Any]:
        found = self.cluster.objects("workloads", self.namespace)
        owned = [one for one in found if one["metadata"]["ownerReferences"][0]["name"] == job_name]
        return owned[0] if owned else {}

    def is_admitted(self, job_name: str) -> bool:
        conditions = self.of(job_name).get("status", {}).get("conditions", [])
        return any(one["type"] == "Admitted" and one["status"] == "True" for one in conditions)

    def activate(self, job_name: str, value: bool) -> None:
        """An administrator stops a workload, or lets it be admitted again."""
        name = self.of(job_name)["metadata"]["name"]
        patch = json.dumps({"spec": {"active": value}})
        in_namespace = f"--namespace={self.namespace}"
        self.cluster.kubectl("patch", "workload", name, "--type=merge", f"--patch={patch}", in_namespace)


@pytest.mark.usefixtures("queue")
def test_a_run_waits_for_room_in_its_queue_says_what_keeps_it_and_begins_when_there_is_room(runs: Runs) -> None:
    minicluster = spec(runs.image, **QUEUED)
    first = runs.open(minicluster, run_id="first", **PATIENCE)
    assert job(first, "true").ok
    said: list[str] = []

    def make_room(line: str) -> None:
        said.append(line)
        if "insufficient unused quota" in line:
            threading.Thread(target=first.close).start()

    second = runs.open(minicluster, run_id="second", report_progress=make_room, **PATIENCE)
    assert job(second, "true").ok
    assert any(f"Kueue has not admitted it (queue {QUEUE}): " in line for line in said), said


@pytest.mark.usefixtures("queue")
def test_a_run_that_no_queue_has_room_for_ends_its_wait_with_kueues_reason_and_leaves_nothing(runs: Runs) -> None:
    minicluster = spec(runs.image, size=2, **QUEUED)
    with pytest.raises(ProvisionError, match=rf"run\.startTimeout.*queue {QUEUE}\): .*quota"):
        runs.open(minicluster, startTimeout=5)
    runs.wait_nothing_left()


def test_a_queue_that_is_not_there_is_named_and_where_kueue_says_so(runs: Runs, with_kueue: None) -> None:
    with pytest.raises(ProvisionError, match=r"queue nowhere\); `kubectl describe workload job-"):
        runs.open(spec(runs.image, jobLabels={"kueue.x-k8s.io/queue-name": "nowhere"}), startTimeout=5)
    runs.wait_nothing_left()


@pytest.mark.usefixtures("queue")
def test_a_run_that_kueue_takes_back_before_its_first_client_begins_anew(runs: Runs, cluster: Cluster) -> None:
    name = run_name(RunId("test", "queued"))
    config = runs.config(spec(runs.image, **QUEUED), **PATIENCE)
    workloads = Workloads(cluster, runs.namespace)
    waiting = ClusterProvisioner(DirectMode, name, config, "asked for")
    waiting.ensure()
    wait_until("its pod to run", lambda: "Running" in phases(runs), LIMIT)
    workloads.activate(name, False)
    wait_until("its pod to be gone", lambda: not phases(runs), LIMIT)
    assert [one.state for one in instances(config, {})] == ["suspended"]
    assert [one.ended for one in reap(runs.config(startTimeout=0.001), {}, dry_run=True)] == [False]
    workloads.activate(name, True)
    session = runs.open(spec(runs.image, **QUEUED), run_id="queued", **PATIENCE)
    assert job(session, "true").ok


def phases(runs: Runs) -> list[str]:
    return [one["status"].get("phase", "") for one in runs.bed.objects("pods", runs.namespace)]


# -- our Flux Operator


@pytest.fixture(scope="module")
def controller(cluster: Cluster, with_kueue: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with running(cluster, tmp_path_factory.mktemp("operator")):
        yield


@pytest.mark.usefixtures("controller", "queue")
def test_a_minicluster_is_suspended_until_kueue_admits_it_and_whenever_kueue_takes_it_back(
    cluster: Cluster, namespace: str, tmp_path: Path
) -> None:
    miniclusters = MiniClusters(cluster, namespace)
    workloads = Workloads(cluster, namespace)
    miniclusters.apply("first", "sleep 600", **QUEUED)
    miniclusters.wait("first", known.READY)
    miniclusters.apply("second", "hostname", **QUEUED)
    held = miniclusters.wait("second", known.SUSPENDED)
    assert f"Kueue has not admitted it (queue {QUEUE})" in held["message"]
    # Taken back: the lead ends in good order, nothing has failed, and the other one has its turn.
    workloads.activate("first", False)
    miniclusters.wait("first", known.SUSPENDED)
    miniclusters.wait("second", known.COMPLETED)
    assert miniclusters.lead_log("second") == "second-0\n"
    # And admitted again: it runs again.
    workloads.activate("first", True)
    miniclusters.wait("first", known.READY)
    assert miniclusters.condition("first", known.FAILED).get("status") != "True"
    status = miniclusters.get("first", "jobs")["status"]
    assert not status.get("failed"), status
