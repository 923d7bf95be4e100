"""Our Flux Operator when things go wrong around it. A control plane is enough: what it makes and says is looked at."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from executors.controller.manifests import NAME, NAMESPACE
from executors.controller.names import PARTS_ANNOTATION
from tests.cluster.counting import Counting
from tests.cluster.operators import LEASES, LIMIT, MiniClusters, installed, operator_program, wait_for_leader
from tests.cluster.testbed.api import ApiError
from tests.cluster.testbed.cluster import OPERATOR
from tests.cluster.testbed.control_plane import ControlPlane
from tests.cluster.testbed.processes import Program
from tests.cluster.testbed.waiting import wait_until

IMAGE = "localhost/flux:1"
#: What a MiniCluster of one container has, beside its pods.
WHOLE = Counter({"Secret": 1, "ConfigMap": 1, "Service": 1, "Job": 1})


@pytest.fixture(scope="module")
def kubeconfig(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with installed(control_plane, tmp_path_factory.mktemp("operator")) as found:
        yield found


@pytest.fixture(scope="module")
def proxy(control_plane: ControlPlane) -> Iterator[Counting]:
    with Counting(control_plane) as found:
        yield found


@pytest.fixture(scope="module")
def program(
    control_plane: ControlPlane, kubeconfig: Path, proxy: Counting, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Program]:
    through = proxy.kubeconfig(tmp_path_factory.mktemp("proxy"), kubeconfig)
    found = operator_program(control_plane, through)
    yield found
    found.stop()


@pytest.fixture
def running(control_plane: ControlPlane, program: Program, proxy: Counting) -> Program:
    proxy.pass_all()
    start(control_plane, program)
    return program


@pytest.fixture
def mc(control_plane: ControlPlane) -> Iterator[MiniClusters]:
    name = control_plane.create_namespace(labels={})
    yield MiniClusters(control_plane, name, IMAGE)
    control_plane.delete_namespace(name)


def start(bed: ControlPlane, program: Program) -> None:
    """Another one, where it runs already; nobody waits for the Lease of one that was killed."""
    program.stop(signal.SIGKILL)
    for one in bed.api.get(LEASES)["items"]:
        bed.api.delete(f"{LEASES}/{one['metadata']['name']}")
    program.start()
    wait_for_leader(bed)


def owned_by(mc: MiniClusters, name: str) -> Counter[str]:
    """Kinds of what belongs to a MiniCluster as its controller."""
    uid = mc.get(name)["metadata"]["uid"]
    return Counter(
        kind
        for kind in WHOLE
        for one in mc.cluster.objects(f"{kind.lower()}s", mc.namespace)
        for owner in one["metadata"].get("ownerReferences") or []
        if owner["uid"] == uid
    )


def says(mc: MiniClusters, name: str, reason: str) -> None:
    """Waits for the reason of the Ready condition."""
    wait_until(f"{name} to be {reason}", lambda: mc.condition(name, "Ready").get("reason") == reason, LIMIT)


@pytest.mark.parametrize("answered", [False, True], ids=["not-made", "made-unanswered"])
def test_killed_at_any_of_its_requests_it_goes_on_to_one_whole_minicluster(
    control_plane: ControlPlane, mc: MiniClusters, program: Program, proxy: Counting, answered: bool
) -> None:
    for number in range(1, 100):
        name = f"kill-{number}"
        killed: list[bool] = []

        def kill(killed: list[bool] = killed) -> None:
            program.stop(signal.SIGKILL)
            killed.append(True)

        proxy.pass_all()
        start(control_plane, program)
        proxy.stop_at(number, answered, kill)
        mc.apply(name, size=2)
        wait_until("its end", lambda name=name, killed=killed: bool(killed) or is_starting(mc, name), LIMIT)  # type: ignore[misc]
        if not killed and proxy.count < number:
            break
        wait_until("the end of the program", lambda killed=killed: bool(killed), LIMIT)  # type: ignore[misc]
        proxy.pass_all()
        start(control_plane, program)
        wait_until("its pods to be waited for", lambda name=name: is_starting(mc, name), LIMIT)  # type: ignore[misc]
        assert owned_by(mc, name) == WHOLE, f"killed at request {number}"
        status = mc.get(name)["status"]
        assert (status["size"], status["observedGeneration"]) == (2, 1)
    assert number > len(WHOLE), "it writes at least what belongs to a MiniCluster"
    made = [
        one["objectRef"]["name"]
        for one in control_plane.audit_events(mc.namespace)
        if one["verb"] == "create" and one["objectRef"]["resource"] == "jobs" and one["responseStatus"]["code"] == 201
    ]
    assert sorted(made) == sorted(set(made)), "no Job was made twice"


def is_starting(mc: MiniClusters, name: str) -> bool:
    """Everything has been made, and that is told."""
    ready = mc.condition(name, "Ready")
    return ready.get("status") == "False" and ready.get("reason") not in (None, "Creating")


def test_a_spec_that_changes_without_end_is_followed_at_last_without_a_storm(
    control_plane: ControlPlane, mc: MiniClusters, running: Program
) -> None:
    mc.apply("busy", size=1, maxSize=8)
    wait_until("its Job", lambda: is_starting(mc, "busy"), LIMIT)
    changes = 300
    for number in range(changes):
        resize(control_plane, mc, "busy", 1 + number % 8 if number < changes - 1 else 5)
    wait_until("the last size", lambda: mc.get("busy", "jobs")["spec"]["parallelism"] == 5, LIMIT)
    # The size is the Job's as it was last seen, so it may come a moment after the generation.
    wait_until("the last size to be told", lambda: is_told(mc.get("busy"), 5), LIMIT)
    user = f"system:serviceaccount:{NAMESPACE}:{NAME}"
    written = [
        one
        for one in control_plane.audit_events(mc.namespace)
        if one["user"]["username"] == user and one["verb"] in ("create", "patch", "update")
    ]
    assert len(written) <= 3 * changes, "at most a size, a status and an event each"


def is_told(found: Any, size: int) -> bool:
    status = found["status"]
    return bool(status["observedGeneration"] == found["metadata"]["generation"] and status["size"] == size)


def resize(bed: ControlPlane, mc: MiniClusters, name: str, size: int) -> None:
    path = f"/apis/flux-framework.org/v1alpha2/namespaces/{mc.namespace}/miniclusters/{name}"
    while True:
        found = bed.api.get(path)
        found["spec"]["size"] = size
        try:
            bed.api.request("PUT", path, found)
            return
        except ApiError as err:
            if err.status != 409:  # its status was written meanwhile
                raise


def test_a_leader_that_was_stopped_and_goes_on_does_nothing_twice(
    control_plane: ControlPlane, mc: MiniClusters, kubeconfig: Path, running: Program
) -> None:
    second = operator_program(control_plane, kubeconfig, "flux-operator-second")
    second.start()
    try:
        second.wait_for("standing by", lambda: "standing by" in second.tail())
        running.signal(signal.SIGSTOP)
        mc.apply("meanwhile", size=2)
        wait_until("its Job", lambda: is_starting(mc, "meanwhile"), LIMIT)
        made = mc.get("meanwhile", "jobs")["metadata"]["uid"]
        running.signal(signal.SIGCONT)
        wait_until("the first to notice", lambda: "the Lease is lost" in running.tail(), LIMIT)
        mc.apply("after", size=2)
        wait_until("its Job", lambda: is_starting(mc, "after"), LIMIT)
        assert mc.get("meanwhile", "jobs")["metadata"]["uid"] == made
        assert owned_by(mc, "meanwhile") == owned_by(mc, "after") == WHOLE
    finally:
        second.stop()


# -- what refuses


def test_a_webhook_that_does_not_answer_is_told_and_waited_for(
    control_plane: ControlPlane, mc: MiniClusters, running: Program
) -> None:
    hook = {
        "name": "silent.example.org",
        "clientConfig": {"url": "https://127.0.0.1:9/"},
        "rules": [{"apiGroups": ["batch"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["jobs"]}],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": mc.namespace}},
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
    }
    hooks = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
    control_plane.api.post(hooks, {"metadata": {"name": mc.namespace}, "webhooks": [hook]})
    try:
        mc.apply("hooked")
        said = mc.wait("hooked", "Stalled")
        assert "Job hooked is refused" in said["message"] and "silent.example.org" in said["message"]
    finally:
        control_plane.api.delete(f"{hooks}/{mc.namespace}")
    wait_until("its Job", lambda: owned_by(mc, "hooked") == WHOLE, LIMIT)
    wait_until("its start to be told", lambda: is_starting(mc, "hooked"), LIMIT)


def test_pods_that_a_limit_range_refuses_are_told_in_its_words(
    control_plane: ControlPlane, mc: MiniClusters, running: Program
) -> None:
    limits = [{"type": "Container", "max": {"cpu": "50m"}}]
    path = f"/api/v1/namespaces/{mc.namespace}/limitranges"
    control_plane.api.post(path, {"metadata": {"name": "small"}, "spec": {"limits": limits}})
    mc.apply("large")
    assert "pods are refused" in mc.wait("large", "Stalled")["message"]
    assert "cpu limit of 50m" in mc.condition("large", "Stalled")["message"]


def test_a_namespace_that_is_deleted_goes_with_its_minicluster(control_plane: ControlPlane, running: Program) -> None:
    """By itself its Job would keep pods that could not be replaced any more, and they the namespace, for ever."""
    gone = MiniClusters(control_plane, control_plane.create_namespace(labels={}), IMAGE)
    gone.apply("gone")
    wait_until("its Job", lambda: is_starting(gone, "gone"), LIMIT)
    gone.kubectl("delete", "namespace", gone.namespace, f"--timeout={2 * LIMIT:g}s")
    assert "Traceback" not in running.tail(1000)


# -- what others have made


def test_a_job_of_an_older_release_is_looked_after_and_left_as_it_is(
    control_plane: ControlPlane, mc: MiniClusters, running: Program
) -> None:
    """Its template is not what this release would make, and cannot be changed."""
    mc.apply("old", size=2, maxSize=3)
    wait_until("its Job", lambda: is_starting(mc, "old"), LIMIT)
    running.stop(signal.SIGKILL)
    made = mc.get("old", "jobs")
    older = {key: made["metadata"][key] for key in ("name", "labels", "annotations", "ownerReferences")}
    older["annotations"].pop(PARTS_ANNOTATION)
    template = made["spec"]["template"]
    for label in ("batch.kubernetes.io/controller-uid", "controller-uid"):
        template["metadata"]["labels"].pop(label)
    template["spec"]["containers"][0]["command"] = ["sh", "-c", "an older release's"]
    spec = {key: value for key, value in made["spec"].items() if key not in ("selector", "template")}
    mc.kubectl("delete", "job/old", "--cascade=foreground")
    jobs = f"/apis/batch/v1/namespaces/{mc.namespace}/jobs"
    job = control_plane.api.post(jobs, {"metadata": older, "spec": {**spec, "template": template}})
    start(control_plane, running)
    resize(control_plane, mc, "old", 3)
    wait_until("its size", lambda: mc.get("old", "jobs")["spec"]["parallelism"] == 3, LIMIT)
    wait_until("it to be told", lambda: mc.get("old")["status"].get("size") == 3, LIMIT)
    now = mc.get("old", "jobs")
    assert now["metadata"]["uid"] == job["metadata"]["uid"]
    assert now["spec"]["template"] == job["spec"]["template"]
    assert mc.condition("old", "Accepted")["status"] == "True"
    assert "immutable" not in running.tail(1000)


def test_upstreams_operator_and_ours_take_turns_without_a_job_made_twice(
    control_plane: ControlPlane, mc: MiniClusters, running: Program
) -> None:
    upstream = os.environ.get(OPERATOR)
    if not upstream:
        pytest.skip(f"{OPERATOR} does not name upstream's Flux Operator (a program built from its Go sources)")
    mc.apply("ours", size=2)
    wait_until("its Job", lambda: is_starting(mc, "ours"), LIMIT)
    ours = mc.get("ours", "jobs")
    running.stop()
    environment = {"KUBECONFIG": str(control_plane.kubeconfig), "NO_PROXY": "*"}
    ports = ["--metrics-bind-address=127.0.0.1:0", "--health-probe-bind-address=127.0.0.1:0"]
    theirs = Program(control_plane.place, "upstream", [upstream, *ports], environment)
    theirs.start()
    try:
        mc.apply("theirs", size=2)
        wait_until("upstream's Job", lambda: "job/theirs" in mc.left(), LIMIT)
    finally:
        theirs.stop()
    made = mc.get("theirs", "jobs")
    for one in (ours, made):
        now = mc.get(one["metadata"]["name"], "jobs")
        assert (now["metadata"]["uid"], now["spec"]["template"]) == (one["metadata"]["uid"], one["spec"]["template"])
    running.start()
    for name in ("ours", "theirs"):
        mc.wait(name, "Accepted")
        wait_until("its status", lambda name=name: mc.get(name)["status"].get("size") == 2, LIMIT)  # type: ignore[misc]
    mc.kubectl("scale", "miniclusters/theirs", "--replicas=1")
    wait_until("its size", lambda: mc.get("theirs", "jobs")["spec"]["parallelism"] == 1, LIMIT)
    assert mc.get("theirs", "jobs")["metadata"]["uid"] == made["metadata"]["uid"]
