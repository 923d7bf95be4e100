"""What our Flux Operator makes of a MiniCluster resource: the same objects, with the resource as their owner."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from executors.render import names
from executors.render.minicluster import MiniCluster
from executors.render.objects import (
    Manifest,
    config_map,
    headless_service,
    job,
    labels_of,
    manifest,
    port_services,
    secret,
)
from executors.render.pod import services_pod
from executors.schema import MINICLUSTER_API_VERSION


def render_operated(cluster: MiniCluster, certificate: str, uid: str, *, isolated: bool = False) -> list[Manifest]:
    """Secret, ConfigMap, Services, the services' pod, and last the Job, which needs them all. ``isolated``: and a
    NetworkPolicy, by which nobody else reaches the brokers.

    ``cluster`` has the profile of a resource, whose uid is ``uid``; ``certificate``: see `render_direct`. Each has an
    ownerReference to it, as its controller, so that no two controllers ever take an object for theirs.
    """
    made = [secret(cluster, certificate), config_map(cluster, None), headless_service(cluster), *port_services(cluster)]
    if isolated:
        made.append(network_policy(cluster))
    pod = services_pod(cluster, labels_of(cluster))
    if pod is not None:
        made.append(pod)
    made.append(job(cluster, None))
    reference = owner_reference(cluster.name, uid)
    return [{**one, "metadata": {**one["metadata"], "ownerReferences": [reference]}} for one in made]


def network_policy(cluster: MiniCluster) -> Manifest:
    """Brokers are reached by the pods of their MiniCluster only; the ports that the spec names by everybody."""
    ours = {"matchLabels": {"job-name": cluster.name}}
    rules: list[Manifest] = [{"from": [{"podSelector": ours}]}]
    ports = [port for one in cluster.spec.containers for port in one.ports]
    if ports:
        rules.append({"ports": [{"protocol": "TCP", "port": port} for port in dict.fromkeys(ports)]})
    spec = {"podSelector": ours, "policyTypes": ["Ingress"], "ingress": rules}
    return manifest("networking.k8s.io/v1", "NetworkPolicy", names.network_policy_name(cluster), cluster, spec=spec)


def owner_reference(name: str, uid: str) -> Mapping[str, Any]:
    """Of what belongs to a MiniCluster resource."""
    return {
        "apiVersion": MINICLUSTER_API_VERSION,
        "kind": "MiniCluster",
        "name": name,
        "uid": uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
