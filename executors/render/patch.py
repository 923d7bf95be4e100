"""``run.podPatch``: a strategic merge patch over the Job's pod template. It adds and changes, and takes nothing away
that the brokers need.

Lists of objects are merged by the keys that Kubernetes' own types name (patchMergeKey in k8s.io/api/core/v1), all
others are replaced whole; null deletes a field, and so does ``$patch: delete``; ``$patch: replace`` replaces.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from executors.api_rules import annotation_problems, is_below, label_problems, plain_path, toleration_problems

Object = dict[str, Any]

_CONTAINER = {"env": "name", "ports": "containerPort", "volumeMounts": "mountPath", "volumeDevices": "devicePath"}
#: Field -> its merge key, and those of lists within its items.
_LISTS: dict[str, tuple[str, Mapping[str, str]]] = {
    "containers": ("name", _CONTAINER),
    "initContainers": ("name", _CONTAINER),
    "volumes": ("name", {}),
    "imagePullSecrets": ("name", {}),
    "hostAliases": ("ip", {}),
    "topologySpreadConstraints": ("topologyKey", {}),
    "schedulingGates": ("name", {}),
    "resourceClaims": ("name", {}),
}
_DIRECTIVE = "$patch"
_DIRECTIVES = ("delete", "merge", "replace")
#: Of our containers, what a patch may give or change.
_ADDABLE = (
    "env", "envFrom", "ports", "resizePolicy", "resources", "securityContext", "terminationMessagePath",
    "terminationMessagePolicy", "volumeDevices", "volumeMounts",
)  # fmt: skip
#: Fields of our containers that the spec has.
_IN_THE_SPEC = {
    "command": "command", "image": "image", "imagePullPolicy": "imagePullPolicy", "lifecycle": "lifeCycle",
    "resources": "resources", "workingDir": "workingDir",
}  # fmt: skip
_OUR_VARIABLE = re.compile(r"FLUXOP_.*|FLUX_URI|FLUX_DISABLE_JOB_CLEANUP|JOB_COMPLETION_INDEX")
#: What is below their mounts is ours alone; below that of the view there may be more.
_OUR_VOLUMES = ("flux-state", "flux-curve")
#: Of valueFrom: what holds no secrets.
_PUBLIC_SOURCES = frozenset(("configMapKeyRef", "fieldRef", "resourceFieldRef"))
#: What the Job's controller writes.
_CONTROLLERS = ("batch.kubernetes.io/", "job-name", "controller-uid")


def patched(template: Object, patch: Mapping[str, Any]) -> Object:
    """The template with a patch that has no problems."""
    if not patch:
        return template
    spec = _merged(template["spec"], patch.get("spec", {}), _LISTS)
    metadata = _merged(template["metadata"], patch.get("metadata", {}), {})
    return {**template, "metadata": metadata, "spec": spec}


def _merged(there: Any, change: Mapping[str, Any], lists: Mapping[str, tuple[str, Mapping[str, str]]]) -> Object:
    made: Object = dict(there) if isinstance(there, Mapping) and change.get(_DIRECTIVE) != "replace" else {}
    for name, value in change.items():
        if name == _DIRECTIVE:
            continue
        if value is None or (isinstance(value, Mapping) and value.get(_DIRECTIVE) == "delete"):
            made.pop(name, None)
        elif isinstance(value, Mapping):
            made[name] = _merged(made.get(name), value, {})
        elif isinstance(value, list) and name in lists:
            made[name] = _merged_list(made.get(name) or [], value, *lists[name])
        else:
            made[name] = value
    return made


def _merged_list(there: list[Any], change: list[Any], key: str, inner: Mapping[str, str]) -> list[Any]:
    made = {one[key]: one for one in there}
    below: dict[str, tuple[str, Mapping[str, str]]] = {name: (merge_key, {}) for name, merge_key in inner.items()}
    for one in change:
        if one.get(_DIRECTIVE) == "delete":
            made.pop(one[key], None)
        else:
            made[one[key]] = _merged(made.get(one[key]), one, below)
    return list(made.values())


# -- what it may not do


def patch_problems(template: Object, patch: Mapping[str, Any], grace: int, path: str = "run.podPatch") -> list[str]:
    """What of a patch of the right shape (`executors.pod_patch.POD_PATCH`) would take from the brokers what they need.

    ``grace``: the least terminationGracePeriodSeconds.
    """
    spec = patch.get("spec", {})
    found = list(_form_problems(spec, f"{path}.spec"))
    if found:
        return found
    found += _label_problems(template["metadata"], patch.get("metadata", {}), f"{path}.metadata")
    for field in ("containers", "initContainers"):
        there = {one["name"]: one for one in template["spec"].get(field, [])}
        for at, one in enumerate(spec.get(field, [])):
            where = f"{path}.spec.{field}[{at}]"
            if one["name"] in there:
                found += _container_problems(there[one["name"]], one, where)
                if field == "containers":
                    found += _envfrom_problems(one.get("envFrom", []), f"{where}.envFrom")
            else:
                found += _stranger_problems(template["spec"], field, one["name"], where)
    taken = {volume["name"] for volume in template["spec"].get("volumes", [])}
    for at, one in enumerate(spec.get("volumes", [])):
        if one["name"] in taken or one["name"].endswith("-entrypoint"):
            where = f"{path}.spec.volumes[{at}].name"
            found.append(f"{where}: {one['name']!r} is a volume of the pods already; choose another name")
    metadata = patch.get("metadata", {})
    found += label_problems(metadata.get("labels", {}), f"{path}.metadata.labels")
    found += annotation_problems(metadata.get("annotations", {}), f"{path}.metadata.annotations")
    found += label_problems(spec.get("nodeSelector", {}), f"{path}.spec.nodeSelector")
    found += toleration_problems(spec.get("tolerations", []), f"{path}.spec.tolerations")
    security = _merged(template["spec"], spec, _LISTS).get("securityContext")
    if isinstance(security, Mapping) and security.get("runAsUser") == 0 and security.get("runAsNonRoot"):
        found.append(f"{path}.spec.securityContext.runAsUser: 0 is root; give runAsNonRoot: false beside it")
    given = spec.get("terminationGracePeriodSeconds", grace)
    if given < grace:
        found.append(
            f"{path}.spec.terminationGracePeriodSeconds: {given} is less than the {grace} that the brokers need"
        )
    return found


def _form_problems(spec: Mapping[str, Any], path: str) -> Iterator[str]:
    """Directives that are not known, and items of lists without the key by which they are merged."""
    yield from _directive_problems(spec, path)
    for name, (key, inner) in _LISTS.items():
        yield from _key_problems(spec.get(name, []), f"{path}.{name}", key, inner)


def _key_problems(items: Any, path: str, key: str, inner: Mapping[str, str]) -> Iterator[str]:
    if not isinstance(items, list):
        yield f"{path}: must be a list"
        return
    seen = set()
    for at, one in enumerate(items):
        where = f"{path}[{at}]"
        if not isinstance(one, Mapping):
            yield f"{where}: must be a mapping"
            continue
        value = one.get(key)
        wanted, what = (int, "a number") if key == "containerPort" else (str, "a string")
        if value is None or value == "":
            yield f"{where}.{key}: is missing; it says which item is meant"
        elif not isinstance(value, wanted) or isinstance(value, bool):
            yield f"{where}.{key}: {value!r} must be {what}; it says which item is meant"
        elif value in seen:
            yield f"{where}.{key}: {value!r} is given twice"
        else:
            seen.add(value)
        for name, inner_key in inner.items():
            yield from _key_problems(one.get(name, []), f"{where}.{name}", inner_key, {})


def _directive_problems(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if name == _DIRECTIVE and inner not in _DIRECTIVES:
                yield f"{path}.{name}: {inner!r} must be {', '.join(_DIRECTIVES)}"
            elif str(name).startswith("$") and name != _DIRECTIVE:
                yield f"{path}.{name}: this directive is not supported, {_DIRECTIVE} is"
            yield from _directive_problems(inner, f"{path}.{name}")
    elif isinstance(value, list):
        for at, inner in enumerate(value):
            yield from _directive_problems(inner, f"{path}[{at}]")


def _label_problems(there: Mapping[str, Any], given: Mapping[str, Any], path: str) -> Iterator[str]:
    for name in given.get("labels", {}):
        if name in there["labels"]:
            yield f"{path}.labels.{name}: the pods have it already; leave it out"
    for section in ("labels", "annotations"):
        for name in given.get(section, {}):
            if name.startswith(_CONTROLLERS):
                yield f"{path}.{section}.{name}: is written by the Job's controller; leave it out"


def _stranger_problems(spec: Mapping[str, Any], field: str, name: str, path: str) -> Iterator[str]:
    other = "initContainers" if field == "containers" else "containers"
    if any(one["name"] == name for one in spec.get(other, [])):
        yield f"{path}.name: {name!r} is in {other} of the pods; patch it there"
    elif field == "containers":
        there = ", ".join(container["name"] for container in spec["containers"])
        yield (
            f"{path}.name: {name!r} is not a container of the pods; they have {there} (minicluster.containers[].name); "
            "put it into minicluster.containers, because here it would keep the pods from ending"
        )


def _container_problems(there: Mapping[str, Any], given: Mapping[str, Any], path: str) -> Iterator[str]:
    """One of our containers, or of the spec's."""
    for name in given:
        if name != "name" and name not in _ADDABLE:
            home = _IN_THE_SPEC.get(name)
            cure = f"give it in minicluster.containers[].{home}" if home else "leave it out"
            yield f"{path}.{name}: cannot be changed in a container of the brokers; {cure}"
    resources = given.get("resources", {})  # null, too, would take requests and limits away
    if not isinstance(resources, Mapping) or set(resources) - {"claims"}:
        yield (
            f"{path}.resources: only claims can be given here; requests and limits are what Flux offers to jobs: give "
            "them in minicluster.containers[].resources"
        )
    variables = {one["name"] for one in there.get("env", [])}
    for at, one in enumerate(given.get("env", [])):
        if one["name"] in variables or _OUR_VARIABLE.fullmatch(str(one["name"])):
            cure = "leave it out, or change it in minicluster.containers[].environment"
            yield f"{path}.env[{at}].name: {one['name']!r} is set already, or is reserved; {cure}"
    there_already = {plain_path(one["mountPath"]): one["name"] for one in there.get("volumeMounts", [])}
    ours = [path for path, name in there_already.items() if name in _OUR_VOLUMES or name.endswith("-entrypoint")]
    for field, key in (("volumeMounts", "mountPath"), ("volumeDevices", "devicePath")):
        for at, one in enumerate(given.get(field, [])):
            where = plain_path(one[key])
            if where == "/" or where in there_already or is_below(where, ours):
                yield f"{path}.{field}[{at}].{key}: {one[key]!r} is in use already; mount it elsewhere"
    security = given.get("securityContext", {})
    if not isinstance(security, Mapping):
        yield f"{path}.securityContext: must be a mapping"


def _envfrom_problems(sources: Any, path: str) -> Iterator[str]:
    """Jobs inherit the variables of the brokers' container, less those that are known to be secrets; of these only the
    kubelet knows the names."""
    for at, one in enumerate(_mappings(sources)):
        if one.get("secretRef") is not None:
            yield (
                f"{path}[{at}].secretRef: its variables would get into every job's jobspec, which Flux stores; name "
                "each in env, with valueFrom.secretKeyRef, or in minicluster.containers[].secrets"
            )


def secret_variables(patch: Mapping[str, Any], container: str, known: Iterable[str] = ()) -> list[str]:
    """Variables of a container that hold secrets: ``known`` ones, and those to which a patch, which may have problems,
    gives values from a source that is not known to be public."""
    found = set(known)
    for given in _mappings(patch.get("spec", {}).get("containers")):
        for one in _mappings(given.get("env")) if given.get("name") == container else ():
            source = one.get("valueFrom") or {}
            public = isinstance(source, Mapping) and _PUBLIC_SOURCES.issuperset(source)
            # Kubernetes puts variables that came before in the place of $(NAME).
            if not public or not found.isdisjoint(re.findall(r"\$\(([^()]*)\)", str(one.get("value")))):
                found.add(str(one.get("name")))
    return sorted(found)


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []


def needs_mounts(patch: Mapping[str, Any]) -> bool:
    """Whether a pod with this patch has to mount our files: it has volumes anyway, or may not write elsewhere."""
    fields = ("containers", "initContainers", "volumes", "securityContext", "runtimeClassName", "hostUsers")
    return any(patch.get("spec", {}).get(name) for name in fields)
