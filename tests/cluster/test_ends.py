"""The ways in which a MiniCluster ends; each test turns the others off."""

from __future__ import annotations

import json
from typing import Any

import pytest

from executors import JobRequest, Outcome, Session
from executors.config import RunConfig
from executors.lifecycle.reap import reap
from executors.provision.kubernetes.direct import DirectMode
from executors.provision.kubernetes.provisioner import ClusterProvisioner
from executors.render.places import UNMOUNTED
from executors.render.pod import LIVENESS
from tests.cluster.runs import LIMIT, Runs, job, spec
from tests.cluster.testbed.objects import KubectlError
from tests.cluster.testbed.waiting import wait_until

#: Seconds, or 0 for never.
NEVER: dict[str, Any] = {"idleTimeout": 0, "orphanTimeout": 0, "maxLifetime": 86400, "ttl": 86400}


def state_of(runs: Runs, session: Session) -> str:
    """The Job's conditions, "gone" when it is."""
    found = json.loads(runs.bed.kubectl("get", "jobs", f"--namespace={runs.namespace}", "--output=json"))["items"]
    for one in found:
        if one["metadata"]["name"] == session.run_name:
            return " ".join(f"{c['type']}:{c.get('reason')}" for c in one["status"].get("conditions", []))
    return "gone"


def wait_state(runs: Runs, session: Session, words: str) -> None:
    wait_until(f"the Job to be {words}", lambda: words in state_of(runs, session), LIMIT)


def test_released_by_its_client(runs: Runs) -> None:
    session = runs.open(**NEVER)
    session.close()
    assert state_of(runs, session) == "gone"


def test_the_idle_time_out(runs: Runs) -> None:
    session = runs.open(**{**NEVER, "idleTimeout": 1})
    session.leave()
    wait_state(runs, session, "SuccessCriteriaMet")


def test_the_orphan_time_out_ends_running_jobs_too(runs: Runs) -> None:
    session = runs.open(**{**NEVER, "orphanTimeout": 2})
    [handle] = session.submit([JobRequest(argv=["sleep", "600"])])
    wait_until("the job to run", lambda: handle.state == "RUN", LIMIT)
    session.leave()
    wait_state(runs, session, "SuccessCriteriaMet")


def test_kubernetes_ends_it_at_its_greatest_age(runs: Runs) -> None:
    session = runs.open(**{**NEVER, "maxLifetime": 8})
    [handle] = session.submit([JobRequest(argv=["sleep", "600"])])
    result = handle.result(LIMIT)
    assert result.outcome in (Outcome.UNKNOWN, Outcome.LOST)
    wait_state(runs, session, "DeadlineExceeded")


def test_kubernetes_removes_what_is_left_after_its_ttl(runs: Runs) -> None:
    session = runs.open(**{**NEVER, "idleTimeout": 1, "ttl": 1})
    session.leave()
    wait_state(runs, session, "gone")
    runs.wait_nothing_left()


def test_an_agent_that_hangs_is_found_by_its_liveness_probe(runs: Runs) -> None:
    """What it says of an agent that works, hangs, and works again: the command is run here as the kubelet would."""
    session = runs.open(**NEVER)
    pod = runs.pod(session.run_name, 0)
    [container] = pod["spec"]["containers"]
    probe = container["livenessProbe"]["exec"]["command"]
    in_pod = ("exec", pod["metadata"]["name"], f"--namespace={runs.namespace}", "--")
    runs.bed.kubectl(*in_pod, *probe)
    agent = runs.bed.kubectl(*in_pod, "pgrep", "-f", "agent.pyz serve").split()[0]
    runs.bed.kubectl(*in_pod, "kill", "-STOP", agent)
    with pytest.raises(KubectlError, match="timed out"):
        runs.bed.kubectl(*in_pod, *probe)
    runs.bed.kubectl(*in_pod, "kill", "-CONT", agent)
    assert job(session, "true").ok


def test_kubernetes_ends_an_instance_whose_agent_hangs(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the kubelet's own probe and nothing else: there is no time-out, and the client only waits. (Two minutes are
    what users get; the mechanism is the same with seconds.)"""
    for name, value in {
        "initialDelaySeconds": 1,
        "periodSeconds": 1,
        "timeoutSeconds": 2,
        "failureThreshold": 2,
    }.items():
        monkeypatch.setitem(LIVENESS, name, value)
    session = runs.open(**NEVER)
    [handle] = session.submit([JobRequest(argv=["sleep", "600"])])
    wait_until("the job to run", lambda: handle.state == "RUN", LIMIT)
    pod = runs.pod(session.run_name, 0)["metadata"]
    in_pod = ("exec", pod["name"], f"--namespace={runs.namespace}", "--")
    agent = runs.bed.kubectl(*in_pod, "pgrep", "-f", "agent.pyz serve").split()[0]
    runs.bed.kubectl(*in_pod, "kill", "-STOP", agent)
    result = handle.result(LIMIT)
    assert result.outcome in (Outcome.UNKNOWN, Outcome.LOST)
    wait_state(runs, session, "Failed")
    events = runs.bed.kubectl("get", "events", f"--namespace={runs.namespace}", "--output=json")
    said = {one["reason"] for one in json.loads(events)["items"] if one["involvedObject"]["name"] == pod["name"]}
    assert {"Unhealthy", "Killing"} <= said


def decided(runs: Runs, config: RunConfig) -> dict[str, str]:
    return {one.instance.name: one.reason for one in reap(config, {}) if one.ended}


def test_reap_ends_what_nobody_has_used_for_too_long_and_leaves_the_rest(runs: Runs) -> None:
    used, unused = runs.open(**NEVER), runs.open(**NEVER)
    config = runs.config(orphanTimeout=1)
    unused.leave()
    wait_until(
        "the instance to be unused for a second",
        lambda: unused.run_name in {one.instance.name for one in reap(config, {}, dry_run=True) if one.ended},
        LIMIT,
    )
    assert list(decided(runs, config)) == [unused.run_name]
    assert state_of(runs, unused) == "gone" and job(used, "true").ok


def test_reap_ends_what_does_not_answer(runs: Runs) -> None:
    session = runs.open(**NEVER)
    in_pod = ("exec", runs.pod(session.run_name, 0)["metadata"]["name"], f"--namespace={runs.namespace}", "--")
    # The agent's socket goes, so that nobody can connect.
    session.leave()
    agent = UNMOUNTED.agent_directory
    runs.bed.kubectl(*in_pod, "mv", f"{agent}/agent.sock", f"{agent}/away")
    reasons = decided(runs, runs.config())
    assert "does not answer" in reasons[session.run_name]
    assert runs.left() == []


def test_reap_removes_what_has_ended_and_is_kept(runs: Runs) -> None:
    session = runs.open(**{**NEVER, "idleTimeout": 1})
    session.leave()
    wait_state(runs, session, "SuccessCriteriaMet")
    assert list(decided(runs, runs.config())) == [session.run_name]
    assert runs.left() == []


def test_reap_leaves_other_peoples_objects_alone(runs: Runs) -> None:
    runs.bed.kubectl("create", "job", "theirs", f"--image={runs.image}", f"--namespace={runs.namespace}")
    assert decided(runs, runs.config()) == {}
    assert "job/theirs" in runs.left()


def test_who_only_looks_does_not_keep_an_instance_alive(runs: Runs) -> None:
    from executors.lifecycle import Lifecycle

    session = runs.open(**{**NEVER, "idleTimeout": 4})
    session.leave()
    config = runs.config(**{**NEVER, "idleTimeout": 4})
    first = Lifecycle(session.run_name, config, {}).observe()
    second = Lifecycle(session.run_name, config, {}).observe()
    assert second["quiet"] > first["quiet"] > 0
    wait_state(runs, session, "SuccessCriteriaMet")


def test_a_minicluster_that_never_came_up_is_ended_at_once(runs: Runs) -> None:
    from executors.lifecycle import Lifecycle

    minicluster = spec(runs.image, container={"resources": {"requests": {"cpu": "64"}}})
    config = runs.config(minicluster, startTimeout=280, scheduleTimeout=280)
    stuck = ClusterProvisioner(DirectMode, "stuck", config, "asked for")
    stuck.ensure()
    Lifecycle("stuck", config, {}).end()
    assert runs.left() == []
