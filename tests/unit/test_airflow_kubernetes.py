"""A connection of Airflow's Kubernetes provider is honoured, or refused by the field's name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from airflow_provider_flux.kubernetes import kubernetes_settings
from executors import ConfigError
from executors.kube.kubeconfig import select

POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "6443"}


@pytest.mark.parametrize(
    ("extra", "found"),
    [
        (
            {"kube_config_path": "/kube", "cluster_context": "c", "namespace": "n"},
            {"kubeconfig": "/kube", "context": "c", "namespace": "n"},
        ),
        ({"extra__kubernetes__kube_config_path": "/kube"}, {"kubeconfig": "/kube"}),
        ({"kube_config": '{"users": []}'}, {"content": '{"users": []}'}),
        ({"kube_config": {"users": []}}, {"content": '{"users": []}'}),
        ({"in_cluster": False, "disable_verify_ssl": False, "disable_tcp_keepalive": None, "kube_config": ""}, {}),
        ({"in_cluster": "False", "extra__kubernetes__disable_verify_ssl": "false"}, {}),
        ({"xcom_sidecar_container_image": "alpine"}, {}),
    ],
)
def test_what_says_where_a_cluster_is(extra: dict[str, Any], found: dict[str, Any]) -> None:
    assert kubernetes_settings("kube", extra, {}) == found


@pytest.mark.parametrize(
    "extra", [{"in_cluster": True}, {"in_cluster": "True"}, {"extra__kubernetes__in_cluster": True}], ids=str
)
@pytest.mark.parametrize(("host", "shown"), [("10.0.0.1", "10.0.0.1"), ("fd00::1", "[fd00::1]")])
def test_in_cluster_is_the_service_account(extra: dict[str, Any], host: str, shown: str, tmp_path: Path) -> None:
    """Whatever KUBECONFIG says: it is a kubeconfig of its own."""
    found = kubernetes_settings("kube", {**extra, "namespace": "n"}, {**POD, "KUBERNETES_SERVICE_HOST": host})
    assert found.keys() == {"content", "namespace"}
    path = tmp_path / "kubeconfig"
    path.write_text(found["content"])
    selected = select([path], None)
    assert selected.cluster.text("server") == f"https://{shown}:6443"
    assert selected.cluster.text("certificate-authority") == "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"
    assert selected.user.text("tokenFile") == "/var/run/secrets/kubernetes.io/serviceaccount/token"


@pytest.mark.parametrize(
    ("extra", "environ", "words"),
    [
        ({"disable_verify_ssl": True}, {}, "disable_verify_ssl: is not supported for instances; give insecure-skip"),
        ({"extra__kubernetes__disable_tcp_keepalive": True}, {}, "disable_tcp_keepalive: is not supported"),
        ({"kubeconfig": "/kube"}, {}, "kubeconfig: is not supported"),
        ({"in_cluster": True}, {}, "in_cluster: this is not a pod (KUBERNETES_SERVICE_HOST is not set)"),
        ({"in_cluster": True, "cluster_context": "c"}, POD, "cluster_context: in_cluster has no contexts"),
        ({"in_cluster": True, "kube_config_path": "/kube"}, POD, "in_cluster and kube_config_path exclude each other"),
        ({"kube_config": "{}", "kube_config_path": "/kube"}, {}, "kube_config_path and kube_config exclude each other"),
    ],
)
def test_what_cannot_be_honoured_is_refused(extra: dict[str, Any], environ: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError) as told:
        kubernetes_settings("kube", extra, environ)
    [problem] = told.value.problems
    assert problem.startswith("kubernetes_conn_id kube: ") and words in problem
