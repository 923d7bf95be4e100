"""What the API server makes of who asks, and of a patch for the pods: what no server of a test's own can say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from executors import ExecutorsError
from tests.cluster.runs import Runs, output_of, spec
from tests.cluster.testbed.cluster import Cluster

ACCOUNT = "worker"


def acting_as(runs: Runs, directory: Path, name: str) -> None:
    """The administrator's kubeconfig, who acts as a service account of the namespace."""
    document: Any = yaml.safe_load(Path(runs.kubeconfig).read_text())
    [user] = document["users"]
    user["user"] |= {
        "as": f"system:serviceaccount:{runs.namespace}:{name}",
        "as-groups": ["system:authenticated", "system:serviceaccounts"],
        "as-user-extra": {"example.org/ticket": ["1", "2"]},
    }
    runs.kubeconfig = directory / "acting.kubeconfig"
    runs.kubeconfig.write_text(yaml.safe_dump(document))


def test_a_run_has_the_rights_of_whom_its_kubeconfig_acts_as(cluster: Cluster, runs: Runs, tmp_path: Path) -> None:
    cluster.service_account_kubeconfig(runs.namespace, ACCOUNT)
    acting_as(runs, tmp_path, ACCOUNT)
    with pytest.raises(ExecutorsError, match=f'User "system:serviceaccount:{runs.namespace}:{ACCOUNT}" cannot create'):
        runs.open()
    cluster.kubectl(
        *("create", "rolebinding", ACCOUNT, "--clusterrole=admin", f"--serviceaccount={runs.namespace}:{ACCOUNT}"),
        f"--namespace={runs.namespace}",
    )
    session = runs.open()
    assert output_of(session, "echo", "acting") == "acting\n"
    session.close()
    runs.wait_nothing_left()


def test_a_patch_brings_the_nodes_network_and_variables_to_the_pods(cluster: Cluster, runs: Runs) -> None:
    cluster.kubectl(
        "label", "namespace", runs.namespace, "pod-security.kubernetes.io/enforce=privileged", "--overwrite"
    )
    cluster.kubectl(
        *("create", "configmap", "settings", "--from-literal=FROM_MAP=yes"), f"--namespace={runs.namespace}"
    )
    patch = {
        "spec": {
            "hostNetwork": True,
            "tolerations": [{"key": "spot", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60}],
            "containers": [{"name": "tools", "envFrom": [{"configMapRef": {"name": "settings"}}]}],
        }
    }
    session = runs.open(spec(runs.image, container={"name": "tools"}), podPatch=patch)
    assert output_of(session, "sh", "-c", "echo $FROM_MAP; flux getattr hostlist").splitlines() == [
        "yes",
        f"{session.run_name}-0",
    ]
    [template] = [runs.pod(session.run_name, 0)["spec"]]
    assert template["hostNetwork"] is True and template["dnsPolicy"] == "ClusterFirstWithHostNet"
    session.close()


def test_a_field_of_a_patch_that_kubernetes_does_not_know_is_refused(runs: Runs) -> None:
    spread = [{"topologyKey": "kubernetes.io/hostname", "maxSkw": 1}]
    with pytest.raises(ExecutorsError, match=r"topologySpreadConstraints\[0\]\.maxSkw"):
        runs.open(podPatch={"spec": {"topologySpreadConstraints": spread}})
    runs.wait_nothing_left()
