"""A MiniCluster that cannot come up says why, at once, and leaves nothing."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest

from executors import ConfigError, ProvisionError
from executors.kube import ForbiddenError
from tests.cluster.runs import Runs, spec

#: Longer than any test may take: a test that waited for it has not noticed.
PATIENCE: dict[str, Any] = {"startTimeout": 280, "scheduleTimeout": 0}


def refused(runs: Runs, minicluster: object, **run: Any) -> str:
    with pytest.raises(ProvisionError) as caught:
        runs.open(minicluster, **{**PATIENCE, **run})
    runs.wait_nothing_left()
    return str(caught.value)


def test_a_request_that_no_node_has_room_for(runs: Runs) -> None:
    text = refused(runs, spec(runs.image, container={"resources": {"requests": {"cpu": "64"}}}))
    assert "cannot be scheduled" in text and "Insufficient cpu" in text and "run.scheduleTimeout" in text


def test_a_pod_that_cannot_be_scheduled_is_given_the_time_that_the_config_names(runs: Runs) -> None:
    said: list[str] = []
    minicluster = spec(runs.image, container={"resources": {"requests": {"cpu": "64"}}})
    with pytest.raises(ProvisionError, match="Insufficient cpu"):
        runs.open(minicluster, report_progress=said.append, startTimeout=280, scheduleTimeout=1)
    assert [line for line in said if line.startswith("waiting: ") and "cannot be scheduled" in line]


def test_a_node_selector_that_no_node_has(runs: Runs) -> None:
    text = refused(runs, spec(runs.image, pod={"nodeSelector": {"no": "such"}}))
    assert "node(s) didn't match" in text


def test_an_image_that_cannot_be_pulled(runs: Runs) -> None:
    text = refused(runs, spec("localhost/no-such-image:1"))
    assert "image localhost/no-such-image:1" in text and "ErrImagePull" in text
    assert "event: " in text


def test_an_image_without_flux(runs: Runs) -> None:
    text = refused(runs, spec(runs.image, container={"environment": {"PATH": "/bin"}, "commands": {"pre": "exit 5"}}))
    assert "exit code 5" in text


def test_an_init_container_that_fails(runs: Runs) -> None:
    view = {"container": {"image": runs.image}}
    text = refused(runs, {**spec(runs.image), "flux": view})
    assert "container flux-view ended with exit code 1" in text


def test_a_quota_that_is_used_up(runs: Runs) -> None:
    runs.bed.kubectl("create", "quota", "none", "--hard=pods=0", f"--namespace={runs.namespace}")
    text = refused(runs, None)
    assert "pods are refused" in text and "exceeded quota" in text


def test_pod_security_that_is_violated(runs: Runs) -> None:
    text = refused(runs, spec(runs.image, pod={"securityContext": {"runAsUser": 0}}))
    assert "pods are refused" in text and 'violates PodSecurity "restricted' in text


def test_an_object_that_kubernetes_refuses(runs: Runs) -> None:
    with pytest.raises(ProvisionError, match="RuntimeClass"):
        runs.open(spec(runs.image, pod={"runtimeClassName": "no-such"}), **PATIENCE)
    runs.wait_nothing_left()


def test_a_secret_that_is_not_there(runs: Runs) -> None:
    text = refused(runs, spec(runs.image, container={"secrets": {"TOKEN": {"name": "nope", "key": "k"}}}))
    assert "CreateContainerConfigError" in text and 'secret "nope" not found' in text


def test_a_minicluster_that_somebody_deletes_while_it_starts(runs: Runs) -> None:
    minicluster = spec(runs.image, container={"resources": {"requests": {"cpu": "64"}}})

    def delete_when_it_waits(line: str) -> None:
        if line.startswith("waiting: "):
            runs.bed.kubectl("delete", "jobs", "--all", f"--namespace={runs.namespace}", "--wait=false")

    with pytest.raises(ProvisionError, match="deleted"):
        runs.open(minicluster, report_progress=delete_when_it_waits, startTimeout=280, scheduleTimeout=280)


def test_a_start_that_takes_longer_than_the_config_allows(runs: Runs) -> None:
    minicluster = spec(runs.image, container={"resources": {"requests": {"cpu": "64"}}})
    text = refused(runs, minicluster, startTimeout=2, scheduleTimeout=280)
    assert "not up within 2 s (run.startTimeout)" in text


def test_an_autoscaler_that_makes_room_is_waited_for_beyond_the_schedule_time_out(runs: Runs) -> None:
    """Its events are written by the test, as the Cluster Autoscaler writes them."""
    minicluster = spec(runs.image, container={"resources": {"requests": {"cpu": "64"}}})
    event = _autoscaler(runs, "TriggeredScaleUp", "pod triggered scale-up: [{pool 0->1}]")
    said: list[str] = []

    def report_progress(line: str) -> None:
        said.append(line)
        if "cannot be scheduled" in line and len(said) < 4:
            event()

    with pytest.raises(ProvisionError, match=r"run\.startTimeout"):
        runs.open(minicluster, report_progress=report_progress, startTimeout=8, scheduleTimeout=3)


def test_an_autoscaler_that_cannot_help_ends_the_wait(runs: Runs) -> None:
    minicluster = spec(runs.image, container={"resources": {"requests": {"cpu": "64"}}})
    event = _autoscaler(runs, "NotTriggerScaleUp", "pod didn't trigger scale-up: 1 max node group size reached")

    def report_progress(line: str) -> None:
        if "cannot be scheduled" in line:
            event()

    with pytest.raises(ProvisionError, match=r"max node group size reached.*run\.scheduleTimeout"):
        runs.open(minicluster, report_progress=report_progress, startTimeout=280, scheduleTimeout=15)


def _autoscaler(runs: Runs, reason: str, message: str) -> Callable[[], None]:
    def write() -> None:
        for pod in runs.bed.objects("pods", runs.namespace):
            name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
            manifest = {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"generateName": f"{name}."},
                "involvedObject": {"kind": "Pod", "name": name, "uid": uid, "namespace": runs.namespace},
                "reason": reason,
                "message": message,
                "type": "Normal",
                "source": {"component": "cluster-autoscaler"},
            }
            runs.bed.kubectl("create", f"--namespace={runs.namespace}", "--filename=-", input=json.dumps(manifest))

    return lambda: threading.Thread(target=write).start()


def test_a_namespace_that_is_not_there(runs: Runs) -> None:
    with pytest.raises(ProvisionError, match="namespace nowhere does not exist"):
        runs.open(namespace="nowhere")


def test_fields_that_direct_mode_cannot_honour_are_refused_by_name(runs: Runs) -> None:
    with pytest.raises(ConfigError, match=r"minicluster\.pod\.restartPolicy: 'Always' is not supported"):
        runs.open(spec(runs.image, pod={"restartPolicy": "Always"}))
    assert runs.left() == []


def test_an_admission_policy_that_denies_the_job(runs: Runs) -> None:
    rights = runs.bed.user_kubeconfig("nobody-in-particular", "nobody")
    runs.kubeconfig = rights
    with pytest.raises(ForbiddenError, match=r"jobs\.batch is forbidden"):
        runs.open()
