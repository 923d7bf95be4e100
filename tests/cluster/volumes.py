"""A directory of this machine that pods mount by a PersistentVolumeClaim, at the same path."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.cluster.pods import create
from tests.cluster.testbed.cluster import Cluster

#: The claim's name.
VOLUME = "work"


@contextmanager
def volume_of(cluster: Cluster, namespace: str, directory: Path) -> Iterator[Path]:
    """The directory, which is made, as a volume of the namespace."""
    directory.mkdir()
    name = f"{namespace}-{VOLUME}"
    storage = {"resources": {"requests": {"storage": "1Gi"}}, "storageClassName": ""}
    persistent = {
        "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteMany"],
        "persistentVolumeReclaimPolicy": "Retain",
        "hostPath": {"path": str(directory)},
        "claimRef": {"namespace": namespace, "name": VOLUME},
    }
    claim = {"accessModes": ["ReadWriteMany"], "volumeName": name, **storage}
    create(
        cluster,
        namespace,
        {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": persistent},
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": VOLUME}, "spec": claim},
    )
    yield directory
    # What pods wrote belongs to their user, which pytest's own tidying does not care for: it is root here.
    cluster.kubectl("delete", "pvc", VOLUME, f"--namespace={namespace}", "--wait=false")
    cluster.kubectl("delete", "pv", name, "--wait=false")


def mounted(directory: Path) -> dict[str, Any]:
    """What a container of a MiniCluster spec says to have it at the same path."""
    return {"volumes": {VOLUME: {"claimName": VOLUME, "path": str(directory)}}}
