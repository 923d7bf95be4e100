"""Our Flux Operator with much to look after: a thousand pods of one MiniCluster, and five hundred that do nothing.

A control plane is enough: the pods' states are written by this program, as a node's kubelet would.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil

from bench.common import NotHere, Row, until
from bench.operator import PATH, controller_process, delete_all, resource
from executors.controller.manifests import NAME, NAMESPACE
from tests.cluster.operators import running
from tests.cluster.testbed.control_plane import ControlPlane
from tests.cluster.testbed.missing import Missing

_IMAGE = "localhost/flux:1"
_PODS = 1000
_IDLE_RESOURCES = 500
_IDLE_SECONDS = 300.0
_MIB = 2**20


def measure_operator_scale() -> list[Row]:
    try:
        bed = ControlPlane()
    except Missing as reason:
        raise NotHere(str(reason)) from None
    with bed, tempfile.TemporaryDirectory() as directory, running(bed, Path(directory)):
        return [*_thousand(bed), *_idle(bed)]


# -- one of a thousand pods


def _thousand(bed: ControlPlane) -> list[Row]:
    """Its status is right when a third, two thirds and all of them run, and when it is over."""
    namespace = bed.create_namespace(labels={})
    process = controller_process(bed)
    before, used = process.memory_info().rss, _seconds(process)
    path = f"{PATH.format(namespace)}/large"
    bed.api.post(PATH.format(namespace), resource(_IMAGE, "large", "true", size=_PODS))
    pods_path = f"/api/v1/namespaces/{namespace}/pods"

    def pods() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = bed.api.get(pods_path)["items"]
        return found

    until(lambda: len(pods()) == _PODS, "all pods", 0.5)
    made = sorted(pods(), key=lambda pod: int(pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"]))
    stages = []
    begin = time.monotonic()
    for first, last in ((_PODS * 2 // 3, _PODS), (_PODS // 3, _PODS * 2 // 3), (0, _PODS // 3)):
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda pod: _run(bed, f"{pods_path}/{pod['metadata']['name']}"), made[first:last]))
        wanted = f"{_PODS - first} of {_PODS} pods run"
        stages.append(wanted)
        until(lambda wanted=wanted: _message(bed, path, "PodsReady").startswith(wanted), wanted, 0.1)  # type: ignore[misc]
    until(lambda: _is_true(bed, path, "Ready"), "Ready", 0.1)
    seconds = time.monotonic() - begin
    grown, spent = process.memory_info().rss - before, _seconds(process) - used
    _end(bed, f"{pods_path}/{made[0]['metadata']['name']}")
    until(lambda: _is_true(bed, path, "Completed"), "Completed", 0.1)
    delete_all(bed, namespace)
    until(lambda: not pods(), "its end", 0.5)
    note = f"in {seconds:.0f} s; {spent / _PODS * 1000:.1f} ms of the controller's processor time a pod"
    return [
        Row(
            f"our Flux Operator, one MiniCluster of {_PODS:,} pods: status at a third, two thirds, all, and the end",
            "right",
            "right",
            True,
            [note],
        ),
        Row("the same: growth of the controller", f"{grown / _MIB:.0f} MiB", "<= 50 MB", grown <= 50e6),
    ]


def _run(bed: ControlPlane, path: str) -> None:
    pod = bed.api.get(path)
    name = pod["spec"]["containers"][0]["name"]
    state = {"name": name, "ready": True, "restartCount": 0, "image": _IMAGE, "imageID": "", "started": True}
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    state["state"] = {"running": {"startedAt": now}}
    pod["status"] = {
        "phase": "Running",
        "startTime": now,
        "conditions": [{"type": kind, "status": "True"} for kind in ("Initialized", "Ready", "ContainersReady")],
        "containerStatuses": [state],
    }
    bed.api.request("PUT", f"{path}/status", _without_version(pod))


def _end(bed: ControlPlane, path: str) -> None:
    pod = bed.api.get(path)
    [state] = pod["status"]["containerStatuses"]
    state["state"] = {"terminated": {"exitCode": 0, "reason": "Completed"}}
    pod["status"]["phase"] = "Succeeded"
    bed.api.request("PUT", f"{path}/status", _without_version(pod))


def _without_version(pod: dict[str, Any]) -> dict[str, Any]:
    """Whatever the controllers have written meanwhile: their fields are no part of a status."""
    return {**pod, "metadata": {key: value for key, value in pod["metadata"].items() if key != "resourceVersion"}}


def _condition(bed: ControlPlane, path: str, kind: str) -> dict[str, Any]:
    conditions = bed.api.get(path).get("status", {}).get("conditions", [])
    return next((dict(one) for one in conditions if one["type"] == kind), {})


def _message(bed: ControlPlane, path: str, kind: str) -> str:
    return str(_condition(bed, path, kind).get("message", ""))


def _is_true(bed: ControlPlane, path: str, kind: str) -> bool:
    return _condition(bed, path, kind).get("status") == "True"


def _seconds(process: psutil.Process) -> float:
    return float(sum(process.cpu_times()[:2]))


# -- many in which nothing happens


def _idle(bed: ControlPlane) -> list[Row]:
    namespace = bed.create_namespace(labels={})
    for number in range(_IDLE_RESOURCES):
        bed.api.post(PATH.format(namespace), resource(_IMAGE, f"idle-{number}", "true", size=1))
    jobs = f"/apis/batch/v1/namespaces/{namespace}/jobs"
    until(lambda: len(bed.api.get(jobs)["items"]) == _IDLE_RESOURCES, "a Job for each", 0.5)
    time.sleep(20.0)  # the pods are made, and the statuses written
    process = controller_process(bed)
    memory, used, asked = process.memory_info().rss, _seconds(process), _requests(bed)
    time.sleep(_IDLE_SECONDS)
    share = (_seconds(process) - used) / _IDLE_SECONDS
    more = _requests(bed) - asked
    what = (
        f"our Flux Operator, {_IDLE_RESOURCES} MiniClusters in which nothing happens for {_IDLE_SECONDS / 60:g} minutes"
    )
    asked_for = ", ".join(f"{count} {verb}" for verb, count in more.items()) or "none"
    return [
        Row(f"{what}: processor", f"{share:.2%} of a core", "<= 1 %", share <= 0.01, [f"{memory / _MIB:.0f} MiB"]),
        Row("the same: requests but the Lease's, and watches begun again", asked_for, "none", not more),
    ]


def _requests(bed: ControlPlane) -> Counter[str]:
    """The controller's, by verb. The audit log has none of Leases."""
    user = f"system:serviceaccount:{NAMESPACE}:{NAME}"
    mine = [one for one in bed.audit_events() if one["user"]["username"] == user and one["verb"] != "watch"]
    return Counter(str(one["verb"]) for one in mine)
