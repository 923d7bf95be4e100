"""A MiniCluster as Kubernetes objects: from values to values, and nothing else.

`render_direct` gives plain objects (an Indexed Job and what belongs to it), `render_operated` those that our Flux
Operator makes of a MiniCluster resource, `render_resource` such a resource, for whichever Flux Operator is there. What
must not live here: any I/O, the API client, waiting, randomness (the certificate is given), and rules about what is
allowed (`executors.validation`).
"""

from executors.render.direct import owned_by, pod_patch_problems, render_direct, spec_hash, variables_of_secrets
from executors.render.entry import ENTRY_SCRIPT
from executors.render.minicluster import MiniCluster, PodUser, Profile, Program
from executors.render.names import (
    BROKER_PORT,
    HASH_ANNOTATION,
    LABELS,
    NAME_LABEL,
    OPERATOR_LABELS,
    SELECTOR_LABEL,
    WISH_ANNOTATION,
)
from executors.render.operated import render_operated
from executors.render.places import pod_paths
from executors.render.resource import render_resource

__all__ = [
    "BROKER_PORT",
    "ENTRY_SCRIPT",
    "HASH_ANNOTATION",
    "LABELS",
    "NAME_LABEL",
    "OPERATOR_LABELS",
    "SELECTOR_LABEL",
    "WISH_ANNOTATION",
    "MiniCluster",
    "PodUser",
    "Profile",
    "Program",
    "owned_by",
    "pod_patch_problems",
    "pod_paths",
    "render_direct",
    "render_operated",
    "render_resource",
    "spec_hash",
    "variables_of_secrets",
]
