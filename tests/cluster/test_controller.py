"""Our Flux Operator with a real Kubernetes: a MiniCluster is applied, and it is there, and tells the truth of itself.

It runs with exactly the rights that it is published with.
"""

from __future__ import annotations

import base64
import json
import signal
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from executors.controller.manifests import NAME, NAMESPACE, manifests
from executors.controller.names import UPSTREAM_LEASE
from tests.cluster.operators import LIMIT, MiniClusters, deploy, installed, operator_program, wait_for_leader
from tests.cluster.testbed.cluster import Cluster
from tests.cluster.testbed.processes import Program
from tests.cluster.testbed.waiting import wait_until
from tests.support.upstream import miniclusters


@pytest.fixture(scope="module")
def kubeconfig(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with installed(cluster, tmp_path_factory.mktemp("operator")) as found:
        yield found


@pytest.fixture(scope="module")
def controller(cluster: Cluster, kubeconfig: Path) -> Iterator[Program]:
    program = operator_program(cluster, kubeconfig)
    program.start()
    wait_for_leader(cluster)
    yield program
    program.stop()


@pytest.fixture(scope="module")
def mc(cluster: Cluster, controller: Program) -> Iterator[MiniClusters]:
    name = cluster.create_namespace(labels={})
    yield MiniClusters(cluster, name)
    cluster.delete_namespace(name)


ROOT = Path(__file__).parents[2]
#: Examples with a field that no CRD of v1alpha2 knows any more.
_DROPPED = ("machine-learning__fireworks", "machine-learning__tensorflow")


def broken_rules(program: Program) -> list[str]:
    """What the controller was not allowed, or failed at."""
    return [line for line in program.tail(1000).splitlines() if " cannot " in line or "Traceback" in line]


def test_the_commands_output_is_in_the_leads_log(mc: MiniClusters) -> None:
    mc.apply("hello", "echo hello world", size=2)
    mc.wait("hello", "Completed")
    assert mc.lead_log("hello") == "hello world\n"
    status = mc.get("hello")["status"]
    assert (status["size"], status["maximumSize"], status["selector"]) == (2, 2, "hpa-selector=hello")
    assert status["jobid"] == mc.get("hello", "jobs")["metadata"]["uid"]
    assert mc.events("hello").count(("Completed", "the lead's command ended with exit code 0")) == 1


@pytest.mark.parametrize(
    ("spec", "output"),
    [
        ({"size": 4, "command": "echo hello world"}, "hello world\n"),
        ({"size": 4, "tasks": 4, "flux": {"minimalService": True}, "command": "echo hello-world"}, "hello-world\n" * 4),
        (
            {"size": 4, "command": "echo hello world", "commands": {"post": "echo hello post"}},
            "hello world\nhello post\n",
        ),
        ({"size": 2, "command": "ls /data", "volumes": {"data": {"path": "/data"}}}, "pancakes.txt\n"),
    ],
    ids=["hello-world", "minimal-service", "post", "volumes"],
)
def test_what_upstreams_own_examples_print(mc: MiniClusters, tmp_path: Path, spec: dict[str, Any], output: str) -> None:
    """Of those that this image can run, byte for byte; the others need images of their own."""
    name = mc.free_name()
    tmp_path.chmod(0o755)
    (tmp_path / "pancakes.txt").touch()
    container = {key: spec.pop(key) for key in ("commands", "volumes") if key in spec}
    for volume in container.get("volumes", {}).values():
        volume["hostPath"] = str(tmp_path)
    flux = {"container": {"disable": True}, **spec.pop("flux", {})}
    mc.apply(name, spec.pop("command"), flux=flux, container=container, **spec)
    mc.wait(name, "Completed")
    assert mc.lead_log(name) == output


def test_a_wrong_spec_is_told_whole_and_runs_when_it_is_mended(mc: MiniClusters) -> None:
    burst = {"leadBroker": {"address": "10.0.0.1", "name": "elsewhere", "size": 1}}
    mc.apply("wrong", size=0, pod={"resources": {"cpu": "1"}}, flux={"bursting": burst, "container": {"disable": True}})
    message = mc.wait("wrong", "Stalled")["message"]
    assert "spec.size: 0 must be a whole number >= 1" in message
    mc.apply("wrong", size=1, pod={"resources": {"cpu": "1"}}, flux={"bursting": burst, "container": {"disable": True}})
    wait_until("the next problems", lambda: "leadBroker" in mc.condition("wrong", "Accepted")["message"], LIMIT)
    assert "spec.pod.resources" in mc.condition("wrong", "Accepted")["message"]
    assert "job/wrong" not in mc.left()
    mc.kubectl(
        "patch", "miniclusters", "wrong", "--type=merge", '--patch={"spec":{"pod":null,"flux":{"bursting":null}}}'
    )
    mc.wait("wrong", "Completed")
    told = [reason for reason, _ in mc.events("wrong")]
    assert told.count("InvalidSpec") == 1, "what is wrong is told once"


def test_a_failed_command_is_a_failure_and_an_image_that_is_not_there_is_named(mc: MiniClusters) -> None:
    mc.apply("fails", "sh -c 'exit 3'")
    mc.apply("noimage", container={"image": "localhost/not-there:1", "imagePullPolicy": "Never"})
    assert "ended with exit code 3" in mc.wait("fails", "Failed")["message"]
    message = mc.wait("noimage", "Stalled")["message"]
    assert "image localhost/not-there:1: ErrImageNeverPull" in message


def test_cleanup_takes_the_minicluster_and_all_of_it(mc: MiniClusters) -> None:
    mc.apply("tidy", cleanup=True)
    mc.kubectl("wait", "miniclusters/tidy", "--for=delete", f"--timeout={LIMIT:g}s")
    wait_until("nothing of it to be left", lambda: not [one for one in mc.left() if "tidy" in one], 2 * LIMIT)


def test_suspended_is_no_failure_and_it_runs_again(mc: MiniClusters) -> None:
    mc.apply("pause", "sleep inf", size=2)
    mc.wait("pause", "Ready")
    mc.kubectl("patch", "job", "pause", '--patch={"spec":{"suspend":true}}')
    assert "kubectl-patch keeps it suspended" in mc.wait("pause", "Suspended")["message"]
    mc.kubectl("wait", "pods", "--selector=job-name=pause", "--for=delete", f"--timeout={LIMIT:g}s")
    mc.kubectl("patch", "job", "pause", '--patch={"spec":{"suspend":false}}')
    mc.wait("pause", "Ready")
    mc.wait("pause", "Suspended", "False")
    assert mc.get("pause", "jobs")["status"].get("failed", 0) <= 1, "a follower's, at most"
    mc.kubectl("delete", "miniclusters", "pause")


def test_the_size_follows_kubectl_scale_and_other_changes_are_refused(mc: MiniClusters) -> None:
    mc.apply("grow", interactive=True, maxSize=2)
    mc.wait("grow", "Ready")
    mc.kubectl("scale", "miniclusters/grow", "--replicas=2")
    wait_until("two ranks", lambda: ranks(mc, "grow") == "2", LIMIT)
    mc.kubectl("scale", "miniclusters/grow", "--replicas=3")
    assert "spec.size: 3 is not from 1 to 2" in mc.wait("grow", "Accepted", "False")["message"]
    mc.kubectl("scale", "miniclusters/grow", "--replicas=1")
    mc.wait("grow", "Accepted")
    wait_until("the Job to shrink", lambda: mc.get("grow", "jobs")["spec"]["completions"] == 1, LIMIT)
    assert ranks(mc, "grow") == "1"
    mc.kubectl("patch", "miniclusters", "grow", "--type=merge", '--patch={"spec":{"tasks":7}}')
    assert mc.wait("grow", "Accepted", "False")["message"].startswith("spec.tasks: cannot be changed")
    mc.kubectl("delete", "miniclusters", "grow")


def ranks(mc: MiniClusters, name: str) -> str:
    """How many brokers are online, as the lead says, where upstream's users find its socket."""
    script = ". /mnt/flux/flux-view.sh && flux resource list -s free -n -o {nnodes}"
    try:
        return mc.kubectl("exec", lead(mc, name), "--", "sh", "-c", script).strip()
    except Exception as err:  # its pod is not there yet: this is asked again
        return str(err)


def test_a_minicluster_is_resized_from_inside_by_whom_it_lets(mc: MiniClusters) -> None:
    mc.kubectl("create", "serviceaccount", "resizing")
    pod = {"serviceAccountName": "resizing", "automountServiceAccountToken": True}
    script = "sh /mnt/flux/flux-resize.sh 2 && flux run -N2 hostname"
    mc.apply("resizing", script, maxSize=2, pod=pod, container={"launcher": True})
    mc.wait("resizing", "Failed")
    assert 'cannot patch resource "miniclusters/scale"' in mc.lead_log("resizing")
    mc.kubectl("delete", "miniclusters", "resizing")
    mc.kubectl("create", "role", "resizing", "--verb=patch", "--resource=miniclusters.flux-framework.org/scale")
    mc.kubectl("create", "rolebinding", "resizing", "--role=resizing", f"--serviceaccount={mc.namespace}:resizing")
    mc.apply("resizing", script, maxSize=2, pod=pod, container={"launcher": True})
    mc.wait("resizing", "Completed")
    assert sorted(mc.lead_log("resizing").split()) == ["resizing-0", "resizing-1"]
    assert mc.get("resizing")["spec"]["size"] == 2


@pytest.fixture
def pod_metrics(cluster: Cluster, mc: MiniClusters, tmp_path: Path) -> Iterator[Callable[[str, str], None]]:
    """What a metrics server says of a MiniCluster's pods: ``pod_metrics(name, cpu)``. It is asked for objects only."""
    version = {
        "name": "v1beta1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
    }
    crd = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "pods.metrics.k8s.io", "annotations": {"api-approved.kubernetes.io": "unapproved"}},
        "spec": {
            "group": "metrics.k8s.io",
            "names": {"plural": "pods", "kind": "PodMetrics"},
            "scope": "Namespaced",
            "versions": [version],
        },
    }
    file = tmp_path / "metrics.yaml"
    file.write_text(yaml.safe_dump(crd))
    cluster.install_crd(file)

    def say(name: str, cpu: str) -> None:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        for pod in cluster.objects("pods", mc.namespace, f"hpa-selector={name}"):
            metadata = {"name": pod["metadata"]["name"], "labels": pod["metadata"]["labels"]}
            containers = [{"name": name, "usage": {"cpu": cpu, "memory": "1Mi"}}]
            said = {"metadata": metadata, "timestamp": now, "window": "1s", "containers": containers}
            kind = {"apiVersion": "metrics.k8s.io/v1beta1", "kind": "PodMetrics"}
            mc.kubectl("apply", "--filename=-", input=json.dumps({**kind, **said}))

    yield say
    cluster.kubectl("delete", f"--filename={file}")


def test_an_autoscaler_gives_it_pods_and_takes_them_again(
    mc: MiniClusters, pod_metrics: Callable[[str, str], None]
) -> None:
    mc.apply("scaled", interactive=True, maxSize=2)
    mc.wait("scaled", "Ready")
    target = {"apiVersion": "flux-framework.org/v1alpha2", "kind": "MiniCluster", "name": "scaled"}
    half = {"type": "Utilization", "averageUtilization": 50}
    spec = {
        "scaleTargetRef": target,
        "minReplicas": 1,
        "maxReplicas": 2,
        "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": half}}],
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}},
    }
    scaler = {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "scaled"}}
    mc.kubectl("apply", "--filename=-", input=json.dumps({**scaler, "spec": spec}))
    for cpu, size in (("100m", 2), ("5m", 1)):

        def is_reached(cpu: str = cpu, size: int = size) -> bool:
            pod_metrics("scaled", cpu)
            found = mc.get("scaled")
            return bool(found["spec"]["size"] == size == found["status"].get("size"))

        wait_until(f"size {size}", is_reached, 2 * LIMIT)
        wait_until("its Job", lambda size=size: mc.get("scaled", "jobs")["spec"]["parallelism"] == size, LIMIT)  # type: ignore[misc]
        mc.wait("scaled", "Ready")
    mc.kubectl("delete", "hpa/scaled", "miniclusters/scaled")


def lead(mc: MiniClusters, name: str) -> str:
    return mc.kubectl("get", "pods", f"--selector=job-name={name},job-index=0", "--output=name").strip()


def test_what_is_in_the_way_is_named_and_waited_for(mc: MiniClusters) -> None:
    """A Job and a Service that are nobody's; and what an earlier MiniCluster of the name leaves."""
    mc.kubectl("create", "job", "way", "--image=localhost/not-there:1")
    mc.apply("way", "echo went", network={"headlessName": "other"})
    assert "a Job way that belongs to no MiniCluster has this name" in mc.wait("way", "Stalled")["message"]
    mc.kubectl("create", "service", "clusterip", "taken", "--clusterip=None")
    mc.apply("taken")
    assert "a Service taken that belongs to no MiniCluster" in mc.wait("taken", "Stalled")["message"]
    mc.kubectl("delete", "job/way", "service/taken")
    mc.wait("way", "Completed")
    mc.wait("taken", "Completed")
    for _ in range(2):
        mc.kubectl("delete", "miniclusters", "taken", "--wait=false")
        mc.apply("taken", "echo again")
    mc.wait("taken", "Completed")
    assert mc.lead_log("taken") == "again\n"


def test_a_controller_that_is_killed_goes_on_where_it_was_and_a_second_one_waits(
    cluster: Cluster, mc: MiniClusters, controller: Program, kubeconfig: Path
) -> None:
    mc.apply("twice", "sleep inf")
    mc.wait("twice", "Ready")
    uid = mc.get("twice", "jobs")["metadata"]["uid"]
    first = wait_for_leader(cluster)
    second = operator_program(cluster, kubeconfig, "flux-operator-2")
    second.start()
    second.wait_for("standing by", lambda: f"standing by: {first} leads" in second.tail())
    controller.stop(signal.SIGKILL)
    mc.apply("meanwhile", "echo later")
    mc.kubectl("delete", "services", "twice")
    mc.wait("meanwhile", "Completed")
    wait_until("the Service again", lambda: "service/twice" in mc.left(), LIMIT)
    assert mc.get("twice", "jobs")["metadata"]["uid"] == uid
    assert mc.condition("twice", "Ready")["status"] == "True"
    controller.start()
    second.stop()
    wait_until("the first to lead", lambda: wait_for_leader(cluster) != first, LIMIT)
    mc.kubectl("delete", "miniclusters", "twice", "meanwhile")


def test_every_example_of_upstreams_is_made_and_what_a_quota_refuses_is_told(
    cluster: Cluster, mc: MiniClusters
) -> None:
    given, namespaces = miniclusters(), {}
    for number, (example, document) in enumerate(given.items()):
        namespaces[example] = f"{mc.namespace}-{number}"
        cluster.api.post("/api/v1/namespaces", {"metadata": {"name": namespaces[example]}})
        quota = {"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
        cluster.api.post(f"/api/v1/namespaces/{namespaces[example]}/resourcequotas", quota)
        document["metadata"]["namespace"] = namespaces[example]
    # Two have a field that upstream's CRD does not know either; the API server drops it.
    documents = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(given.values())})
    cluster.kubectl("apply", "--filename=-", "--validate=ignore", input=documents)
    try:
        # Volumes without a source, two of them for what was dropped: upstream makes no Job of these either.
        wrong = {f"{one}__minicluster" for one in ("tests__batch", *_DROPPED)}
        for example in given.keys() - wrong:
            where = MiniClusters(cluster, namespaces[example])
            name = given[example]["metadata"]["name"]
            assert "exceeded quota: none" in where.wait(name, "Stalled")["message"], example
            assert where.condition(name, "Accepted")["status"] == "True", example
            if not given[example]["spec"].get("services"):  # whose pod comes before the Job
                assert where.get(name, "jobs")["spec"]["completions"] == given[example]["spec"].get("size", 1)
        for example in wrong:
            where = MiniClusters(cluster, namespaces[example])
            assert where.wait(given[example]["metadata"]["name"], "Stalled")["reason"] == "InvalidSpec"
    finally:
        for name in namespaces.values():
            cluster.api.delete(f"/api/v1/namespaces/{name}")


def test_nothing_is_written_or_asked_while_nothing_happens(cluster: Cluster, mc: MiniClusters) -> None:
    mc.apply("idle", interactive=True)
    mc.wait("idle", "Ready")
    user = f"system:serviceaccount:{NAMESPACE}:{NAME}"

    def requests() -> list[Any]:
        events = [one for one in cluster.audit_events() if one["user"]["username"] == user]
        return [(one["verb"], one["requestURI"]) for one in events if one["verb"] != "watch"]

    before = requests()
    mc.kubectl("annotate", "miniclusters", "idle", "example.org/seen=yes")
    mc.apply("after")
    mc.wait("after", "Completed")
    about = [one for one in requests()[len(before) :] if "idle" in one[1]]
    assert about == []
    # Namespaces of other tests may still be going.
    made = [one for one in requests()[len(before) :] if f"/{mc.namespace}/" in one[1]]
    assert len(made) <= 15, made


def test_it_stands_by_while_upstreams_operator_runs(cluster: Cluster, mc: MiniClusters, controller: Program) -> None:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    spec = {"holderIdentity": "upstream", "leaseDurationSeconds": 600, "renewTime": now, "acquireTime": now}
    leases = f"/apis/coordination.k8s.io/v1/namespaces/{mc.namespace}/leases"
    cluster.api.post(leases, {"metadata": {"name": UPSTREAM_LEASE}, "spec": spec})
    try:
        wait_until("it to stand by", lambda: "standing by, because upstream's" in controller.tail(), LIMIT)
        mc.apply("waits")
        lease = cluster.api.get(f"{leases}/{UPSTREAM_LEASE}")
        lease["spec"]["leaseDurationSeconds"] = 1  # so it has run out
        cluster.api.request("PUT", f"{leases}/{UPSTREAM_LEASE}", lease)
        mc.wait("waits", "Completed")
        tail = controller.tail(1000)
        assert tail.rindex("working on") > tail.rindex("standing by, because upstream's")
    finally:
        cluster.api.delete(f"{leases}/{UPSTREAM_LEASE}")


def test_for_one_namespace_it_needs_no_right_beyond_it(
    cluster: Cluster, mc: MiniClusters, controller: Program, tmp_path: Path
) -> None:
    controller.stop()  # it would be quicker
    try:
        name = cluster.create_namespace()
        file = tmp_path / "operator.yaml"
        file.write_text(yaml.safe_dump_all([one for one in manifests(name) if one["kind"] != "Deployment"]))
        cluster.kubectl("apply", f"--filename={file}")
        kubeconfig = cluster.service_account_kubeconfig(name, NAME)
        program = operator_program(cluster, kubeconfig, "flux-operator-3", "--namespace", name)
        program.start()
        inside = MiniClusters(cluster, name)
        inside.apply("hello", "id -u", size=2)
        inside.wait("hello", "Completed")
        assert inside.lead_log("hello") == "1000\n", (
            "its pods pass the restricted standard, which that namespace enforces"
        )
        mc.apply("elsewhere")
        program.stop()
        assert [line for line in broken_rules(program) if "leases" not in line] == []
        assert mc.get("elsewhere").get("status") is None
        cluster.delete_namespace(name)
    finally:
        controller.start()
    mc.wait("elsewhere", "Completed")


def test_as_a_deployment_it_becomes_ready_and_works(
    cluster: Cluster, mc: MiniClusters, controller: Program, tmp_path: Path
) -> None:
    """What is published, but for the image: the node's, with this package from this machine."""
    if cluster.image.without_python is not None:
        pytest.skip(cluster.image.without_python)
    name = cluster.create_namespace(labels={})  # restricted pod security lets nobody mount what is on the node
    controller.stop()  # it would be quicker
    try:
        inside = MiniClusters(cluster, name)
        deploy(cluster, name, tmp_path)
        inside.apply("hello", "echo from a pod")
        inside.wait("hello", "Completed")
        assert inside.lead_log("hello") == "from a pod\n"
        log = inside.kubectl("logs", f"deployment/{NAME}")
        assert all(json.loads(line)["level"] == "info" for line in log.splitlines() if "leases" not in line), log
    finally:
        cluster.delete_namespace(name)
        controller.start()
        wait_for_leader(cluster)


def test_after_all_of_this_deleting_leaves_nothing_and_no_right_was_missing(
    mc: MiniClusters, controller: Program
) -> None:
    mc.kubectl("delete", "miniclusters", "--all")
    mc.wait_nothing_left()
    assert broken_rules(controller) == []


def example(mc: MiniClusters, name: str) -> dict[str, Any]:
    """One of examples/operator, with this bed's image."""
    text = (ROOT / "examples" / "operator" / f"{name}.yaml").read_text()
    document: dict[str, Any] = yaml.safe_load(text.replace("registry.example/tools-with-flux:1", mc.image))
    document["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "100m"}}
    mc.kubectl("apply", "--filename=-", input=json.dumps(document))
    return document


def test_an_instance_in_an_instance_has_all_pods(mc: MiniClusters) -> None:
    example(mc, "nested")
    mc.wait("nested", "Completed")
    level, *hosts = mc.lead_log("nested").split("\n")
    assert level == "level 1"
    assert sorted(hosts) == ["", "nested-0", "nested-1"]


def test_a_lead_that_has_more_jobs_than_cores_asks_for_a_second_pod(mc: MiniClusters) -> None:
    mc.kubectl("create", "serviceaccount", "elastic")
    mc.kubectl("create", "role", "elastic", "--verb=patch", "--resource=miniclusters.flux-framework.org/scale")
    mc.kubectl("create", "rolebinding", "elastic", "--role=elastic", f"--serviceaccount={mc.namespace}:elastic")
    example(mc, "elastic")
    mc.wait("elastic", "Completed")
    counts = {rank: int(count) for count, rank in (line.split() for line in mc.lead_log("elastic").splitlines())}
    assert sum(counts.values()) == 6 and counts.keys() == {"0", "1"}, "both pods have had jobs"


def test_the_certificate_is_in_no_environment_of_brokers_and_jobs_and_in_no_object_but_its_secret(
    mc: MiniClusters,
) -> None:
    mc.apply("quiet", "cat /proc/1/environ /proc/$(pgrep -o flux-broker)/environ /proc/self/environ | tr '\\0' '\\n'")
    mc.wait("quiet", "Completed")
    secrets = json.loads(mc.kubectl("get", "secrets", "--output=json"))["items"]
    [found] = [one for one in secrets if one["metadata"]["name"].startswith("quiet-curve-")]
    certificate = base64.b64decode(found["data"]["curve.cert"]).decode()
    key = certificate.split("secret-key = ")[1].split('"')[1]
    log = mc.lead_log("quiet")
    assert log.count("FLUXOP_RESOURCE=1") == 3, "all three could be read"
    assert key not in log
    assert key not in mc.kubectl("get", "miniclusters,jobs,pods,configmaps,events", "--output=json")


def test_a_restart_of_the_api_server_is_outlived(cluster: Cluster, mc: MiniClusters, controller: Program) -> None:
    mc.apply("over", "sleep inf")
    mc.wait("over", "Ready")
    cluster.restart_api_server()
    mc.apply("next", "echo next")
    mc.wait("next", "Completed")
    mc.kubectl("delete", "pods", "--selector=job-name=over", "--wait=false")
    mc.wait("over", "Ready", "False")
    mc.wait("over", "Ready")
    assert mc.condition("over", "Failed")["status"] == "False", "a pod that somebody deletes has not failed"
    mc.kubectl("delete", "miniclusters", "over", "next")
