"""The Roles in docs/, and sessions that have exactly such a Role."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.runs import Runs
from tests.cluster.testbed.cluster import Cluster

DOCS = Path(__file__).parents[2] / "docs"


def role(mode: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DOCS / f"rbac-{mode}.yaml").read_text())
    return found


def without(given: dict[str, Any], resource: str, verb: str) -> dict[str, Any]:
    rules = []
    for rule in given["rules"]:
        for one in rule["resources"]:
            verbs = [v for v in rule["verbs"] if (one, v) != (resource, verb)]
            rules.append({**rule, "resources": [one], "verbs": verbs})
    return {**given, "rules": [rule for rule in rules if rule["verbs"]]}


def grant(cluster: Cluster, runs: Runs, given: dict[str, Any]) -> None:
    """Makes the test's sessions those of a ServiceAccount with that Role."""
    name = "worker"
    runs.kubeconfig = cluster.service_account_kubeconfig(runs.namespace, name)
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": given["metadata"]["name"]},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": runs.namespace}],
    }
    for made in (given, binding):
        cluster.kubectl("apply", f"--namespace={runs.namespace}", "--filename=-", input=json.dumps(made))
