"""What a connection of Airflow's own Kubernetes provider says of a cluster, in this provider's words.

Its fields are those of that provider's KubernetesHook. What is set there and cannot be honoured is refused by name:
left out in silence, it would lead elsewhere, or in another way, than the connection says.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

#: Of its fields, what says how a cluster is reached, which `kubernetes_settings` honours.
_SOURCES = ("in_cluster", "kube_config_path", "kube_config")
_HONOURED = (*_SOURCES, "cluster_context", "namespace")
#: Of the pods that Airflow itself makes, and so of no concern here.
_OF_AIRFLOWS_PODS = ("xcom_sidecar_container_image", "xcom_sidecar_container_resources")
_CURES = {"disable_verify_ssl": "give insecure-skip-tls-verify: true in the kubeconfig"}
_PREFIX = "extra__kubernetes__"
#: Where Kubernetes mounts it in pods.
_SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"


def kubernetes_settings(conn_id: str, extra: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    """kubeconfig (a path), content (of one), context and namespace, as far as they are set. Raises ConfigError."""
    from executors import ConfigError

    given = {name.removeprefix(_PREFIX): value for name, value in extra.items() if name.startswith(_PREFIX)}
    given |= {name: value for name, value in extra.items() if not name.startswith(_PREFIX)}
    given = {name: value for name, value in given.items() if _is_set(value)}
    where = f"kubernetes_conn_id {conn_id}"
    problems = [
        f"{where}: {name}: is not supported for instances; {_CURES.get(name, 'leave it out')}"
        for name in given
        if name not in _HONOURED and name not in _OF_AIRFLOWS_PODS
    ]
    sources = [name for name in _SOURCES if name in given]
    if len(sources) > 1:
        problems.append(f"{where}: {' and '.join(sources)} exclude each other; leave one")
    found = {"context": given.get("cluster_context"), "namespace": given.get("namespace")}
    if "in_cluster" in given:
        if "cluster_context" in given:
            problems.append(f"{where}: cluster_context: in_cluster has no contexts; leave one of the two out")
        if not environ.get("KUBERNETES_SERVICE_HOST"):
            problems.append(
                f"{where}: in_cluster: this is not a pod (KUBERNETES_SERVICE_HOST is not set); give a kubeconfig"
            )
        found["content"] = _of_service_account(environ)
    if problems:
        raise ConfigError(problems)
    found["kubeconfig"] = given.get("kube_config_path")
    content = given.get("kube_config")
    if content is not None:
        found["content"] = content if isinstance(content, str) else json.dumps(content)
    return {name: value for name, value in found.items() if value}


def _is_set(value: object) -> bool:
    """Flags of a connection that is written as a URI are texts."""
    return bool(value) and not (isinstance(value, str) and value.strip().lower() in ("", "false", "none", "null"))


def _of_service_account(environ: Mapping[str, str]) -> str:
    """A kubeconfig of the pod's service account: without one, KUBECONFIG or ~/.kube/config would count before it."""
    host, port = environ.get("KUBERNETES_SERVICE_HOST", ""), environ.get("KUBERNETES_SERVICE_PORT", "443")
    server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    try:
        with open(f"{_SERVICE_ACCOUNT}/namespace", encoding="utf-8") as file:
            namespace = file.read().strip()
    except OSError:
        namespace = ""
    name = "in-cluster"
    cluster = {"server": server, "certificate-authority": f"{_SERVICE_ACCOUNT}/ca.crt"}
    context = {"cluster": name, "user": name, "namespace": namespace}
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": name,
            "clusters": [{"name": name, "cluster": cluster}],
            "users": [{"name": name, "user": {"tokenFile": f"{_SERVICE_ACCOUNT}/token"}}],
            "contexts": [{"name": name, "context": context}],
        }
    )
