"""Starts on Kubernetes without agent or client: two brokers as a person would write them by hand, or upstream does."""

from __future__ import annotations

import base64
import time
import uuid
from pathlib import Path
from typing import Any

from executors.provision.kubernetes.certificate import make_certificate
from tests.cluster.testbed.cluster import Cluster

_LIMIT = 60.0
_CONFIG = """
[bootstrap]
curve_cert = "/tmp/curve.cert"
default_port = 8050
default_bind = "tcp://*:%p"
default_connect = "tcp://%h.{name}:%p"
hosts = [{{host = "{name}-[0-1]"}}]
[resource]
noverify = true
"""
#: Flux refuses a certificate that others may read. Only rank 0 runs what follows the options.
_SCRIPT = """umask 077
cp /bare-secret/curve.cert /tmp/curve.cert
exec flux broker -c /bare/broker.toml -Stbon.connect_timeout=1s -Sbroker.quorum=2 sh -c 'flux run hostname >/out/{name}'
"""


def first_output(cluster: Cluster, namespace: str, out: Path) -> float:
    """Seconds from the creation of a bare Job of 2 to the first line of its ``hostname``; it is gone then.

    The line goes to a directory of this machine, ``out``, so that no request for a log is in between.
    """
    name = f"bare-{uuid.uuid4().hex[:8]}"
    objects = _objects(cluster.image.name, name, out)
    begin = time.monotonic()
    for path, manifest in objects:
        cluster.api.post(path.format(namespace=namespace), manifest)
    wait_for_file(out / name)
    seconds = time.monotonic() - begin
    kinds = ["job", "configmap", "secret", "service"]
    cluster.kubectl("delete", "--cascade=foreground", *(f"{kind}/{name}" for kind in kinds), f"--namespace={namespace}")
    return seconds


def first_of_upstream(cluster: Cluster, namespace: str, out: Path) -> float:
    """Seconds from the creation of a MiniCluster of 2 with a command to what that command has done; it is gone then.

    Upstream's operator has to be running. It is as its own users have it, root included.
    """
    name = f"upstream-{uuid.uuid4().hex[:8]}"
    container = {
        "image": cluster.image.name,
        "command": f"cp /etc/hostname /out/{name}",
        "volumes": {"out": {"hostPath": str(out), "path": "/out"}},
    }
    # Its init container runs all the same, and needs a shell only.
    view = {"disable": True, "image": cluster.image.name}
    manifest = {
        "apiVersion": "flux-framework.org/v1alpha2",
        "kind": "MiniCluster",
        "metadata": {"name": name},
        "spec": {"size": 2, "flux": {"container": view}, "containers": [container]},
    }
    begin = time.monotonic()
    cluster.api.post(f"/apis/flux-framework.org/v1alpha2/namespaces/{namespace}/miniclusters", manifest)
    wait_for_file(out / name)
    seconds = time.monotonic() - begin
    # In the foreground, upstream's operator would make again what goes before its resource.
    cluster.kubectl("delete", f"minicluster/{name}", "--cascade=background", f"--namespace={namespace}")
    selector = (f"--selector=job-name={name}", f"--namespace={namespace}", f"--timeout={_LIMIT:g}s")
    cluster.kubectl("wait", "pods", "--for=delete", *selector)
    return seconds


def wait_for_file(path: Path) -> None:
    """Until something is in it. Raises RuntimeError."""
    deadline = time.monotonic() + _LIMIT
    while not (path.exists() and path.stat().st_size):
        if time.monotonic() > deadline:
            raise RuntimeError(f"{path} was not written within {_LIMIT:g} s")
        time.sleep(0.002)  # a container writes it, which tells nobody on this side


def _objects(image: str, name: str, out: Path) -> list[tuple[str, dict[str, Any]]]:
    """Path and manifest of each, in the order in which they are created."""
    metadata = {"name": name}
    config = _CONFIG.format(name=name)
    certificate = base64.b64encode(make_certificate(name).encode()).decode()
    core, batch = "/api/v1/namespaces/{namespace}", "/apis/batch/v1/namespaces/{namespace}"
    service = {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": {"job-name": name}}
    return [
        (f"{core}/services", {"metadata": metadata, "spec": service}),
        (f"{core}/secrets", {"metadata": metadata, "data": {"curve.cert": certificate}}),
        (f"{core}/configmaps", {"metadata": metadata, "data": {"broker.toml": config}}),
        (f"{batch}/jobs", {"metadata": metadata, "spec": _job(image, name, out)}),
    ]


def _job(image: str, name: str, out: Path) -> dict[str, Any]:
    mounts = {"bare": "/bare", "bare-secret": "/bare-secret", "out": "/out"}
    container = {
        "name": "flux",
        "image": image,
        "command": ["sh", "-c", _SCRIPT.format(name=name)],
        "volumeMounts": [{"name": volume, "mountPath": path} for volume, path in mounts.items()],
    }
    return {
        "completionMode": "Indexed",
        "completions": 2,
        "parallelism": 2,
        "successPolicy": {"rules": [{"succeededIndexes": "0"}]},
        "template": {
            "spec": {
                "restartPolicy": "Never",
                "subdomain": name,
                "terminationGracePeriodSeconds": 5,
                "securityContext": {"runAsUser": 1000, "runAsGroup": 1000},
                "containers": [container],
                "volumes": [
                    {"name": "bare", "configMap": {"name": name}},
                    {"name": "bare-secret", "secret": {"secretName": name}},
                    {"name": "out", "hostPath": {"path": str(out)}},
                ],
            }
        },
    }
