"""What is installed: rights, the Deployment, and for the whole cluster the CRD. Pure.

The rights are all that the controller uses, and no more: it reads no Secret and no ConfigMap, and no log.
"""

from __future__ import annotations

from typing import Any

from executors.controller.crd import crd
from executors.schema import MINICLUSTER_API_VERSION

Object = dict[str, Any]

NAME = "flux-operator"
#: Where the controller of a whole cluster runs.
NAMESPACE = "flux-operator"
IMAGE = "flux-operator-executors:0.1.0"
HEALTH_PORT = 8081

_GROUP = MINICLUSTER_API_VERSION.partition("/")[0]
#: In each namespace with MiniClusters.
RULES: tuple[Object, ...] = (
    {"apiGroups": [_GROUP], "resources": ["miniclusters"], "verbs": ["list", "watch", "delete"]},
    {"apiGroups": [_GROUP], "resources": ["miniclusters/status"], "verbs": ["patch"]},
    # Where ownerReferences that block deletion are guarded (OwnerReferencesPermissionEnforcement).
    {"apiGroups": [_GROUP], "resources": ["miniclusters/finalizers"], "verbs": ["update"]},
    {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["create", "get", "list", "watch", "patch"]},
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["create", "get", "list", "watch", "patch"]},
    {"apiGroups": [""], "resources": ["services"], "verbs": ["create", "get", "list", "watch"]},
    {"apiGroups": [""], "resources": ["secrets", "configmaps"], "verbs": ["create"]},
    {"apiGroups": ["networking.k8s.io"], "resources": ["networkpolicies"], "verbs": ["create"]},
    {"apiGroups": [""], "resources": ["events"], "verbs": ["create", "list", "watch"]},
    # Whether it enforces restricted pod security; in a Role this is the Role's own.
    {"apiGroups": [""], "resources": ["namespaces"], "verbs": ["get"]},
    # Whether upstream's operator runs.
    {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["list", "watch"]},
)
#: In its own namespace: the Lease by which one of several replicas works.
LEASE_RULES: tuple[Object, ...] = (
    {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create", "get", "patch"]},
)


def manifests(namespace: str | None = None, image: str = IMAGE, home: str = NAMESPACE) -> list[Object]:
    """All objects: for the whole cluster, in the namespace ``home``; or for one namespace that is there, to whose
    MiniClusters it then looks (the CRD is the cluster's, and is installed by itself)."""
    if namespace is not None:
        home = namespace
        rights = _rights("Role", NAME, namespace, [*RULES, *LEASE_RULES])
        return [_account(home), *rights, _deployment(home, ["--namespace", namespace], image)]
    labels = {f"pod-security.kubernetes.io/{one}": "restricted" for one in ("enforce", "warn", "audit")}
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": home, "labels": labels}},
        crd(),
        _account(home),
        *_rights("ClusterRole", NAME, home, list(RULES)),
        *_rights("Role", f"{NAME}-lease", home, list(LEASE_RULES)),
        _deployment(home, [], image),
    ]


def _account(namespace: str) -> Object:
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": NAME, "namespace": namespace}}


def _rights(kind: str, name: str, namespace: str, rules: list[Object]) -> list[Object]:
    api = "rbac.authorization.k8s.io"
    metadata = {"name": name} if kind == "ClusterRole" else {"name": name, "namespace": namespace}
    return [
        {"apiVersion": f"{api}/v1", "kind": kind, "metadata": metadata, "rules": rules},
        {
            "apiVersion": f"{api}/v1",
            "kind": f"{kind}Binding",
            "metadata": metadata,
            "roleRef": {"apiGroup": api, "kind": kind, "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": namespace}],
        },
    ]


def _deployment(namespace: str, arguments: list[str], image: str) -> Object:
    labels = {"app.kubernetes.io/name": NAME}
    container = {
        "name": NAME,
        "image": image,
        "args": ["run", *arguments, "--health-port", str(HEALTH_PORT)],
        "command": ["flux-operator"],
        "ports": [{"name": "health", "containerPort": HEALTH_PORT}],
        "livenessProbe": {"httpGet": {"path": "/healthz", "port": "health"}, "periodSeconds": 20},
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": "health"}, "periodSeconds": 5},
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    pod = {
        "serviceAccountName": NAME,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationGracePeriodSeconds": 20,
        "containers": [container],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": NAME, "namespace": namespace, "labels": labels},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }
