"""The floor for a start on Kubernetes: two brokers as a person would write them by hand, without agent or client."""

from __future__ import annotations

import base64
import time
import uuid
from pathlib import Path
from typing import Any

from executors.provision.certificate import make_certificate
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
