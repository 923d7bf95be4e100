"""Pods that the restricted Pod Security standard admits, for tests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tests.cluster.testbed.cluster import Cluster
from tests.cluster.testbed.waiting import wait_until

LIMIT = 60.0


def pod_spec(image: str, script: str, **more: object) -> dict[str, Any]:
    """One container that runs a shell script as the image's user, with nothing that "restricted" forbids."""
    return {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 1,
        "securityContext": {
            "runAsNonRoot": True,
            **dict.fromkeys(["runAsUser", "runAsGroup", "fsGroup"], 1000),
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": "main",
                "image": image,
                "command": ["/bin/sh", "-c", script],
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
            }
        ],
        **more,
    }


def create(cluster: Cluster, namespace: str, *objects: Mapping[str, object]) -> None:
    """Creates the objects as the administrator."""
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    cluster.kubectl("create", f"--namespace={namespace}", "--filename=-", input=text)


def run_pod(cluster: Cluster, namespace: str, name: str, script: str, **more: object) -> None:
    """Creates a pod and returns when it runs or has run."""
    spec = pod_spec(cluster.image.name, script, **more)
    create(cluster, namespace, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})
    path = f"/api/v1/namespaces/{namespace}/pods/{name}"
    wait_until(f"pod {name} to run", lambda: cluster.api.get(path)["status"]["phase"] != "Pending", LIMIT)


def output_of_pod(cluster: Cluster, namespace: str, name: str) -> str:
    """What a pod has written when it has ended well. Fails with it when the pod has not."""
    path = f"/api/v1/namespaces/{namespace}/pods/{name}"
    over = ("Succeeded", "Failed")
    wait_until(f"the end of pod {name}", lambda: cluster.api.get(path)["status"]["phase"] in over, LIMIT)
    output = cluster.kubectl("logs", name, f"--namespace={namespace}")
    assert cluster.api.get(path)["status"]["phase"] == "Succeeded", output
    return output
