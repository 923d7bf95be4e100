"""A MiniCluster as Kubernetes objects: from values to values, and nothing else.

`render_direct` gives plain objects (an Indexed Job and what belongs to it), `render_resource` the MiniCluster resource
for a Flux Operator. What must not live here: any I/O, the API client, waiting, randomness (the certificate is given),
and rules about what is allowed (`executors.validation`).
"""

from executors.render.direct import owned_by, pod_patch_problems, render_direct, spec_hash, variables_of_secrets
from executors.render.minicluster import MiniCluster, PodUser, Program
from executors.render.names import (
    BROKER_PORT,
    HASH_ANNOTATION,
    LABELS,
)
from executors.render.places import places_of
from executors.render.resource import render_resource

__all__ = [
    "BROKER_PORT",
    "HASH_ANNOTATION",
    "LABELS",
    "MiniCluster",
    "PodUser",
    "Program",
    "owned_by",
    "places_of",
    "pod_patch_problems",
    "render_direct",
    "render_resource",
    "spec_hash",
    "variables_of_secrets",
]
