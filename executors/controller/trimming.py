"""What of an object is kept in the caches: what `deciding` reads, since a cluster may have thousands of pods. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, cast

from executors.controller.names import SINCE_ANNOTATION
from executors.kube import Kind
from executors.kube.api import EVENTS, JOBS, MINICLUSTERS, PODS
from executors.provision.kubernetes.diagnosis import INDEX
from executors.render import WISH_ANNOTATION

Object = dict[str, Any]
T = TypeVar("T")

_METADATA = (
    "name", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp", "labels",
    "ownerReferences",
)  # fmt: skip
_CONTAINER = ("name", "image", "state", "lastState", "ready")


def trimmed(kind: Kind[T], given: T) -> T:
    """The object as it is kept. Shares what it keeps with ``given``."""
    return cast(T, _trimmed(kind, cast(Object, given)))


def _trimmed(kind: Kind[Any], given: Object) -> Object:
    if kind is MINICLUSTERS:
        metadata = {name: value for name, value in given["metadata"].items() if name != "managedFields"}
        return {**given, "metadata": metadata}
    if kind is JOBS:
        return _job(given)
    if kind is PODS:
        return _pod(given)
    if kind is EVENTS:
        kept = ("involvedObject", "reason", "message", "type", "series", "lastTimestamp", "eventTime")
        return {"metadata": _some(given["metadata"], _METADATA), **_some(given, kept)}
    return {"kind": given.get("kind", ""), "metadata": _some(given["metadata"], _METADATA)}


def _job(given: Object) -> Object:
    metadata = _some(given["metadata"], (*_METADATA, "annotations"))
    # Who keeps it suspended, and nothing else.
    fields = given["metadata"].get("managedFields") or []
    metadata["managedFields"] = [
        {"manager": field_.get("manager"), "time": field_.get("time"), "fieldsV1": {"f:spec": {"f:suspend": {}}}}
        for field_ in fields
        if "f:suspend" in (field_.get("fieldsV1") or {}).get("f:spec", {})
    ]
    spec = _some(given.get("spec") or {}, ("completions", "parallelism", "suspend"))
    return {"kind": "Job", "metadata": metadata, "spec": spec, "status": given.get("status") or {}}


def _pod(given: Object) -> Object:
    metadata = _some(given["metadata"], _METADATA)
    annotations = _some(given["metadata"].get("annotations") or {}, (INDEX, WISH_ANNOTATION, SINCE_ANNOTATION))
    if annotations:
        metadata["annotations"] = annotations
    spec, status = given.get("spec") or {}, given.get("status") or {}
    containers = [
        {"name": container["name"], "resources": _some(container.get("resources") or {}, ("limits",))}
        for container in spec.get("containers") or []
    ]
    kept = _some(status, ("phase", "reason", "message", "conditions"))
    for name in ("initContainerStatuses", "containerStatuses"):
        if status.get(name):
            kept[name] = [_some(one, _CONTAINER) for one in status[name]]
    return {
        "metadata": metadata,
        "spec": {**_some(spec, ("nodeName", "restartPolicy")), "containers": containers},
        "status": kept,
    }


def _some(given: Mapping[str, Any], names: tuple[str, ...]) -> Object:
    return {name: given[name] for name in names if name in given}
