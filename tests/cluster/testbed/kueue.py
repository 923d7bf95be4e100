"""Kueue in a bed: its controller, built from its Go module into the cache, and its webhooks."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.testbed.cache import go_program, output_of
from tests.cluster.testbed.cluster import Cluster
from tests.cluster.testbed.processes import LIMIT, Program
from tests.cluster.testbed.waiting import wait_until

# The last minor version whose libraries are those of the bed's Kubernetes.
KUEUE = "0.15.2"
_NAMESPACE = "kueue-system"
_WEBHOOK_PORT, _HEALTH_PORT, _METRICS_PORT = 9443, 8081, 8444
# Of batch Jobs and of Kueue's own objects; the others are for kinds that a bed does not have.
_WEBHOOKS = {
    *("mjob.kb.io", "vjob.kb.io", "mworkload.kb.io", "vworkload.kb.io"),
    *("mclusterqueue.kb.io", "vclusterqueue.kb.io", "mresourceflavor.kb.io", "vresourceflavor.kb.io"),
}
# It wants the certificate of its metrics in a directory of /etc, which nobody else is to see.
_WITH_CERTIFICATE = """
mount -t tmpfs tmpfs /etc
mkdir -p /etc/kueue/metrics/certs
cp "$1/tls.crt" "$1/tls.key" /etc/kueue/metrics/certs
shift
exec "$@"
"""
_CONVERTED = {"localqueues", "clusterqueues", "cohorts", "workloads"}


@cache
def program() -> Path:
    """Kueue's controller; minutes the first time. Raises Missing as ``go_program``."""
    return go_program("kueue", "sigs.k8s.io/kueue/cmd/kueue", KUEUE)


@cache
def _components() -> Path:
    """The directory of Kueue's own manifests, in its module."""
    found = output_of(["go", "mod", "download", "-json", f"sigs.k8s.io/kueue@v{KUEUE}"], what="reading Kueue's module")
    return Path(json.loads(found)["Dir"], "config", "components")


@contextmanager
def running(cluster: Cluster) -> Iterator[None]:
    """Kueue with its defaults, for Jobs that name a queue; what it has made in the cluster goes at the end."""
    controller = program()
    crds = cluster.directory / "kueue-crds.yaml"
    crds.write_text(yaml.safe_dump_all(_crds(cluster)))
    cluster.kubectl("apply", "--server-side", f"--filename={crds}")
    cluster.kubectl("wait", "--for=condition=Established", f"--filename={crds}", f"--timeout={LIMIT:g}s")
    cluster.kubectl("create", "namespace", _NAMESPACE)
    cluster.pki.server("tls", addresses=[cluster.place.address], names=[])
    config = cluster.directory / "kueue.yaml"
    config.write_text(json.dumps(_configuration(cluster)))
    running = Program(
        cluster.place,
        "kueue",
        [
            *("unshare", "--mount", "sh", "-ec", _WITH_CERTIFICATE, "sh", str(cluster.pki.directory)),
            *(str(controller), f"--config={config}", "--feature-gates=VisibilityOnDemand=false"),
        ],
        {"KUBECONFIG": str(cluster.kubeconfig), "NO_PROXY": "*"},
    )
    webhooks = cluster.directory / "kueue-webhooks.yaml"
    webhooks.write_text(yaml.safe_dump_all(_webhooks(cluster)))
    running.start()
    try:
        health = f"http://{cluster.place.address}:{_HEALTH_PORT}/readyz"
        running.wait_for("ready", lambda: cluster.api.is_ok(health))
        cluster.kubectl("apply", f"--filename={webhooks}")
        yield
    finally:
        cluster.kubectl("delete", f"--filename={webhooks}", "--ignore-not-found")
        cluster.kubectl("delete", "workloads,localqueues", "--all", "--all-namespaces", f"--timeout={LIMIT:g}s")
        cluster.kubectl("delete", "clusterqueues,resourceflavors", "--all", f"--timeout={LIMIT:g}s")
        running.stop()
        cluster.kubectl("delete", f"--filename={crds}", f"--timeout={LIMIT:g}s")
        cluster.kubectl("delete", "namespace", _NAMESPACE)


def make_queue(cluster: Cluster, namespace: str, name: str, *, cpus: str) -> None:
    """A queue of a namespace and the ClusterQueue of the same name behind it, with so many CPUs and enough memory."""
    api = "/apis/kueue.x-k8s.io/v1beta2"
    version = {"apiVersion": "kueue.x-k8s.io/v1beta2"}
    if not cluster.has(f"{api}/resourceflavors/any"):
        cluster.api.post(f"{api}/resourceflavors", {**version, "kind": "ResourceFlavor", "metadata": {"name": "any"}})
    quota = [{"name": "cpu", "nominalQuota": cpus}, {"name": "memory", "nominalQuota": "64Gi"}]
    spec: dict[str, Any] = {
        "namespaceSelector": {},
        "resourceGroups": [{"coveredResources": ["cpu", "memory"], "flavors": [{"name": "any", "resources": quota}]}],
    }
    whole = {**version, "kind": "ClusterQueue", "metadata": {"name": name}, "spec": spec}
    cluster.api.post(f"{api}/clusterqueues", whole)
    local = {**version, "kind": "LocalQueue", "metadata": {"name": name}, "spec": {"clusterQueue": name}}
    cluster.api.post(f"{api}/namespaces/{namespace}/localqueues", local)

    def active() -> bool:
        conditions = cluster.api.get(f"{api}/clusterqueues/{name}").get("status", {}).get("conditions", [])
        return any(one["type"] == "Active" and one["status"] == "True" for one in conditions)

    wait_until(f"queue {name} to be active", active, LIMIT)


def remove_queue(cluster: Cluster, namespace: str, name: str) -> None:
    """Both, after what is queued in it."""
    in_namespace = (f"--namespace={namespace}", f"--timeout={LIMIT:g}s")
    cluster.kubectl("delete", "jobs", "--all", *in_namespace)
    cluster.kubectl("delete", f"localqueue/{name}", *in_namespace)
    cluster.kubectl("delete", f"clusterqueue/{name}", f"--timeout={LIMIT:g}s")


def _configuration(cluster: Cluster) -> dict[str, Any]:
    return {
        "apiVersion": "config.kueue.x-k8s.io/v1beta2",
        "kind": "Configuration",
        "namespace": _NAMESPACE,
        "health": {"healthProbeBindAddress": f":{_HEALTH_PORT}"},
        "metrics": {"bindAddress": f":{_METRICS_PORT}"},
        "webhook": {"port": _WEBHOOK_PORT, "certDir": str(cluster.pki.directory)},
        "leaderElection": {"leaderElect": False},
        "internalCertManagement": {"enable": False},
        "integrations": {"frameworks": ["batch/job"]},
    }


def _webhooks(cluster: Cluster) -> Iterator[dict[str, Any]]:
    """Kueue's webhook configurations, reached at the program's address: in a bed nothing stands behind a Service."""
    for document in yaml.safe_load_all((_components() / "webhook" / "manifests.yaml").read_text()):
        document["metadata"]["name"] = f"kueue-{document['metadata']['name']}"
        document["webhooks"] = [one for one in document["webhooks"] if one["name"] in _WEBHOOKS]
        for one in document["webhooks"]:
            one["clientConfig"] = _client_config(cluster, one["clientConfig"]["service"]["path"])
        yield document


def _crds(cluster: Cluster) -> Iterator[dict[str, Any]]:
    """Kueue's CRDs; where a version differs from the one that is stored, Kueue converts it."""
    for file in sorted((_components() / "crd" / "bases").glob("*.yaml")):
        document = yaml.safe_load(file.read_text())
        if document["spec"]["names"]["plural"] in _CONVERTED:
            webhook = {"clientConfig": _client_config(cluster, "/convert"), "conversionReviewVersions": ["v1"]}
            document["spec"]["conversion"] = {"strategy": "Webhook", "webhook": webhook}
        yield document


def _client_config(cluster: Cluster, path: str) -> dict[str, str]:
    authority = base64.b64encode(cluster.pki.certificate.read_bytes()).decode()
    return {"url": f"https://{cluster.place.address}:{_WEBHOOK_PORT}{path}", "caBundle": authority}
