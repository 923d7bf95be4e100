"""Volumes of the user's, and where they are mounted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from executors.spec import Container, Volume


def volumes_of(containers: Iterable[Container]) -> list[dict[str, Any]]:
    """The volumes of all containers of a pod; one that several mount is there once."""
    found = {volume.name: volume for container in containers for volume in container.volumes}
    return [{"name": volume.name, **_source(volume)} for volume in found.values()]


def mounts_of(container: Container) -> list[dict[str, Any]]:
    made = []
    for volume in container.volumes:
        mount: dict[str, Any] = {"name": volume.name, "mountPath": mount_path(volume)}
        if volume.read_only:
            mount["readOnly"] = True
        made.append(mount)
    return made


def is_memory(volume: Volume) -> bool:
    return volume.empty_dir_medium.lower() == "memory"


def mount_path(volume: Volume) -> str:
    """Where it is mounted; an emptyDir in memory without a path is shared memory."""
    return volume.path or ("/dev/shm" if volume.empty_dir and is_memory(volume) else "")


def _source(volume: Volume) -> dict[str, Any]:
    if volume.claim_name:
        return {"persistentVolumeClaim": {"claimName": volume.claim_name}}
    if volume.host_path:
        return {"hostPath": {"path": volume.host_path, "type": "Directory"}}
    if volume.secret_name:
        return {"secret": {"secretName": volume.secret_name}}
    if volume.csi_driver:
        csi: dict[str, Any] = {"driver": volume.csi_driver}
        if volume.csi_driver_attributes:
            csi["volumeAttributes"] = dict(volume.csi_driver_attributes)
        return {"csi": csi}
    if volume.config_map_name:
        items = [{"key": key, "path": path} for key, path in sorted(volume.items.items())]
        return {"configMap": {"name": volume.config_map_name, **({"items": items} if items else {})}}
    made: dict[str, Any] = {}
    if volume.empty_dir_medium:
        made["medium"] = "Memory" if is_memory(volume) else volume.empty_dir_medium
    if volume.empty_dir_size_limit:
        made["sizeLimit"] = volume.empty_dir_size_limit
    return {"emptyDir": made}
