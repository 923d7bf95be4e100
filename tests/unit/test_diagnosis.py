"""What is read from pods, events and Jobs."""

from __future__ import annotations

from typing import Any

import pytest

from executors.provision.diagnosis import Fatal, Pending, is_running, of_event, of_job, of_pod, started_pod


def pod(
    phase: str, *containers: dict[str, Any], init: tuple[dict[str, Any], ...] = (), **status: Any
) -> dict[str, Any]:
    given = {"phase": phase, "containerStatuses": list(containers), "initContainerStatuses": list(init), **status}
    return {"metadata": {"name": "p"}, "status": given}


def container(**state: Any) -> dict[str, Any]:
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
def test_what_time_does_not_cure_is_fatal(given: dict[str, Any], words: str) -> None:
    found = of_pod(given)
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
def test_what_may_yet_come_is_pending(given: dict[str, Any], words: str) -> None:
    found = of_pod(given)
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
    assert isinstance(of_pod(given), expected)


def test_a_pod_runs_when_all_its_containers_do() -> None:
    assert of_pod(pod("Running", RUNS)) is None and is_running(pod("Running", RUNS, RUNS))
    assert not is_running(pod("Running", RUNS, container(waiting={})))
    assert not is_running(pod("Running"))
    leaving = pod("Running", RUNS)
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert not is_running(leaving)


def event(kind: str, reason: str) -> dict[str, Any]:
    return {"involvedObject": {"kind": kind, "name": "x"}, "reason": reason, "message": "said"}


def test_events_tell_what_pods_do_not() -> None:
    assert isinstance(of_event(event("Job", "FailedCreate")), Fatal)
    assert isinstance(of_event(event("Pod", "NotTriggerScaleUp")), Fatal)
    assert of_event(event("Pod", "TriggeredScaleUp")) == Pending("pod x: said", scaling=True)
    assert of_event(event("Pod", "Pulled")) is None
    assert isinstance(of_event(event("Pod", "FailedMount")), Pending)


@pytest.mark.parametrize(
    ("kind", "words"), [("Failed", "failed (BackoffLimit)"), ("SuccessCriteriaMet", "is complete (BackoffLimit)")]
)
def test_a_jobs_end_is_told_by_its_conditions(kind: str, words: str) -> None:
    job = {
        "metadata": {"name": "j"},
        "status": {"conditions": [{"type": kind, "status": "True", "reason": "BackoffLimit"}]},
    }
    found = of_job(job)
    assert isinstance(found, Fatal) and found.reason == f"job j {words}"


def test_a_job_that_goes_on_has_no_end() -> None:
    assert of_job({"metadata": {"name": "j"}}) is None
    suspended = {"type": "Suspended", "status": "True"}
    assert of_job({"metadata": {"name": "j"}, "status": {"conditions": [suspended]}}) is None


def test_the_kubelets_event_tells_of_a_start_before_the_pods_state_does() -> None:
    about = {"kind": "Pod", "name": "run-0", "uid": "u1", "fieldPath": "spec.containers{flux}"}
    assert started_pod({"reason": "Started", "involvedObject": about}, "flux") == "u1"
    assert started_pod({"reason": "Started", "involvedObject": about}, "sidecar") is None
    assert started_pod({"reason": "Created", "involvedObject": about}, "flux") is None
