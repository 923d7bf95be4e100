"""``run.podPatch``: what may be in it, and why some fields may not. Pure.

What must not live here: what it does to the brokers' pods (`executors.render.patch`).
"""

from __future__ import annotations

from collections.abc import Mapping

from executors.schema import (
    ANY,
    FLAG,
    INT64,
    QUANTITY,
    TEXT,
    JSONValue,
    list_of,
    map_of,
    needed,
    object_of,
    one_of,
    shape_problems,
    whole,
)

_NAMED = list_of(object_of(name=needed(TEXT)))
#: ``run.podPatch``, a strategic merge patch for the Job's pod template: what of a PodTemplateSpec may be in it.
#: What is below that is Kubernetes' to judge, and `executors.render.patch`'s where brokers need it.
POD_PATCH = object_of(
    metadata=object_of(annotations=map_of(TEXT), labels=map_of(TEXT)),
    spec=object_of(
        affinity=ANY,
        automountServiceAccountToken=FLAG,
        containers=list_of(ANY),
        dnsConfig=ANY,
        dnsPolicy=one_of("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"),
        enableServiceLinks=FLAG,
        hostAliases=list_of(ANY),
        hostIPC=FLAG,
        hostNetwork=FLAG,
        hostPID=FLAG,
        hostUsers=FLAG,
        imagePullSecrets=_NAMED,
        initContainers=list_of(ANY),
        nodeName=TEXT,
        nodeSelector=map_of(TEXT),
        os=ANY,
        overhead=map_of(QUANTITY),
        preemptionPolicy=one_of("PreemptLowerPriority", "Never"),
        priority=whole(-(2**31)),
        priorityClassName=TEXT,
        readinessGates=list_of(ANY),
        resourceClaims=list_of(ANY),
        resources=ANY,
        runtimeClassName=TEXT,
        schedulerName=TEXT,
        schedulingGates=_NAMED,
        securityContext=ANY,
        serviceAccountName=TEXT,
        terminationGracePeriodSeconds=whole(0, INT64),
        tolerations=list_of(
            object_of(
                effect=one_of("NoSchedule", "PreferNoSchedule", "NoExecute"),
                key=TEXT,
                operator=one_of("Exists", "Equal"),
                tolerationSeconds=whole(-INT64, INT64),
                value=TEXT,
            )
        ),
        topologySpreadConstraints=list_of(ANY),
        volumes=list_of(ANY),
    ),
)
#: Fields of a pod that a patch may not have, and why.
_NOT_IN_A_PATCH = {
    "activeDeadlineSeconds": "it would end the brokers' pods one by one; give run.maxLifetime",
    "ephemeralContainers": "Kubernetes takes none in a template",
    "hostname": "brokers find each other by their host names",
    "hostnameOverride": "brokers find each other by their host names",
    "restartPolicy": "the Job itself replaces pods that fail, which needs Never",
    "setHostnameAsFQDN": "brokers find each other by their host names",
    "shareProcessNamespace": "give it in minicluster",
    "subdomain": "brokers find each other by it; give minicluster.network.headlessName",
}


def pod_patch_problems(value: JSONValue, path: str = "run.podPatch") -> list[str]:
    """Every field of a patch that is unknown, refused, or of a wrong type or value: one text each."""
    given = value.get("spec") if isinstance(value, Mapping) else None
    if not isinstance(given, Mapping):
        return shape_problems(value, path, POD_PATCH)
    found = [
        f"{path}.spec.{name}: cannot be changed: {_NOT_IN_A_PATCH[name]}" for name in given if name in _NOT_IN_A_PATCH
    ]
    rest = {name: inner for name, inner in given.items() if name not in _NOT_IN_A_PATCH}
    return found + shape_problems({**value, "spec": rest}, path, POD_PATCH)
