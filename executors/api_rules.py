"""What Kubernetes' API server takes as labels, selectors, tolerations, quantities and names. Pure.

Each problem is one text: field path, value, cure. The rules are those of k8s.io/apimachinery/pkg/util/validation and of
pkg/apis/core/validation (1.34). They hold in both modes: what the Flux Operator is refused, its own log alone says.
What must not live here: what direct mode cannot do (`executors.validation`).
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from executors.schema import quantity
from executors.spec import Container, MiniClusterSpec, Resources, Volume

_NAME = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_DATA_KEY = re.compile(r"[-._a-zA-Z0-9]+")
_SYSCTL = re.compile(r"([a-z0-9]([-_a-z0-9]*[a-z0-9])?[./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?")
_MEDIUM = re.compile(r"|[Mm]emory|HugePages(-[0-9]+[KMGTPE]i)?")
_LARGEST_ID = 2**31 - 1
_ANNOTATIONS_LIMIT = 256 * 1024
#: Set by us or by the Job's controller: another value would be lost, or refused.
_RESERVED = ("app.kubernetes.io/managed-by", "app.kubernetes.io/name", "job-name", "controller-uid")


def plain_path(path: str) -> str:
    """A path in a container without what says nothing (``.``, ``..``, several slashes), so that it can be compared."""
    return "/" + posixpath.normpath(f"/{path}").lstrip("/")


def is_below(path: str, directories: Iterable[str]) -> bool:
    """All are plain."""
    return any(path.startswith(f"{directory}/") for directory in directories)


def label_key_problem(key: str) -> str | None:
    """What is wrong with the key of a label, a selector or a taint, and the cure."""
    prefix, slash, name = key.rpartition("/")
    if slash and (not _SUBDOMAIN.fullmatch(prefix) or len(prefix) > 253):
        return f"{prefix!r} must be a DNS name of small letters, digits, - and ., at most 253 characters"
    if not _NAME.fullmatch(name) or len(name) > 63:
        rule = "must begin and end with a letter or digit and hold letters, digits, -, _ and . only"
        return f"{name!r} {rule}, at most 63 characters"
    return None


def label_value_problem(value: str) -> str | None:
    """What is wrong with the value of a label or a selector, and the cure."""
    if value and (not _NAME.fullmatch(value) or len(value) > 63):
        rule = "must be empty, or begin and end with a letter or digit and hold letters, digits, -, _ and . only"
        return f"{value!r} {rule}, at most 63 characters"
    return None


def toleration_problems(tolerations: Sequence[Mapping[str, Any]], path: str) -> Iterator[str]:
    for at, one in enumerate(tolerations):
        where = f"{path}[{at}]"
        key, operator, value = one.get("key", ""), one.get("operator", ""), one.get("value", "")
        problem = label_key_problem(key) if key else None
        if problem:
            yield f"{where}.key: {problem}"
        if not key and operator != "Exists":
            yield f"{where}.operator: must be Exists where key is empty, which means all taints; give a key, or Exists"
        if operator == "Exists" and value:
            yield f"{where}.value: {value!r} must be left out where operator is Exists"
        problem = label_value_problem(value) if operator != "Exists" else None
        if problem:
            yield f"{where}.value: {problem}"
        if one.get("tolerationSeconds") is not None and one.get("effect") != "NoExecute":
            yield f"{where}.effect: must be NoExecute where tolerationSeconds is given"


def label_problems(labels: Mapping[str, str], path: str) -> Iterator[str]:
    """Labels or a selector."""
    for name, value in labels.items():
        for problem in (label_key_problem(name), label_value_problem(value)):
            if problem:
                yield f"{path}.{name}: {problem}"


def annotation_problems(annotations: Mapping[str, str], path: str) -> Iterator[str]:
    for name in annotations:
        problem = label_key_problem(name.lower())
        if problem:
            yield f"{path}.{name}: {problem}"
    size = sum(len(name.encode()) + len(text.encode("utf-8", "replace")) for name, text in annotations.items())
    if size > _ANNOTATIONS_LIMIT:
        yield f"{path}: are {size} bytes, and {_ANNOTATIONS_LIMIT} are allowed; keep them elsewhere"


def api_problems(spec: MiniClusterSpec, path: str = "minicluster") -> list[str]:
    """What the API server would refuse of the objects that are made of a spec."""
    found = [*_pod_problems(spec, path)]
    if not spec.flux.container.disable:
        found += _view_problems(spec, f"{path}.flux.container")
    for group, containers in (("containers", spec.containers), ("services", spec.services)):
        for at, container in enumerate(containers):
            found += _container_problems(container, f"{path}.{group}[{at}]")
    return found


def _pod_problems(spec: MiniClusterSpec, path: str) -> Iterator[str]:
    pod = spec.pod
    for where, labels in ((f"{path}.jobLabels", spec.job_labels), (f"{path}.pod.labels", pod.labels)):
        yield from label_problems(labels, where)
        for name in labels:
            if name in _RESERVED or name.startswith("batch.kubernetes.io/"):
                yield f"{where}.{name}: is set by us, or by the Job's controller; leave it out"
    yield from annotation_problems(pod.annotations, f"{path}.pod.annotations")
    yield from label_problems(pod.node_selector, f"{path}.pod.nodeSelector")
    for key, values in pod.node_affinity.items():
        where = f"{path}.pod.nodeAffinity.{key}"
        yield from (f"{where}: {one}" for one in (label_key_problem(key), *map(label_value_problem, values)) if one)
        if not values:
            yield f"{where}: [] names no value that a node may have; give one at least, or leave it out"
    yield from toleration_problems(pod.tolerations, f"{path}.pod.tolerations")
    yield from _name_problems(pod.service_account_name, f"{path}.pod.serviceAccountName")
    yield from _name_problems(pod.runtime_class_name, f"{path}.pod.runtimeClassName")
    yield from _security_problems(pod.security_context, f"{path}.pod.securityContext")


def _view_problems(spec: MiniClusterSpec, path: str) -> Iterator[str]:
    view = spec.flux.container
    if not _SUBDOMAIN.fullmatch(view.name) or "." in view.name or len(view.name) > 63:
        yield f"{path}.name: {view.name!r} must hold small letters, digits and - only, at most 63"
    if ":" in view.mount_path:
        yield f"{path}.mountPath: {view.mount_path!r} must not hold a colon"
    yield from _image_problems(view.image, view.image_pull_secret, path)
    yield from _resource_problems(view.resources, f"{path}.resources")
    yield from _security_problems(view.security_context, f"{path}.securityContext")


def _container_problems(container: Container, path: str) -> Iterator[str]:
    yield from _image_problems(container.image, container.image_pull_secret, path)
    yield from _resource_problems(container.resources, f"{path}.resources")
    yield from _security_problems(container.security_context, f"{path}.securityContext")
    for name in (*container.environment, *container.secrets):
        if name.startswith("..") or name == ".":
            yield f"{path}.environment: {name!r} cannot be the name of an environment variable; begin it with a letter"
    for name, (secret, key) in container.secrets.items():
        yield from _name_problems(secret, f"{path}.secrets.{name}.name", needed=True)
        yield from _key_problems(key, f"{path}.secrets.{name}.key")
    mounted: dict[str, str] = {}
    for volume in container.volumes:
        where = f"{path}.volumes.{volume.name}"
        yield from _volume_problems(volume, where)
        first = mounted.setdefault(volume.path, volume.name)
        if volume.path and first != volume.name:
            yield f"{where}.path: {volume.path!r} is where {first} is mounted; mount it elsewhere"


def _image_problems(image: str, pull_secret: str, path: str) -> Iterator[str]:
    if image != image.strip():
        yield f"{path}.image: {image!r} must not begin or end with white space"
    yield from _name_problems(pull_secret, f"{path}.imagePullSecret")


def _volume_problems(volume: Volume, path: str) -> Iterator[str]:
    yield from _name_problems(volume.claim_name, f"{path}.claimName")
    yield from _name_problems(volume.config_map_name, f"{path}.configMapName")
    yield from _name_problems(volume.secret_name, f"{path}.secretName")
    yield from _name_problems(volume.csi_driver.lower(), f"{path}.csiDriver", limit=63)
    if ".." in volume.host_path.split("/"):
        yield f"{path}.hostPath: {volume.host_path!r} must not hold '..'"
    if ":" in volume.path:
        yield f"{path}.path: {volume.path!r} must not hold a colon"
    if not _MEDIUM.fullmatch(volume.empty_dir_medium):
        yield f"{path}.emptyDirMedium: {volume.empty_dir_medium!r} must be Memory or HugePages, or be left out"
    for key, target in volume.items.items():
        yield from _key_problems(key, f"{path}.items.{key}")
        if not target or target.startswith(("/", "..")) or ".." in target.split("/"):
            yield f"{path}.items.{key}: {target!r} must be a relative path without '..'"
    if volume.empty_dir_size_limit.startswith("-"):
        yield f"{path}.emptyDirSizeLimit: {volume.empty_dir_size_limit} must not be negative"


def _resource_problems(resources: Resources, path: str) -> Iterator[str]:
    for section, amounts in (("requests", resources.requests), ("limits", resources.limits)):
        for name, amount in amounts.items():
            where = f"{path}.{section}.{name}"
            yield from _resource_name_problems(name, where)
            number = quantity(amount)
            if number < 0:
                yield f"{where}: {amount} must not be negative"
            elif _is_extended(name) and number.denominator != 1:
                yield f"{where}: {amount} must be a whole number; {name} is not divided"
    for name, amount in resources.requests.items():
        limit = resources.limits.get(name)
        where = f"{path}.requests.{name}"
        if not (_is_extended(name) or name.startswith("hugepages-")):
            if limit is not None and quantity(amount) > quantity(limit):
                yield f"{where}: {amount} must be from 0 to the limit, {limit}"
        elif limit is None:
            yield f"{path}.limits.{name}: is missing; {name} is not shared, so give as much as is requested"
        elif quantity(limit) != quantity(amount):
            yield f"{where}: {amount} must be the limit, {limit}; {name} is not shared"
    names = {*resources.requests, *resources.limits}
    if any(name.startswith("hugepages-") for name in names) and not names & {"cpu", "memory"}:
        yield f"{path}: huge pages need cpu or memory beside them; give one of them"


def _is_extended(name: str) -> bool:
    return "/" in name and "kubernetes.io/" not in name


def _resource_name_problems(name: str, path: str) -> Iterator[str]:
    problem = label_key_problem(name)
    if problem:
        yield f"{path}: {problem}"
    elif "/" not in name and name not in ("cpu", "memory", "ephemeral-storage") and not name.startswith("hugepages-"):
        known = "cpu, memory, ephemeral-storage, hugepages-SIZE, or one with a domain such as nvidia.com/gpu"
        yield f"{path}: {name!r} is not a resource of containers; give {known}"
    elif name.startswith("requests.") and _is_extended(name):
        yield f"{path}: {name!r} must not begin with 'requests.'"


def _security_problems(given: Mapping[str, Any], path: str) -> Iterator[str]:
    """A pod's or a container's securityContext."""
    numbers = {name: given.get(name, 0) for name in ("runAsUser", "runAsGroup", "fsGroup")}
    numbers |= {f"supplementalGroups[{at}]": one for at, one in enumerate(given.get("supplementalGroups", []))}
    for name, number in numbers.items():
        if number > _LARGEST_ID:
            yield f"{path}.{name}: {number} must be at most {_LARGEST_ID}"
    profile = given.get("seccompProfile")
    if profile and (profile["type"] == "Localhost") != bool(profile.get("localhostProfile")):
        yield f"{path}.seccompProfile.localhostProfile: belongs to the type Localhost, and is needed there"
    if given.get("runAsNonRoot") and given.get("runAsUser") == 0:
        yield f"{path}.runAsUser: 0 is root, and runAsNonRoot forbids that; leave out one of them"
    if given.get("allowPrivilegeEscalation") is False:
        added = {one.removeprefix("CAP_") for one in given.get("capabilities", {}).get("add", [])}
        if given.get("privileged") or "SYS_ADMIN" in added:
            yield f"{path}.allowPrivilegeEscalation: cannot be false beside privileged or SYS_ADMIN; leave it out"
    seen = set()
    for at, one in enumerate(given.get("sysctls", [])):
        name = one["name"]
        if not _SYSCTL.fullmatch(name) or len(name) > 253:
            yield f"{path}.sysctls[{at}].name: {name!r} is not the name of a sysctl, such as net.core.somaxconn"
        elif name in seen:
            yield f"{path}.sysctls[{at}].name: {name!r} is given twice; leave out one of them"
        seen.add(name)


def _key_problems(key: str, path: str) -> Iterator[str]:
    if not _DATA_KEY.fullmatch(key) or len(key) > 253 or key == "." or key.startswith(".."):
        rule = "must hold letters, digits, -, _ and . only, at most 253 characters, and not begin with '..'"
        yield f"{path}: {key!r} {rule}"


def _name_problems(name: str, path: str, *, needed: bool = False, limit: int = 253) -> Iterator[str]:
    """The name of an object (a DNS subdomain, RFC 1123)."""
    if (name or needed) and (not _SUBDOMAIN.fullmatch(name) or len(name) > limit):
        rule = "must begin and end with a small letter or digit and hold small letters, digits, - and . only"
        yield f"{path}: {name!r} {rule}, at most {limit} characters"
