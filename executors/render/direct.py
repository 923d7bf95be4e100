"""Direct mode: the objects that a person with one namespace may create, without CRD or operator."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from executors.render import names
from executors.render.minicluster import MiniCluster, Program
from executors.render.objects import (
    Manifest,
    config_map,
    headless_service,
    job,
    labels_of,
    labels_of_brokers,
    port_services,
    secret,
    without_metadata,
)
from executors.render.patch import patch_problems, secret_variables
from executors.render.pod import GRACE_PERIOD, services_pod, unpatched_template


def render_direct(cluster: MiniCluster, program: Program | None, certificate: str) -> list[Manifest]:
    """The Job, which is to own the others, then these: Secret, ConfigMap, Services, and the services' pod.

    ``program`` None: the spec's own command is what runs, and the Job is not suspended. ``certificate`` is the CURVE
    certificate's text (`executors.provision.kubernetes.certificate`); it is in the Secret and nowhere else.
    """
    made = _render(cluster, program, certificate)
    made[0]["metadata"]["annotations"][names.HASH_ANNOTATION] = spec_hash(cluster, program)
    return made


def spec_hash(cluster: MiniCluster, program: Program | None) -> str:
    """32 hex digits that differ when anything rendered does, but for the certificate and whose it is.

    (The caller's labels, annotations, token and user say whose it is.)
    """
    plain = dataclasses.replace(cluster, labels={}, annotations={}, token="", user=None)
    rest = [without_metadata(one) for one in _render(plain, program, "") if one["kind"] != "Secret"]
    text = json.dumps(rest, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def owned_by(manifests: Sequence[Manifest], owner: Mapping[str, Any]) -> list[Manifest]:
    """The manifests (but the owner's own) with an ownerReference to ``owner``, an object as the API server gave it.

    It is no controller reference: the Job's controller would take the services' pod for one of its own.
    """
    reference = {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
    }
    return [
        {**manifest, "metadata": {**manifest["metadata"], "ownerReferences": [reference]}}
        for manifest in manifests
        if (manifest["kind"], manifest["metadata"]["name"]) != (reference["kind"], reference["name"])
    ]


def pod_patch_problems(cluster: MiniCluster, program: Program | None) -> list[str]:
    """What ``run.podPatch`` would take from the brokers; its shape is right by now (`executors.pod_patch`)."""
    template = unpatched_template(cluster, program, labels_of_brokers(cluster))
    return patch_problems(template, cluster.spec.pod_patch, GRACE_PERIOD)


def _render(cluster: MiniCluster, program: Program | None, certificate: str) -> list[Manifest]:
    made = [
        job(cluster, program),
        secret(cluster, certificate),
        config_map(cluster, program),
        headless_service(cluster),
        *port_services(cluster),
    ]
    pod = services_pod(cluster, labels_of(cluster))
    return made if pod is None else [*made, pod]


def variables_of_secrets(cluster: MiniCluster) -> list[str]:
    """Variables of the brokers' container that hold secrets, which have no business in jobspecs."""
    spec = cluster.spec
    return secret_variables(spec.pod_patch, names.flux_container_name(cluster), spec.flux_container.secrets)
