"""What a client of the Kubernetes API must be allowed to do, in one namespace. The Roles in docs/ hold the same."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from executors.kube import Api
from executors.spec import MiniClusterSpec


@dataclass(frozen=True)
class Right:
    """Verbs on one resource (``pods/exec``: a subresource) of an API group ("": the core group)."""

    group: str
    resource: str
    verbs: tuple[str, ...]


_SHARED = (
    Right("", "pods", ("get", "list", "watch")),
    # Kubernetes asks for create, and since 1.35 for it alone; older ones take a websocket for a get.
    Right("", "pods/exec", ("create", "get")),
    Right("", "pods/log", ("get",)),
    Right("", "events", ("list", "watch")),
)

#: By the provisioner's name.
RIGHTS: dict[str, tuple[Right, ...]] = {
    "direct": (
        Right("batch", "jobs", ("create", "get", "list", "watch", "patch", "delete")),
        Right("", "configmaps", ("create",)),
        Right("", "secrets", ("create",)),
        Right("", "services", ("create",)),
        *_SHARED,
    ),
    "operator": (
        Right("flux-framework.org", "miniclusters", ("create", "get", "list", "watch", "patch", "delete")),
        Right("", "configmaps", ("create", "get", "patch", "delete")),
        Right("batch", "jobs", ("get", "list", "watch")),
        *_SHARED,
    ),
}


#: More that direct mode needs for a MiniCluster with ``services``: it makes their pod itself.
_FOR_SERVICES = Right("", "pods", ("create",))


def rights_for(mode: str, spec: MiniClusterSpec) -> tuple[Right, ...]:
    """What a client needs for MiniClusters of this spec."""
    return (*RIGHTS[mode], _FOR_SERVICES) if mode == "direct" and spec.services else RIGHTS[mode]


def missing_rights(api: Api, namespace: str, rights: Iterable[Right]) -> list[tuple[str, Right]]:
    """(verb, right) of what this user may not do, asked one by one (SelfSubjectAccessReview). Raises ApiError."""
    missing = []
    for right in rights:
        resource, _, subresource = right.resource.partition("/")
        for verb in right.verbs:
            wanted = {"namespace": namespace, "verb": verb, "group": right.group, "resource": resource}
            if subresource:
                wanted["subresource"] = subresource
            review = {
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SelfSubjectAccessReview",
                "spec": {"resourceAttributes": wanted},
            }
            answer = api.request("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body=review)
            if not answer["status"]["allowed"]:
                missing.append((verb, right))
    return missing
