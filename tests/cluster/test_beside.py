"""What others do to a MiniCluster's pods and Job while it starts and runs: webhooks, queues, quotas."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from executors import JobRequest, Outcome, ProvisionError
from executors.config import RunConfig
from executors.lifecycle.reap import reap
from executors.names import RunId, run_name
from executors.provision.inventory import instances
from executors.provision.kubernetes import direct, recipe
from executors.provision.kubernetes.direct import DirectMode
from executors.provision.kubernetes.provisioner import ClusterProvisioner
from executors.render import PodUser
from tests.cluster.remembering import joins_where_dns_remembers
from tests.cluster.runs import LIMIT, Runs, job, output_of, spec
from tests.cluster.testbed.cluster import Cluster
from tests.cluster.testbed.waiting import wait_until
from tests.cluster.volumes import VOLUME
from tests.cluster.webhook import ENDLESS, injecting

#: Prints what a name server says to questions for addresses.
PATIENCE: dict[str, Any] = {"startTimeout": 280, "scheduleTimeout": 280}


def state_of(config: RunConfig) -> str:
    return " ".join(one.state for one in instances(config, {}))


# -- webhooks


def test_a_container_that_a_webhook_adds_and_that_ends_leaves_the_run_as_it_is(cluster: Cluster, runs: Runs) -> None:
    with injecting(cluster, runs.namespace, "exit 1"):
        session = runs.open(run_id="beside")

        def failed() -> bool:
            found = runs.pod(session.run_name, 0)["status"].get("containerStatuses", [])
            return any("terminated" in one["state"] for one in found)

        wait_until("the container to have ended", failed, LIMIT)
        assert job(session, "true").ok
        assert output_of(runs.open(run_id="beside"), "echo", "joined") == "joined\n"
        config = runs.config(startTimeout=0.001)
        assert state_of(config) == "running"
        assert [one.ended for one in reap(config, {}, dry_run=True)] == [False]


def test_an_endless_container_beside_does_not_keep_a_minicluster_that_has_ended(cluster: Cluster, runs: Runs) -> None:
    with injecting(cluster, runs.namespace, ENDLESS):
        first = runs.open(run_id="beside", idleTimeout=1)
        first.leave()
        wait_until("the brokers' end to be told", lambda: state_of(runs.config()) == "ended", LIMIT)
        again = runs.open(run_id="beside")
        assert again.hello.instance != first.hello.instance and job(again, "true").ok
        # And a lead that is lost: its client hears of it, and removes what is left.
        [handle] = again.submit([JobRequest(argv=["sleep", "600"])])
        wait_until("the job to run", lambda: handle.state == "RUN", LIMIT)
        pod = runs.pod(again.run_name, 0)
        name, container = pod["metadata"]["name"], again.run_name
        runs.bed.kill_in_pod("-f '^broker -c'", name, runs.namespace, container=container)
        result = handle.result(LIMIT)
        assert result.outcome in (Outcome.UNKNOWN, Outcome.LOST)
        again.close()
    runs.wait_nothing_left()


# -- queues

QUEUED: dict[str, Any] = {"jobLabels": {"kueue.x-k8s.io/queue-name": "team-a"}}


def suspend(runs: Runs, name: str, value: bool) -> None:
    """As Kueue does it."""
    patch = json.dumps({"spec": {"suspend": value}})
    runs.bed.kubectl("patch", "job", name, "--type=merge", f"--patch={patch}", f"--namespace={runs.namespace}")


def suspended(runs: Runs, name: str) -> bool:
    return bool(runs.bed.object("jobs", name, runs.namespace)["spec"].get("suspend"))


def pods_of(runs: Runs) -> list[dict[str, Any]]:
    return runs.bed.objects("pods", runs.namespace)


@pytest.fixture
def with_kueue(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its API is there; what it does, the test does."""
    monkeypatch.setattr(DirectMode, "_has_kueue", lambda _self: True)


@pytest.mark.usefixtures("with_kueue")
def test_a_job_of_a_queue_begins_when_it_is_admitted_and_survives_being_suspended_before_its_first_client(
    runs: Runs,
) -> None:
    minicluster = spec(runs.image, **QUEUED)
    name = run_name(RunId("test", "queued"))
    config = runs.config(minicluster, **PATIENCE)
    waiting = ClusterProvisioner(DirectMode, name, config, "asked for")
    waiting.ensure()
    assert suspended(runs, name) and state_of(config) == "suspended"
    assert [one.ended for one in reap(runs.config(startTimeout=0.001), {}, dry_run=True)] == [False]
    for _ in range(2):  # admitted, and preempted
        suspend(runs, name, False)
        wait_until(
            "its pod to run", lambda: any(pod["status"].get("phase") == "Running" for pod in pods_of(runs)), LIMIT
        )
        suspend(runs, name, True)
        wait_until("its pod to be gone", lambda: not pods_of(runs), LIMIT)
    said: list[str] = []

    def admit(line: str) -> None:
        said.append(line)
        if line.startswith("waiting: "):
            threading.Thread(target=suspend, args=(runs, name, False)).start()

    session = runs.open(minicluster, run_id="queued", report_progress=admit, **PATIENCE)
    assert any("Kueue has not admitted it (queue team-a)" in line for line in said)
    assert job(session, "true").ok


@pytest.mark.usefixtures("with_kueue")
def test_a_queue_that_admits_nobody_is_named_when_the_wait_ends(runs: Runs) -> None:
    with pytest.raises(ProvisionError, match=r"run\.startTimeout.*queue team-a"):
        runs.open(spec(runs.image, **QUEUED), startTimeout=1)
    runs.wait_nothing_left()


def test_without_kueue_a_queues_job_begins_by_itself_and_says_so(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct, "_QUEUE_PATIENCE", 0.5)
    said: list[str] = []
    session = runs.open(spec(runs.image, **QUEUED), report_progress=said.append, **PATIENCE)
    assert job(session, "true").ok
    assert any("Kueue is not in this cluster" in line for line in said)


# -- refusals and volumes


def test_a_quota_that_refuses_once_delays(runs: Runs) -> None:
    in_namespace = f"--namespace={runs.namespace}"
    runs.bed.kubectl("create", "quota", "none", "--hard=pods=0", in_namespace)
    said: list[str] = []

    def make_room(line: str) -> None:
        said.append(line)
        if "pods are refused" in line:
            threading.Thread(target=runs.bed.kubectl, args=("delete", "quota", "none", in_namespace)).start()

    session = runs.open(report_progress=make_room, **PATIENCE)
    assert job(session, "true").ok and any("exceeded quota" in line for line in said)


def test_a_quota_that_leaves_room_for_min_size_is_enough(cluster: Cluster, runs: Runs) -> None:
    runs.bed.kubectl("create", "quota", "one", "--hard=pods=1", f"--namespace={runs.namespace}")
    # The quota's own controller counts first, or it refuses all.
    path = f"/api/v1/namespaces/{runs.namespace}/resourcequotas/one"
    wait_until("the quota to count", lambda: "hard" in cluster.api.get(path).get("status", {}), LIMIT)
    config = {"size": 2, "minSize": 1}
    session = runs.open({**spec(runs.image), **config}, **PATIENCE)
    # The Job's controller makes one pod first, which is the lead's, and then the rest.
    assert job(session, "true").ok


@pytest.mark.parametrize(
    ("volume", "words"),
    [
        ({"configMapName": "nowhere", "path": "/data"}, 'configmap "nowhere" not found'),
        ({"secretName": "nowhere", "path": "/data"}, 'secret "nowhere" not found'),
        ({"claimName": "nowhere", "path": "/data"}, 'persistentvolumeclaim "nowhere" not found'),
    ],
)
def test_a_volume_that_is_not_there_is_named_and_ends_the_wait(runs: Runs, volume: Any, words: str) -> None:
    said: list[str] = []
    minicluster = spec(runs.image, container={"volumes": {VOLUME: volume}})
    with pytest.raises(ProvisionError, match=words) as caught:
        runs.open(minicluster, report_progress=said.append, startTimeout=280, scheduleTimeout=2)
    assert "run.scheduleTimeout" in str(caught.value)
    assert any(line.startswith("waiting: ") and words in line for line in said)
    runs.wait_nothing_left()


# -- followers, and users


def test_a_follower_that_does_not_reach_its_lead_is_told_with_its_own_words(runs: Runs) -> None:
    said: list[str] = []
    session = runs.open(spec(runs.image, size=2, pod={"dnsPolicy": "Default"}), report_progress=said.append)
    session.wait_for_brokers()
    [line] = [line for line in said if line.startswith("warning: ")]
    assert "1 of 2 brokers" in line and "rank 1: " in line and "does not reach the lead broker, name " in line
    assert job(session, "true").ok, "what there is works"


def test_a_follower_joins_where_the_dns_remembers_that_its_lead_has_no_name(runs: Runs) -> None:
    joins_where_dns_remembers(runs)


def test_pods_can_be_a_user_whom_their_image_does_not_know(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under the restricted standard, as all tests here are."""
    monkeypatch.setattr(recipe, "user_of", lambda _spec: PodUser(4711, 4712, (5000,)))
    session = runs.open()
    assert output_of(session, "sh", "-c", "id -u; id -g; id -G").split() == ["4711", "4712", "4712", "5000"]
    assert session.unwritable(["/usr", "/tmp"]) == [
        line for line in session.unwritable(["/usr"]) if "user 4711, group 4712" in line
    ]


def test_how_a_followers_broker_was_lost_is_told(runs: Runs) -> None:
    said: list[str] = []
    session = runs.open(spec(runs.image, size=2), report_progress=said.append)
    session.wait_for_brokers()
    [handle] = session.submit([JobRequest(argv=["sleep", "600"], nodes=2, tasks=2)])
    wait_until("the job to run", lambda: handle.state == "RUN", LIMIT)
    pod = runs.pod(session.run_name, 1)["metadata"]["name"]
    runs.bed.kill_in_pod("-f '^broker -c'", pod, runs.namespace)
    assert handle.result(LIMIT).outcome is Outcome.LOST
    session.close()
    [line] = [line for line in said if line.startswith("warning: ")]
    assert f"rank 1 was lost: pod {pod}" in line and "exit code" in line
