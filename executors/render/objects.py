"""The Kubernetes objects around the pod template.

How a MiniCluster ends (exit codes of the main container, see `entry.py`):

- the lead ends with 0: index 0 has succeeded, and with it the Job (successPolicy);
- the lead ends with anything else: the Job fails at once, with that code (podFailurePolicy);
- the lead of a MiniCluster resource is told to end, as when it is suspended, its pod is deleted or its node drained: it
  ends with `UNSERVED`, which does not count, and the next lead begins again when it may;
- the lead of a run is told to end before it has served anybody, as when the Job is suspended again (Kueue) or its node
  is drained: the same;
- a follower ends with `FOLLOWER_ENDED`, or is killed: its pod is made again (backoffLimitPerIndex times);
- the lead is killed or its node is lost: its pod is made again too, finds by the count of failures that it is not the
  first, ends with `LEAD_LOST`, and the Job fails. Evictions (DisruptionTarget) are not left out of that count, or the
  new lead could not tell.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from typing import Any

from executors.render import names
from executors.render.broker import broker_config
from executors.render.command import hook_file
from executors.render.entry import ENTRY_SCRIPT
from executors.render.minicluster import MiniCluster, Program
from executors.render.places import MOUNTED, pod_paths
from executors.render.pod import AGENT_KEY, AGENT_REST_KEY, LONGEST_VARIABLE, pod_template

Manifest = dict[str, Any]

#: Times that a follower's pod is made again.
_FOLLOWER_RESTARTS = 20
#: Exit codes that a follower's container may have and its pod be made again: ours, not started (runc), killed.
_RESTARTED = (names.FOLLOWER_ENDED, 128, 137)
#: Seconds; the CRD's default of deadlineSeconds.
_DEADLINE = 31500000
_HOOKS = {
    "init": "init",
    "pre": "pre",
    "brokerPre": "broker_pre",
    "workerPre": "worker_pre",
    "servicePre": "service_pre",
    "post": "post",
    "script": "script",
}


def labels_of(cluster: MiniCluster) -> dict[str, str]:
    """What every object and pod carries."""
    if cluster.profile.of_resource:
        known = {"app": "flux-operator", "namespace": cluster.namespace}
        return {**cluster.labels, **known, **names.OPERATOR_LABELS, names.NAME_LABEL: cluster.name}
    return {**cluster.labels, **names.LABELS, names.NAME_LABEL: cluster.name}


def labels_of_brokers(cluster: MiniCluster) -> dict[str, str]:
    """What the Job and the brokers' pods carry."""
    selector = {names.SELECTOR_LABEL: cluster.name} if cluster.profile.of_resource else {}
    return {**labels_of(cluster), **selector}


def manifest(api_version: str, kind: str, name: str, cluster: MiniCluster, **content: Any) -> Manifest:
    metadata = {"name": name, "namespace": cluster.namespace, "labels": labels_of(cluster)}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **content}


def job(cluster: MiniCluster, program: Program | None) -> Manifest:
    spec = cluster.spec
    made: dict[str, Any] = {
        "completionMode": "Indexed",
        "completions": spec.size,
        "parallelism": spec.size,
        # The owner of everything comes first, and begins when everything is there.
        "suspend": program is not None,
        "successPolicy": {"rules": [{"succeededIndexes": "0"}]},
        "backoffLimitPerIndex": _FOLLOWER_RESTARTS,
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": {
            "rules": [
                {
                    "action": "Ignore",
                    "onExitCodes": {
                        "containerName": names.flux_container_name(cluster),
                        "operator": "In",
                        "values": [names.UNSERVED],
                    },
                },
                {
                    "action": "FailJob",
                    "onExitCodes": {
                        "containerName": names.flux_container_name(cluster),
                        "operator": "NotIn",
                        "values": list(_RESTARTED),
                    },
                },
            ]
        },
        "activeDeadlineSeconds": _deadline(cluster, program),
        "template": pod_template(cluster, program, labels_of_brokers(cluster)),
    }
    if spec.backoff_limit is not None:
        made["backoffLimit"] = spec.backoff_limit
    if spec.cleanup and not cluster.profile.of_resource:  # there the resource itself goes, and with it the Job
        made["ttlSecondsAfterFinished"] = 0
    elif program is not None:
        made["ttlSecondsAfterFinished"] = math.ceil(program.ttl)
    found = manifest("batch/v1", "Job", cluster.name, cluster, spec=made)
    found["metadata"]["labels"] = {**spec.job_labels, **spec.pod.labels, **labels_of_brokers(cluster)}
    found["metadata"]["annotations"] = dict(cluster.annotations)
    return found


def _deadline(cluster: MiniCluster, program: Program | None) -> int:
    given = cluster.spec.deadline_seconds or _DEADLINE
    lifetime = math.ceil(program.max_lifetime) if program is not None else 0
    return min(given, lifetime) if lifetime else given


def secret(cluster: MiniCluster, certificate: str) -> Manifest:
    """The brokers' CURVE certificate; a user's own takes precedence."""
    text = cluster.spec.flux.curve_cert or certificate
    data = {names.CERTIFICATE_KEY: base64.b64encode(text.encode()).decode()}
    return manifest("v1", "Secret", names.secret_name(cluster), cluster, type="Opaque", immutable=True, data=data)


def config_map(cluster: MiniCluster, program: Program | None) -> Manifest:
    """Everything that the containers read and nobody has to hide."""
    data = {"entry.sh": ENTRY_SCRIPT, "broker.toml": broker_config(cluster, program), **_hooks(cluster)}
    made = manifest("v1", "ConfigMap", names.config_map_name(cluster), cluster, immutable=True, data=data)
    if program is not None:
        data[names.SHELL_KEY] = program.shell_text
        agent = base64.b64encode(program.agent).decode()
        if pod_paths(cluster.spec, agent=True) is MOUNTED:
            made["binaryData"] = {"agent.pyz": agent}
        else:  # a variable is a text
            data[AGENT_KEY], data[AGENT_REST_KEY] = agent[:LONGEST_VARIABLE], agent[LONGEST_VARIABLE:]
    return made


def _hooks(cluster: MiniCluster) -> dict[str, str]:
    made = {}
    for at, container in enumerate([*cluster.spec.containers, *cluster.spec.services]):
        for name, attribute in _HOOKS.items():
            text = getattr(container.commands, attribute)
            if text:
                made[hook_file(at, name)] = text
        if container.batch:
            made[hook_file(at, "batch")] = container.command
    return made


def headless_service(cluster: MiniCluster) -> Manifest:
    """Names for the brokers; of the lead alone in a minimal service, since all others connect to it."""
    selector = {"job-name": cluster.name}
    if cluster.spec.flux.minimal_service:
        selector["batch.kubernetes.io/job-completion-index"] = "0"
    return manifest(
        "v1",
        "Service",
        names.service_name(cluster),
        cluster,
        spec={"clusterIP": "None", "publishNotReadyAddresses": True, "selector": selector},
    )


def port_services(cluster: MiniCluster) -> list[Manifest]:
    """A Service for each sidecar that names ports."""
    made = []
    # The services' pod has the label job-name too, so that the headless Service knows it, but not this one.
    selector = {"batch.kubernetes.io/job-name": cluster.name}
    for container in cluster.spec.containers:
        if not container.ports or container is cluster.spec.flux_container:
            continue
        ports = [
            {"name": f"port-{port}", "port": port, "targetPort": port, "protocol": "TCP"} for port in container.ports
        ]
        name = names.port_service_name(cluster, container.name)
        made.append(manifest("v1", "Service", name, cluster, spec={"selector": selector, "ports": ports}))
    return made


def without_metadata(one: Manifest) -> Manifest:
    """A manifest without what only tells whose it is."""
    metadata: Mapping[str, Any] = one["metadata"]
    kept = {name: metadata[name] for name in ("name", "namespace")}
    return {**one, "metadata": kept}
