"""The test bed is a Kubernetes as its users have it, and leaves nothing behind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.cluster.pods import LIMIT, create, output_of_pod, pod_spec, run_pod
from tests.cluster.testbed import keeper
from tests.cluster.testbed.cluster import Cluster
from tests.cluster.testbed.control_plane import ControlPlane
from tests.cluster.testbed.objects import KubectlError
from tests.cluster.testbed.processes import Program
from tests.cluster.testbed.waiting import NotReached, wait_until

BROKERS = """
[bootstrap]
curve_cert = "/tmp/curve.cert"
default_port = 8050
default_bind = "tcp://eth0:%p"
default_connect = "tcp://%h.brokers:%p"
hosts = [{host = "flux-[0-1]"}]
[resource]
noverify = true
"""
# The key's mount is readable for its group, which Flux refuses.
LEAD = """
umask 077; cp /secret/curve.cert /tmp/curve.cert
exec flux broker --config-path=/config -Stbon.connect_timeout=1s -Sbroker.quorum=2 flux run -N2 hostname
"""
WHO_AM_I = """python3 - <<'END'
import json, ssl, urllib.request
account = "/var/run/secrets/kubernetes.io/serviceaccount/"
request = urllib.request.Request(
    "https://kubernetes.default.svc/apis/authentication.k8s.io/v1/selfsubjectreviews",
    json.dumps({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}).encode(),
    {"Authorization": "Bearer " + open(account + "token").read(), "Content-Type": "application/json"},
)
context = ssl.create_default_context(cafile=account + "ca.crt")
print(json.load(urllib.request.urlopen(request, context=context))["status"]["userInfo"]["username"])
END"""


def test_the_node_takes_pods(cluster: Cluster) -> None:
    (node,) = cluster.api.get("/api/v1/nodes")["items"]
    ready = [c["status"] for c in node["status"]["conditions"] if c["type"] == "Ready"]
    assert ready == ["True"]
    assert "taints" not in node["spec"]


def test_two_brokers_in_restricted_pods_run_a_job_on_both(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    subprocess.run(["flux", "keygen", str(tmp_path / "curve.cert")], check=True)
    volumes = [
        {"name": "secret", "secret": {"secretName": "curve"}},
        {"name": "config", "configMap": {"name": "brokers"}},
    ]
    pod = pod_spec(cluster.image.name, LEAD, subdomain="brokers", volumes=volumes)
    pod["containers"][0]["volumeMounts"] = [{"name": n, "mountPath": f"/{n}"} for n in ("secret", "config")]
    job = {"completionMode": "Indexed", "completions": 2, "parallelism": 2, "backoffLimit": 0}
    create(
        cluster,
        namespace,
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "curve"},
            "stringData": {"curve.cert": (tmp_path / "curve.cert").read_text()},
        },
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "brokers"},
            "data": {"broker.toml": BROKERS},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "brokers"},
            "spec": {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": {"job-name": "flux"}},
        },
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": "flux"},
            "spec": {**job, "successPolicy": {"rules": [{"succeededIndexes": "0"}]}, "template": {"spec": pod}},
        },
    )
    path = f"/api/v1/namespaces/{namespace}/pods?labelSelector=batch.kubernetes.io/job-completion-index=0"
    (lead,) = wait_until("the lead's pod", lambda: cluster.api.get(path)["items"], LIMIT)
    output = output_of_pod(cluster, namespace, lead["metadata"]["name"])
    assert sorted(output.split()) == ["flux-0", "flux-1"]


def test_a_pod_that_may_gain_privileges_is_refused(cluster: Cluster, namespace: str) -> None:
    pod = pod_spec(cluster.image.name, "true")
    del pod["containers"][0]["securityContext"]
    with pytest.raises(KubectlError, match="violates PodSecurity"):
        create(cluster, namespace, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": pod})


def test_commands_run_in_a_pod_over_a_websocket(cluster: Cluster, namespace: str) -> None:
    run_pod(cluster, namespace, "target", "sleep 600")
    assert cluster.kubectl("exec", "--stdin", "target", f"--namespace={namespace}", "--", "cat", input="hi\n") == "hi\n"
    verbs = [e["verb"] for e in cluster.audit_events(namespace) if e["objectRef"].get("subresource") == "exec"]
    # A websocket is opened by GET; the older protocol, which kubectl falls back to, by POST.
    assert set(verbs) == {"get"}


def test_a_pod_reaches_the_api_server_by_its_service_account(cluster: Cluster, namespace: str) -> None:
    run_pod(cluster, namespace, "client", WHO_AM_I)
    output = output_of_pod(cluster, namespace, "client")
    assert output.strip() == f"system:serviceaccount:{namespace}:default"


def test_a_pod_finds_its_peer_by_the_name_that_a_headless_service_gives_it(cluster: Cluster, namespace: str) -> None:
    selector = {"clusterIP": "None", "selector": {"app": "peer"}}
    peer = pod_spec(cluster.image.name, "sleep 600", hostname="peer", subdomain="peers")
    create(
        cluster,
        namespace,
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "peers"}, "spec": selector},
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "peer", "labels": {"app": "peer"}}, "spec": peer},
    )
    # A name is there a moment after its pod is ready.
    run_pod(cluster, namespace, "client", "until getent hosts peer.peers; do sleep 0.1; done")
    said = output_of_pod(cluster, namespace, "client")
    # It has one by now: its name is known.
    address = cluster.api.get(f"/api/v1/namespaces/{namespace}/pods/peer")["status"]["podIP"]
    assert said.split()[0] == address


def test_a_service_account_sees_what_its_role_allows(control_plane: ControlPlane) -> None:
    name = control_plane.create_namespace()
    config = control_plane.service_account_kubeconfig(name, "someone")
    control_plane.kubectl("create", "role", "reader", "--verb=list", "--resource=pods", f"--namespace={name}")
    control_plane.kubectl(
        "create", "rolebinding", "r", "--role=reader", f"--serviceaccount={name}:someone", f"--namespace={name}"
    )
    assert json.loads(control_plane.kubectl("get", "pods", "--output=json", kubeconfig=config))["items"] == []
    with pytest.raises(KubectlError, match="forbidden"):
        control_plane.kubectl("get", "secrets", kubeconfig=config)
    users = {event["user"]["username"] for event in control_plane.audit_events(name)}
    assert f"system:serviceaccount:{name}:someone" in users
    control_plane.delete_namespace(name)


def test_a_pod_outlives_restarts_of_the_api_server_and_of_kubelet(cluster: Cluster, namespace: str) -> None:
    run_pod(cluster, namespace, "target", "sleep 600")
    cluster.restart_api_server()
    cluster.restart_kubelet()
    inside = cluster.kubectl("exec", "target", f"--namespace={namespace}", "--", "cat", "/proc/1/cmdline")
    assert "sleep 600" in inside
    (status,) = cluster.api.get(f"/api/v1/namespaces/{namespace}/pods/target")["status"]["containerStatuses"]
    assert status["restartCount"] == 0


def test_a_bed_whose_owner_is_killed_goes_with_its_pods(cluster: Cluster) -> None:
    program = (
        "from tests.cluster.testbed.cluster import Cluster; c = Cluster(); print(c.directory, flush=True); input()"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert owner.stdout is not None
    directory = Path(owner.stdout.readline().strip())
    kubectl = [str(cluster.binaries / "kubectl"), f"--kubeconfig={directory / 'admin.kubeconfig'}"]
    subprocess.run([*kubectl, "run", "sleeper", f"--image={cluster.image.name}", "--", "sleep", "7531"], check=True)
    subprocess.run([*kubectl, "wait", "--for=condition=Ready", "pod/sleeper"], check=True)
    assert _sleepers()
    owner.kill()
    owner.communicate()
    wait_until("the end of the bed", lambda: not directory.exists(), LIMIT)
    assert not _sleepers()
    assert keeper.marked(directory) == []
    assert not Path("/sys/class/net", keeper.link_name(directory)).exists()
    assert not [path for root in keeper.hierarchies() for path in root.glob(f"{keeper.link_name(directory)}*")]
    assert str(directory) not in Path("/proc/mounts").read_text()


def _sleepers() -> list[int]:
    return [p.pid for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"] == ["sleep", "7531"]]


class _Misled(ControlPlane):
    """With an API server that does not know one of its options."""

    def _program(self, name: str, *argv: str) -> Program:
        more = ["--no-such-option"] if name == "kube-apiserver" else []
        return super()._program(name, *argv, *more)


def test_a_start_that_fails_says_why_and_leaves_nothing(control_plane: ControlPlane) -> None:
    with pytest.raises(NotReached, match="no-such-option") as failure:
        _Misled()
    assert "etcd" not in str(failure.value)
    beds = {path for path in control_plane.directory.parent.iterdir() if path.is_dir()}
    assert all((path / "keeper.pid").exists() for path in beds)
