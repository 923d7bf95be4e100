"""What is read from pods, events and Jobs."""

from __future__ import annotations

from typing import Any

import pytest

from executors.kube.objects import Condition, Event, Job, ObjectReference
from executors.provision.kubernetes.diagnosis import (
    Cause,
    Fatal,
    Pending,
    broker_end,
    held,
    is_running,
    judge_job,
    judge_pod,
    started_pod,
)


def pod(phase: str, *containers: dict[str, Any], init: tuple[dict[str, Any], ...] = (), **status: Any) -> Any:
    given = {"phase": phase, "containerStatuses": list(containers), "initContainerStatuses": list(init), **status}
    return {"metadata": {"name": "p"}, "status": given}


def container(**state: Any) -> Any:
    return {"name": "c", "image": "i", "state": state}


RUNS = container(running={})


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            pod("Pending", container(waiting={"reason": "ErrImagePull", "message": "denied"})),
            "image i: ErrImagePull: denied",
        ),
        (pod("Pending", container(waiting={"reason": "CreateContainerConfigError"})), "CreateContainerConfigError"),
        (
            pod(
                "Pending",
                container(waiting={"reason": "CreateContainerConfigError", "message": 'secret "x" not found'}),
            ),
            'secret "x" not found',
        ),
        (pod("Failed", container(terminated={"exitCode": 3, "reason": "Error"})), "container c ended with exit code 3"),
        (pod("Failed", container(terminated={"exitCode": 137, "reason": "OOMKilled"})), "137 (OOMKilled)"),
        (pod("Failed", reason="Evicted", message="low on memory"), "Evicted: low on memory"),
        (pod("Failed", init=(container(terminated={"exitCode": 1}),)), "container c ended with exit code 1"),
        (pod("Failed"), "it gives no reason"),
    ],
)
def test_what_time_does_not_cure_is_fatal(given: Any, words: str) -> None:
    found = judge_pod(given, "c")
    assert isinstance(found, Fatal) and words in found.reason and "pod p" in found.reason


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (pod("Pending"), "pod p is Pending"),
        (pod("Pending", container(waiting={"reason": "ContainerCreating"})), "pod p is ContainerCreating"),
        (
            pod("Pending", conditions=[{"type": "PodScheduled", "status": "False", "message": "0/3 nodes"}]),
            "cannot be scheduled: 0/3 nodes",
        ),
        (
            # Where the API server tells the kubelet late that this pod, and so its ConfigMap, is its business.
            pod(
                "Pending",
                container(
                    waiting={
                        "reason": "CreateContainerConfigError",
                        "message": "failed to sync configmap cache: timed out waiting for the condition",
                    }
                ),
            ),
            "CreateContainerConfigError",
        ),
    ],
)
def test_what_may_yet_come_is_pending(given: Any, words: str) -> None:
    found = judge_pod(given, "c")
    assert isinstance(found, Pending) and words in found.reason


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ('secret "run-curve-0a1b2c" not found', Pending),
        ('configmap "run-entrypoint" not found', Pending),
        ('secret "run-password" not found', Fatal),
        ('secret "other-curve" not found', Fatal),
        ("couldn't find key a in Secret science/run-curve", Fatal),
    ],
)
def test_only_our_own_configmap_and_secret_may_be_seen_late(message: str, expected: type) -> None:
    given = pod("Pending", container(waiting={"reason": "CreateContainerConfigError", "message": message}))
    given["metadata"]["labels"] = {"job-name": "run"}
    assert isinstance(judge_pod(given, "c"), expected)


def named(name: str, **state: Any) -> Any:
    return {**container(**state), "name": name}


ENDED = {"exitCode": 0, "reason": "Completed"}


@pytest.mark.parametrize(
    "beside",
    [
        named("mesh", running={}),
        named("mesh", waiting={"reason": "ErrImagePull"}),
        named("mesh", waiting={"reason": "CrashLoopBackOff"}),
        named("mesh", terminated=ENDED),
        named("mesh", terminated={"exitCode": 1, "reason": "Error"}),
    ],
)
@pytest.mark.parametrize("phase", ["Running", "Pending"])
def test_a_pod_is_up_with_its_broker_whatever_becomes_of_the_containers_beside(
    beside: dict[str, Any], phase: str
) -> None:
    for order in ((RUNS, beside), (beside, RUNS)):
        given = pod(phase, *order)
        assert is_running(given, "c") and judge_pod(given, "c") is None and broker_end(given, "c") is None
        assert judge_pod(pod(phase, *order, init=(beside,)), "c") is None or beside["state"].get("waiting")


def test_a_pod_is_not_up_before_its_broker_nor_when_it_leaves() -> None:
    assert not is_running(pod("Running", container(waiting={}), named("mesh", running={})), "c")
    assert not is_running(pod("Running"), "c")
    leaving = pod("Running", RUNS)
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert not is_running(leaving, "c")


@pytest.mark.parametrize(
    ("code", "reason", "words"), [(0, "Completed", "exit code 0"), (137, "Error", "exit code 137")]
)
def test_a_broker_that_has_ended_beside_an_endless_container_has_ended(code: int, reason: str, words: str) -> None:
    ended = container(terminated={"exitCode": code, "reason": reason})
    given = pod("Running", ended, named("mesh", running={}))
    assert words in str(broker_end(given, "c")) and isinstance(judge_pod(given, "c"), Fatal)


def test_a_broker_that_needed_too_much_memory_is_told_with_its_limit() -> None:
    given = pod("Running", container(terminated={"exitCode": 137, "reason": "OOMKilled"}), named("mesh", running={}))
    given["spec"] = {"containers": [{"name": "c", "resources": {"limits": {"memory": "2Gi"}}}]}
    assert str(broker_end(given, "c")).endswith("exit code 137 (OOMKilled); its memory limit is 2Gi")


def test_a_broker_that_had_served_nobody_is_made_anew() -> None:
    given = pod("Failed", container(terminated={"exitCode": 77, "reason": "Error"}))
    assert broker_end(given, "c") is None and isinstance(judge_pod(given, "c"), Pending)


def test_a_broker_that_its_kubelet_starts_again_has_not_ended() -> None:
    given = pod("Running", container(terminated={"exitCode": 1}))
    given["spec"] = {"restartPolicy": "OnFailure"}
    assert broker_end(given, "c") is None
    given["status"]["containerStatuses"][0]["state"]["terminated"] = ENDED
    assert broker_end(given, "c") is not None


def test_a_sidecar_that_has_to_come_first_may_fail_for_a_while() -> None:
    """Service meshes' native sidecars do, until what they ask is there."""
    crashes = named("mesh", waiting={"reason": "CrashLoopBackOff", "message": "back-off"})
    found = judge_pod(pod("Pending", container(waiting={"reason": "PodInitializing"}), init=(crashes,)), "c")
    assert isinstance(found, Pending) and found.cause is Cause.BLOCKED and "mesh" in found.reason


# -- who holds a Job


def suspended(by: bool = True, **metadata: Any) -> Any:
    return {"metadata": {"name": "j", "uid": "j1", **metadata}, "spec": {"suspend": by}}


def test_a_job_that_runs_is_held_by_nobody() -> None:
    assert held(suspended(False), []) is None


def test_who_holds_a_job_is_who_wrote_it_last() -> None:
    fields: dict[str, Any] = {"f:spec": {"f:suspend": {}}}
    entries = [
        {"manager": "ours", "time": "2026-01-01T00:00:00Z", "fieldsV1": fields},
        {"manager": "kubectl-patch", "time": "2026-01-01T00:00:09Z", "fieldsV1": fields},
        {"manager": "kube-controller-manager", "time": "2026-01-01T00:00:10Z", "fieldsV1": {"f:status": {}}},
    ]
    found = held(suspended(managedFields=entries), [])
    assert found == Pending("job j is suspended: kubectl-patch keeps it suspended", Cause.HELD)
    assert "somebody" in str(held(suspended(), []))


def test_kueues_own_words_say_why_a_job_is_not_admitted() -> None:
    job = suspended(labels={"kueue.x-k8s.io/queue-name": "team-a"})
    assert held(job, []) == Pending("job j is suspended: Kueue has not admitted it (queue team-a)", Cause.HELD)
    made: Any = {
        "involvedObject": {"kind": "Job", "name": "j", "uid": "j1"},
        "reason": "CreatedWorkload",
        "message": "Created Workload: ns/job-j-1a2b",
    }
    why: Any = {
        "involvedObject": {"kind": "Workload", "name": "job-j-1a2b", "uid": "w1"},
        "reason": "Pending",
        "message": "insufficient unused quota for cpu",
    }
    others: Any = {**why, "involvedObject": {"kind": "Workload", "name": "job-k-1a2b"}, "message": "no"}
    assert str(held(job, [made, why, others])).count("(queue team-a): insufficient unused quota for cpu") == 1
    assert "(queue team-a); `kubectl describe workload job-j-1a2b` tells why" in str(held(job, [made, others]))


@pytest.mark.parametrize(
    ("kind", "words"), [("Failed", "failed (BackoffLimit)"), ("SuccessCriteriaMet", "is complete (BackoffLimit)")]
)
def test_a_jobs_end_is_told_by_its_conditions(kind: str, words: str) -> None:
    job: Job = {
        "metadata": {"name": "j"},
        "status": {"conditions": [{"type": kind, "status": "True", "reason": "BackoffLimit"}]},
    }
    found = judge_job(job)
    assert isinstance(found, Fatal) and found.reason == f"job j {words}"


def test_a_job_that_goes_on_has_no_end() -> None:
    assert judge_job({"metadata": {"name": "j"}}) is None
    suspended: Condition = {"type": "Suspended", "status": "True"}
    assert judge_job({"metadata": {"name": "j"}, "status": {"conditions": [suspended]}}) is None


def test_the_kubelets_event_tells_of_a_start_before_the_pods_state_does() -> None:
    about: ObjectReference = {
        "kind": "Pod", "name": "run-0", "uid": "u1", "fieldPath": "spec.containers{flux}"
    }  # fmt: skip
    started: Event = {"metadata": {"name": "run-0.1"}, "reason": "Started", "involvedObject": about}
    created: Event = {"metadata": {"name": "run-0.2"}, "reason": "Created", "involvedObject": about}
    assert started_pod(started, "flux") == "u1"
    assert started_pod(started, "sidecar") is None
    assert started_pod(created, "flux") is None
