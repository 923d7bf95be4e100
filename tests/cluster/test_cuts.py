"""What breaks between client and pods, and in them, while jobs run."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import yaml

from executors import JobRequest, Outcome
from tests.cluster.proxy import Proxy
from tests.cluster.runs import LIMIT, Runs, job, spec
from tests.cluster.testbed.cluster import Cluster
from tests.cluster.testbed.waiting import wait_until


def test_a_run_goes_on_when_the_api_server_is_restarted(cluster: Cluster, runs: Runs) -> None:
    session = runs.open()
    script = "for i in 1 2 3 4 5 6 7 8; do echo $i; sleep 0.5; done"
    [handle] = session.submit([JobRequest(argv=["sh", "-c", script])])
    stream = handle.output()
    first = next(stream)
    cluster.restart_api_server()
    assert handle.result(LIMIT).outcome is Outcome.COMPLETED
    assert (first + b"".join(stream)).split() == [b"1", b"2", b"3", b"4", b"5", b"6", b"7", b"8"]
    assert job(session, "true").ok


def test_a_run_goes_on_when_the_kubelet_is_restarted(cluster: Cluster, runs: Runs) -> None:
    session = runs.open()
    [handle] = session.submit([JobRequest(argv=["sleep", "2"])])
    cluster.restart_kubelet()
    assert handle.result(LIMIT).outcome is Outcome.COMPLETED
    assert job(session, "true").ok


def test_jobs_submitted_across_a_cut_run_once_each(cluster: Cluster, runs: Runs, tmp_path: Path) -> None:
    with Proxy(cluster) as proxy:
        runs.kubeconfig = proxy.kubeconfig(tmp_path)
        session = runs.open()
        handles = []
        for batch in range(10):
            handles += session.submit([JobRequest(argv=["true"], key=f"{batch}-{at}") for at in range(20)])
            if batch in (2, 5, 8):
                proxy.cut()
        assert {handle.result(LIMIT).outcome for handle in handles} == {Outcome.COMPLETED}
        assert len({handle.id for handle in handles}) == 200
        known = session.jobs(keys=[handle.key for handle in handles])
        assert {job.id for job in known} <= {handle.id for handle in handles}
        session.close()


def test_a_stream_that_goes_silent_without_closing_is_noticed_and_taken_up_again(
    cluster: Cluster, runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Proxy(cluster) as proxy:
        runs.kubeconfig = proxy.kubeconfig(tmp_path)
        session = runs.open()
        # A minute of silence is what users get; the mechanism is the same with two seconds.
        monkeypatch.setattr(session._client, "_ping_interval", 0.5)
        monkeypatch.setattr(session._client, "_silence_limit", 2.0)
        [handle] = session.submit([JobRequest(argv=["sleep", "1"])])
        proxy.hold()
        assert handle.result(LIMIT).outcome is Outcome.COMPLETED
        assert job(session, "true").ok
        session.close()


def test_a_lost_lead_pod_makes_its_jobs_unknown_and_the_run_end(runs: Runs) -> None:
    session = runs.open(spec(runs.image, size=2))
    [handle] = session.submit([JobRequest(argv=["sleep", "600"])])
    wait_until("the job to run", lambda: handle.state == "RUN", LIMIT)
    pod = runs.pod(session.run_name, 0)["metadata"]["name"]
    # As when its node dies: nothing in it has time to say goodbye.
    runs.bed.kill_in_pod("flux-broker", pod, runs.namespace)
    result = handle.result(LIMIT)
    assert result.outcome in (Outcome.UNKNOWN, Outcome.LOST)
    assert result.exception is not None and ("lead broker" in result.exception.note or pod in result.exception.note)
    session.close()
    assert runs.left() == []


def test_a_lead_pod_that_is_asked_to_go_ends_its_jobs_and_never_as_success(runs: Runs) -> None:
    session = runs.open()
    [handle] = session.submit([JobRequest(argv=["sleep", "600"])])
    wait_until("the job to run", lambda: handle.state == "RUN", LIMIT)
    pod = runs.pod(session.run_name, 0)["metadata"]["name"]
    runs.bed.kubectl("delete", "pod", pod, f"--namespace={runs.namespace}", "--wait=false")
    # Nobody has cancelled it.
    assert handle.result(LIMIT).outcome in (Outcome.UNKNOWN, Outcome.LOST)
    session.close()
    assert runs.left() == []


def test_a_lost_follower_loses_its_jobs_only_and_comes_back(runs: Runs) -> None:
    session = runs.open(spec(runs.image, size=2))
    on_lead, on_follower = session.submit(
        [
            JobRequest(argv=["sleep", seconds], constraint={"ranks": [rank]})
            for rank, seconds in (("0", "8"), ("1", "600"))
        ]
    )
    wait_until("the jobs to run", lambda: on_lead.state == on_follower.state == "RUN", LIMIT)
    pod = runs.pod(session.run_name, 1)["metadata"]
    runs.bed.kubectl("delete", "pod", pod["name"], f"--namespace={runs.namespace}", "--grace-period=0", "--force")
    result = on_follower.result(LIMIT)
    assert result.outcome is Outcome.LOST, result
    assert on_lead.result(LIMIT).outcome is Outcome.COMPLETED
    # A new pod of the same index joins as the same rank.
    both = session.submit([JobRequest(argv=["hostname"], nodes=2, tasks=2)])[0]
    assert both.result(LIMIT).outcome is Outcome.COMPLETED
    assert runs.pod(session.run_name, 1)["metadata"]["uid"] != pod["uid"]


def test_an_agent_that_is_killed_is_started_again_and_its_jobs_go_on(runs: Runs) -> None:
    session = runs.open()
    [handle] = session.submit([JobRequest(argv=["sleep", "3"])])
    wait_until("the job to run", lambda: handle.state == "RUN", LIMIT)
    pod = runs.pod(session.run_name, 0)["metadata"]["name"]
    runs.bed.kubectl("exec", pod, f"--namespace={runs.namespace}", "--", "pkill", "-KILL", "-f", "agent.pyz serve")
    assert handle.result(LIMIT).outcome is Outcome.COMPLETED
    assert job(session, "true").ok


def test_a_token_that_expires_during_a_run_is_read_anew(cluster: Cluster, runs: Runs, tmp_path: Path) -> None:
    """The token's file holds a valid one at first, then a worthless one while the stream is cut, then a valid one."""
    good = yaml.safe_load(Path(cluster.service_account_kubeconfig(runs.namespace, "worker")).read_text())
    cluster.kubectl(
        "create", "rolebinding", "worker", "--clusterrole=admin", f"--serviceaccount={runs.namespace}:worker",
        f"--namespace={runs.namespace}",
    )  # fmt: skip
    [user] = good["users"]
    token_file = tmp_path / "token"
    token = user["user"].pop("token")
    token_file.write_text(token)
    user["user"]["tokenFile"] = str(token_file)
    with Proxy(cluster) as proxy:
        runs.kubeconfig = proxy.kubeconfig(tmp_path, good)
        session = runs.open()
        token_file.write_text("worthless")
        proxy.cut()
        time.sleep(0.5)  # at least one attempt with the worthless token
        token_file.write_text(token)
        assert job(session, "true").ok
        session.close()
