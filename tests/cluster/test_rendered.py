"""What is rendered is taken by a real API server, and does on a real node what its spec says."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest

from executors.errors import SpecError
from executors.provision.kubernetes.certificate import make_certificate
from executors.render import MiniCluster, Program, owned_by, render_direct, render_resource
from executors.spec import parse_spec
from executors.validation import direct_problems
from tests.cluster.testbed.api import ApiError
from tests.cluster.testbed.cluster import Cluster
from tests.cluster.testbed.control_plane import ControlPlane
from tests.cluster.testbed.objects import KubectlError
from tests.cluster.testbed.waiting import wait_until
from tests.support.upstream import miniclusters

LIMIT = 90.0
PATHS = {
    "Job": "/apis/batch/v1/namespaces/{}/jobs",
    "Secret": "/api/v1/namespaces/{}/secrets",
    "ConfigMap": "/api/v1/namespaces/{}/configmaps",
    "Service": "/api/v1/namespaces/{}/services",
    "Pod": "/api/v1/namespaces/{}/pods",
}
PROGRAM = Program(b"zip", ("--run", "r"), max_lifetime=600.0, ttl=60.0)

#: One of everything that direct mode renders.
EVERYTHING: dict[str, Any] = {
    "size": 2,
    "maxSize": 4,
    "minSize": 1,
    "tasks": 2,
    "cleanup": True,
    "backoffLimit": 5,
    "deadlineSeconds": 100,
    "shareProcessNamespace": True,
    "jobLabels": {"kueue.x-k8s.io/queue-name": "q"},
    "archive": {"path": "/data/archive.tar"},
    "network": {"headlessName": "brokers"},
    "logging": {"debug": True, "strict": True, "timed": True, "zeromq": True},
    "pod": {
        "annotations": {"a": "b"},
        "labels": {"c": "d"},
        "dnsPolicy": "ClusterFirst",
        "nodeAffinity": {"zone": ["a", "b"]},
        "nodeSelector": {"e": "f"},
        "schedulerName": "mine",
        "serviceAccountName": "default",
        "automountServiceAccountToken": True,
        "securityContext": {"runAsUser": 2000, "fsGroup": 2000, "supplementalGroups": [3]},
        "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
    },
    "flux": {
        "container": {
            "image": "view",
            "pullAlways": True,
            "imagePullSecret": "s",
            "pythonPath": "/p",
            "workingDir": "/",
            "resources": {"requests": {"cpu": "100m"}},
        },
        "environment": {"G": "h"},
    },
    "containers": [
        {
            "name": "main",
            "runFlux": True,
            "image": "app",
            "imagePullPolicy": "Always",
            "imagePullSecret": "t",
            "command": "echo $HOME | tr a b",
            "commands": {"init": "a=b", "pre": "a=b", "brokerPre": "a=b", "workerPre": "a=b", "post": "a=b"},
            "environment": {"I": "j"},
            "secrets": {"K": {"name": "l", "key": "m"}},
            "workingDir": "/data",
            "ports": [8080],
            "resources": {"requests": {"cpu": "1500m"}, "limits": {"nvidia.com/gpu": "1"}},
            "securityContext": {"readOnlyRootFilesystem": True},
            "lifeCycle": {"postStartExec": "true", "preStopExec": "true"},
            "volumes": {
                "claim": {"claimName": "c", "path": "/data", "readOnly": True},
                "secret": {"secretName": "s", "path": "/c"},
                "config": {"configMapName": "m", "path": "/d", "items": {"k": "p"}},
                "csi": {"csiDriver": "d.example.org", "csiDriverAttributes": {"a": "b"}, "path": "/e"},
                "scratch": {"emptyDir": True, "emptyDirSizeLimit": "1Gi", "path": "/f"},
                "shm": {"emptyDir": True, "emptyDirMedium": "memory"},
            },
        },
        {"name": "beside", "image": "web", "ports": [80, 443], "commands": {"pre": "a=b"}, "command": "serve it"},
    ],
    "services": [{"name": "db", "image": "db", "ports": [27017], "commands": {"servicePre": "a=b"}}],
}


def rendered(name: str, namespace: str, document: dict[str, Any], program: Program | None) -> list[dict[str, Any]]:
    cluster = MiniCluster(name, namespace, parse_spec(document), labels={"team": "x"})
    return render_direct(cluster, program, make_certificate(name))


def dry_run(bed: ControlPlane, namespace: str, manifest: dict[str, Any]) -> None:
    """Raises ApiError for what the API server refuses or does not know."""
    path = PATHS[manifest["kind"]].format(namespace)
    bed.api.post(f"{path}?dryRun=All&fieldValidation=Strict", manifest)


@pytest.fixture
def anything_goes(control_plane: ControlPlane) -> str:
    """A namespace without restrictions."""
    return control_plane.create_namespace(labels={})


def test_the_api_server_takes_all_that_upstreams_examples_become(
    control_plane: ControlPlane, anything_goes: str
) -> None:
    taken = 0
    for name, document in miniclusters().items():
        try:
            spec = parse_spec(document["spec"])
        except SpecError:
            continue  # upstream's own CRD refuses it
        if direct_problems(spec, program=False):
            continue
        for program in (None, PROGRAM):
            for manifest in rendered(document["metadata"]["name"], anything_goes, document["spec"], program):
                try:
                    dry_run(control_plane, anything_goes, manifest)
                except ApiError as err:
                    pytest.fail(f"{name}: {manifest['kind']}: {err}")
                taken += 1
    assert taken > 300


def test_one_of_everything_is_taken_and_owned(control_plane: ControlPlane, anything_goes: str) -> None:
    made = rendered("every", anything_goes, EVERYTHING, PROGRAM)
    owner = control_plane.api.post(PATHS["Job"].format(anything_goes) + "?fieldValidation=Strict", made[0])
    rest = owned_by(made, owner)
    assert sorted(one["kind"] for one in rest) == ["ConfigMap", "Pod", "Secret", "Service", "Service"]
    for manifest in rest:
        control_plane.api.post(PATHS[manifest["kind"]].format(anything_goes) + "?fieldValidation=Strict", manifest)
    job = PATHS["Job"].format(anything_goes) + "/every"
    control_plane.api.delete(f"{job}?propagationPolicy=Foreground")
    for manifest in [*rest, made[0]]:
        path = f"{PATHS[manifest['kind']].format(anything_goes)}/{manifest['metadata']['name']}"
        wait_until(f"the end of {path}", partial(_gone, control_plane, path), LIMIT)


def _gone(bed: ControlPlane, path: str) -> bool:
    return not bed.has(path)


def test_pods_are_admitted_where_the_restricted_standard_is_enforced(control_plane: ControlPlane) -> None:
    namespace = control_plane.create_namespace()
    document = {**EVERYTHING, "pod": {"securityContext": {"fsGroup": 5}}}
    made = rendered("every", namespace, document, PROGRAM)
    template = made[0]["spec"]["template"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": template["spec"]}
    dry_run(control_plane, namespace, pod)
    dry_run(control_plane, namespace, next(one for one in made if one["kind"] == "Pod"))


def test_upstreams_crd_takes_the_resource_with_the_agent(cluster: Cluster, namespace: str) -> None:
    if cluster.crd is None:
        pytest.skip("upstream's CRD is not here; the test bed's documents say how to name it")
    cluster.install_crd(cluster.crd)
    path = f"/apis/flux-framework.org/v1alpha2/namespaces/{namespace}/miniclusters?dryRun=All&fieldValidation=Strict"
    for document in miniclusters().values():
        try:
            spec = parse_spec(document["spec"])
        except SpecError:
            continue
        _, resource = render_resource(MiniCluster("mc", namespace, spec), PROGRAM)
        cluster.api.post(path, resource)


# -- on a node


def create(cluster: Cluster, namespace: str, document: dict[str, Any]) -> None:
    made = rendered("mc", namespace, document, None)
    for manifest in made:
        cluster.api.post(PATHS[manifest["kind"]].format(namespace) + "?fieldValidation=Strict", manifest)


def spec_of(cluster: Cluster, command: str, **more: Any) -> dict[str, Any]:
    main = {"image": cluster.image.name, "command": command, "imagePullPolicy": "Never", **more.pop("main", {})}
    beside = [{"image": cluster.image.name, "imagePullPolicy": "Never", **one} for one in more.pop("beside", [])]
    if beside:
        main["runFlux"] = True
    return {"size": 2, "flux": {"container": {"disable": True}}, "containers": [main, *beside], **more}


def over(cluster: Cluster, namespace: str) -> dict[str, str]:
    """The Job's last condition, when it has ended."""
    path = f"{PATHS['Job'].format(namespace)}/mc"

    def conditions() -> dict[str, Any] | None:
        found = cluster.api.get(path)["status"].get("conditions", [])
        return next((one for one in found if one["type"] in ("Complete", "Failed") and one["status"] == "True"), None)

    wait_until("the end of the Job", lambda: conditions() is not None, LIMIT)
    found = conditions()
    assert found is not None
    return found


def output_of(cluster: Cluster, namespace: str, index: int = 0) -> str:
    selector = f"batch.kubernetes.io/job-completion-index={index}"
    return cluster.kubectl("logs", f"--selector={selector}", f"--namespace={namespace}", "--tail=-1")


def test_a_minicluster_runs_its_command_on_all_pods_and_completes(cluster: Cluster, namespace: str) -> None:
    create(cluster, namespace, spec_of(cluster, "hostname"))
    assert over(cluster, namespace)["type"] == "Complete"
    assert sorted(output_of(cluster, namespace).split()) == ["mc-0", "mc-1"], output_of(cluster, namespace)


def test_a_command_that_fails_makes_the_job_fail_with_its_code(cluster: Cluster, namespace: str) -> None:
    create(cluster, namespace, spec_of(cluster, "sh -c 'exit 7'"))
    condition = over(cluster, namespace)
    assert (condition["type"], condition["reason"]) == ("Failed", "PodFailurePolicy")
    assert "exit code 7" in condition["message"]


def test_a_lost_lead_makes_the_job_fail(cluster: Cluster, namespace: str) -> None:
    create(cluster, namespace, spec_of(cluster, "sleep 600", main={"launcher": True}))
    pods = PATHS["Pod"].format(namespace)
    lead = "?labelSelector=batch.kubernetes.io/job-completion-index=0"

    def running() -> list[str]:
        found = cluster.api.get(pods + lead)["items"]
        return [one["metadata"]["name"] for one in found if one["status"]["phase"] == "Running"]

    wait_until("the lead to run", lambda: bool(running()), LIMIT)
    # As when memory runs out. (A lead that is deleted ends with a code of its own, which fails the Job too.)
    cluster.kubectl(
        "exec", running()[0], f"--namespace={namespace}", "--", "sh", "-c", "kill -9 $(cat /proc/1/task/1/children)"
    )
    condition = over(cluster, namespace)
    assert (condition["type"], condition["reason"]) == ("Failed", "PodFailurePolicy")
    assert "exit code 75" in condition["message"]


def test_an_endless_sidecar_and_a_service_do_not_keep_a_job_from_completing(cluster: Cluster, namespace: str) -> None:
    serve = "python3 -m http.server --directory /flux_operator"
    fetch = (
        "python3 -c 'import sys, urllib.request; [print(urllib.request.urlopen(url).status) for url in sys.argv[1:]]' "
        "http://localhost:8000/entry.sh http://mc-services.mc:9000/entry.sh"
    )
    waits = "until python3 -c 'import socket; socket.create_connection((\"mc-services.mc\", 9000))'; do sleep 0.5; done"
    document = spec_of(
        cluster,
        fetch,
        main={"launcher": True, "commands": {"brokerPre": waits}},
        beside=[{"name": "web", "command": f"{serve} 8000", "ports": [8000]}],
        services=[
            {"name": "files", "image": cluster.image.name, "imagePullPolicy": "Never", "command": f"{serve} 9000"}
        ],
        size=1,
        flux={"container": {"disable": True}, "noWaitSocket": True},
    )
    create(cluster, namespace, document)
    condition = over(cluster, namespace)
    assert condition["type"] == "Complete", json.dumps(condition) + output_of(cluster, namespace)
    assert output_of(cluster, namespace).split()[-2:] == ["200", "200"]


def test_a_read_only_root_and_another_user_are_no_trouble(cluster: Cluster, namespace: str) -> None:
    document = spec_of(
        cluster,
        "sh -c 'id -u; touch $HOME/x && echo written'",
        main={"securityContext": {"readOnlyRootFilesystem": True}},
        pod={"securityContext": {"runAsUser": 12345, "runAsGroup": 12345, "fsGroup": 12345}},
        size=1,
    )
    create(cluster, namespace, document)
    assert over(cluster, namespace)["type"] == "Complete", output_of(cluster, namespace)
    assert output_of(cluster, namespace).split() == ["12345", "written"]


def test_a_follower_that_dies_comes_back_and_the_run_goes_on(cluster: Cluster, namespace: str) -> None:
    command = (
        # The status of a broker that has just gone is no answer yet.
        "sh -c 'flux overlay status --wait full --timeout 60s; echo full; sleep 5; "
        "until flux overlay status --wait full --timeout 60s; do sleep 0.2; done'"
    )
    create(cluster, namespace, spec_of(cluster, command, main={"launcher": True}))
    wait_until("both brokers", partial(_says, cluster, namespace, "full"), LIMIT)
    pods = PATHS["Pod"].format(namespace)
    [follower] = cluster.api.get(f"{pods}?labelSelector=batch.kubernetes.io/job-completion-index=1")["items"]
    cluster.api.delete(f"{pods}/{follower['metadata']['name']}")
    assert over(cluster, namespace)["type"] == "Complete", output_of(cluster, namespace)


def _says(cluster: Cluster, namespace: str, text: str) -> bool:
    try:
        return text in cluster.kubectl("logs", "--selector=job-name=mc", f"--namespace={namespace}", "--tail=-1")
    except KubectlError:
        return False  # no container yet
