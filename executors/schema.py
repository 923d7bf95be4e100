"""The v1alpha2 MiniCluster spec as a table, from which its validation and the JSON Schema follow. Pure.

Names, types, requirements and defaults are those of the Flux Operator's CRD (tests compare them). Beyond it, values are
held to what Kubernetes itself takes later (``choices``, ranges), so that a mistake is said before anything is created.
What must not live here: rules between fields (`executors.spec`), and what direct mode can do (`executors.validation`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fractions import Fraction  # brings decimal, for a function that a command line does not need

JSONValue = Any  # a JSON value; see executors.job

#: The group of upstream's resource, and its version that is spoken here.
MINICLUSTER_API_VERSION = "flux-framework.org/v1alpha2"

_INT32 = 2**31 - 1
_INT64 = 2**63 - 1


@dataclass(frozen=True, kw_only=True)
class Type:
    """What one field may hold.

    ``kind``: string (``low``: its least length), boolean, integer, number, quantity, object (``fields``), map (names to
    ``item``), list (of ``item``) or any (of what JSON knows).
    """

    kind: str
    fields: Mapping[str, Type] = field(default_factory=dict)
    item: Type | None = None
    required: bool = False
    default: JSONValue = None
    choices: Sequence[str] = ()
    #: Its value may be a secret, and is not shown.
    hidden: bool = False
    low: int = -_INT64
    high: int = _INT64


_TEXT = Type(kind="string")
_FLAG = Type(kind="boolean")
_OFF = Type(kind="boolean", default=False)
_QUANTITY = Type(kind="quantity")


def _text(default: str | None = None, *choices: str) -> Type:
    return Type(kind="string", default=default, choices=choices)


def _whole(low: int, high: int = _INT32, default: int | None = None) -> Type:
    return Type(kind="integer", low=low, high=high, default=default)


def _object(**fields: Type) -> Type:
    return Type(kind="object", fields=fields)


def _map(item: Type) -> Type:
    return Type(kind="map", item=item)


def _list(item: Type) -> Type:
    return Type(kind="list", item=item)


def _needed(kind: Type) -> Type:
    return replace(kind, required=True)


_ID = _whole(0, _INT64)
_HIDDEN = Type(kind="string", hidden=True)
_RESOURCES = _object(limits=_map(_QUANTITY), requests=_map(_QUANTITY))
_SECCOMP = _object(
    localhostProfile=_TEXT,
    type=_needed(_text(None, "RuntimeDefault", "Localhost", "Unconfined")),
)
_SELINUX = _object(level=_TEXT, role=_TEXT, type=_TEXT, user=_TEXT)
_WINDOWS = _object(gmsaCredentialSpec=_TEXT, gmsaCredentialSpecName=_TEXT, hostProcess=_FLAG, runAsUserName=_TEXT)
_SECURITY = _object(
    allowPrivilegeEscalation=_FLAG,
    capabilities=_object(add=_list(_TEXT), drop=_list(_TEXT)),
    privileged=_FLAG,
    procMount=_text(None, "Default", "Unmasked"),
    readOnlyRootFilesystem=_FLAG,
    runAsGroup=_ID,
    runAsNonRoot=_FLAG,
    runAsUser=_ID,
    seLinuxOptions=_SELINUX,
    seccompProfile=_SECCOMP,
    windowsOptions=_WINDOWS,
)
_POD_SECURITY = _object(
    fsGroup=_ID,
    fsGroupChangePolicy=_text(None, "OnRootMismatch", "Always"),
    runAsGroup=_ID,
    runAsNonRoot=_FLAG,
    runAsUser=_ID,
    seLinuxOptions=_SELINUX,
    seccompProfile=_SECCOMP,
    supplementalGroups=_list(_ID),
    sysctls=_list(_object(name=_needed(_TEXT), value=_needed(_TEXT))),
    windowsOptions=_WINDOWS,
)
_VOLUME = _object(
    claimName=_TEXT,
    configMapName=_TEXT,
    csiDriver=_TEXT,
    csiDriverAttributes=_map(_TEXT),
    emptyDir=_OFF,
    emptyDirMedium=_TEXT,
    emptyDirSizeLimit=_TEXT,
    hostPath=_TEXT,
    items=_map(_TEXT),
    path=_TEXT,
    readOnly=_OFF,
    secretName=_TEXT,
)
_COMMANDS = _object(
    brokerPre=_TEXT,
    init=_TEXT,
    post=_TEXT,
    pre=_TEXT,
    prefix=_TEXT,
    script=_TEXT,
    servicePre=_TEXT,
    workerPre=_TEXT,
)
_CONTAINER = _object(
    batch=_FLAG,
    batchRaw=_FLAG,
    command=_TEXT,
    commands=_COMMANDS,
    environment=_map(_HIDDEN),
    image=_text("ghcr.io/rse-ops/accounting:app-latest"),
    imagePullPolicy=_text(None, "Always", "IfNotPresent", "Never"),
    imagePullSecret=_TEXT,
    launcher=_FLAG,
    lifeCycle=_object(postStartExec=_TEXT, preStopExec=_TEXT),
    logs=_TEXT,
    name=_TEXT,
    noWrapEntrypoint=_FLAG,
    ports=_list(_whole(1, 65535)),
    pullAlways=_OFF,
    resources=_RESOURCES,
    runFlux=_FLAG,
    secrets=_map(_object(key=_needed(_TEXT), name=_needed(_TEXT))),
    securityContext=_SECURITY,
    volumes=_map(_VOLUME),
    workingDir=_TEXT,
)
_FLUX = _object(
    arch=_TEXT,
    brokerConfig=_TEXT,
    bursting=_object(
        clusters=_list(_object(name=_TEXT, size=_whole(0))),
        hostlist=_TEXT,
        leadBroker=_object(
            address=_needed(_TEXT),
            name=_needed(_TEXT),
            port=_whole(1, 65535, 8050),
            size=_needed(_whole(1)),
        ),
    ),
    completeWorkers=_FLAG,
    connectTimeout=_text("5s"),
    container=_object(
        disable=_OFF,
        image=_text("ghcr.io/converged-computing/flux-view-ubuntu:tag-noble"),
        imagePullSecret=_TEXT,
        mountPath=_text("/mnt/flux"),
        name=_text("flux-view"),
        pullAlways=_OFF,
        pythonPath=_TEXT,
        resources=_RESOURCES,
        securityContext=_SECURITY,
        workingDir=_TEXT,
    ),
    curveCert=_HIDDEN,
    disableSocket=_FLAG,
    environment=_map(_HIDDEN),
    logLevel=_whole(0, 7, 6),
    minimalService=_FLAG,
    mungeSecret=_TEXT,
    noWaitSocket=_FLAG,
    optionFlags=_TEXT,
    scheduler=_object(queuePolicy=_TEXT, simple=_FLAG),
    submitCommand=_TEXT,
    topology=_TEXT,
    wrap=_TEXT,
)
_POD = _object(
    annotations=_map(_TEXT),
    automountServiceAccountToken=_FLAG,
    dnsPolicy=_text(None, "ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"),
    hostIPC=_FLAG,
    hostPID=_FLAG,
    labels=_map(_TEXT),
    nodeAffinity=_map(_list(_TEXT)),
    nodeSelector=_map(_TEXT),
    resources=_map(_QUANTITY),
    restartPolicy=_text(None, "Never", "OnFailure", "Always"),
    runtimeClassName=_TEXT,
    schedulerName=_TEXT,
    securityContext=_POD_SECURITY,
    serviceAccountName=_TEXT,
    tolerations=_list(
        _object(
            effect=_text(None, "NoSchedule", "PreferNoSchedule", "NoExecute"),
            key=_TEXT,
            operator=_text(None, "Exists", "Equal"),
            value=_TEXT,
        )
    ),
)

_ANY = Type(kind="any")
_NAMED = _list(_object(name=_needed(_TEXT)))
#: ``run.podPatch``, a strategic merge patch for the Job's pod template: what of a PodTemplateSpec may be in it.
#: What is below that is Kubernetes' to judge, and `executors.render.patch`'s where brokers need it.
POD_PATCH = _object(
    metadata=_object(annotations=_map(_TEXT), labels=_map(_TEXT)),
    spec=_object(
        affinity=_ANY,
        automountServiceAccountToken=_FLAG,
        containers=_list(_ANY),
        dnsConfig=_ANY,
        dnsPolicy=_text(None, "ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"),
        enableServiceLinks=_FLAG,
        hostAliases=_list(_ANY),
        hostIPC=_FLAG,
        hostNetwork=_FLAG,
        hostPID=_FLAG,
        hostUsers=_FLAG,
        imagePullSecrets=_NAMED,
        initContainers=_list(_ANY),
        nodeName=_TEXT,
        nodeSelector=_map(_TEXT),
        os=_ANY,
        overhead=_map(_QUANTITY),
        preemptionPolicy=_text(None, "PreemptLowerPriority", "Never"),
        priority=_whole(-(2**31)),
        priorityClassName=_TEXT,
        readinessGates=_list(_ANY),
        resourceClaims=_list(_ANY),
        resources=_ANY,
        runtimeClassName=_TEXT,
        schedulerName=_TEXT,
        schedulingGates=_NAMED,
        securityContext=_ANY,
        serviceAccountName=_TEXT,
        terminationGracePeriodSeconds=_whole(0, _INT64),
        tolerations=_list(
            _object(
                effect=_text(None, "NoSchedule", "PreferNoSchedule", "NoExecute"),
                key=_TEXT,
                operator=_text(None, "Exists", "Equal"),
                tolerationSeconds=_whole(-_INT64, _INT64),
                value=_TEXT,
            )
        ),
        topologySpreadConstraints=_list(_ANY),
        volumes=_list(_ANY),
    ),
)
#: Fields of a pod that a patch may not have, and why.
_NOT_IN_A_PATCH = {
    "activeDeadlineSeconds": "it would end the brokers' pods one by one; give run.maxLifetime",
    "ephemeralContainers": "Kubernetes takes none in a template",
    "hostname": "brokers find each other by their host names",
    "hostnameOverride": "brokers find each other by their host names",
    "restartPolicy": "the Job itself replaces pods that fail, which needs Never",
    "setHostnameAsFQDN": "brokers find each other by their host names",
    "shareProcessNamespace": "give it in minicluster",
    "subdomain": "brokers find each other by it; give minicluster.network.headlessName",
}


def pod_patch_problems(value: JSONValue, path: str = "run.podPatch") -> list[str]:
    """Every field of a patch that is unknown, refused, or of a wrong type or value: one text each."""
    given = value.get("spec") if isinstance(value, Mapping) else None
    if not isinstance(given, Mapping):
        return shape_problems(value, path, POD_PATCH)
    found = [
        f"{path}.spec.{name}: cannot be changed: {_NOT_IN_A_PATCH[name]}" for name in given if name in _NOT_IN_A_PATCH
    ]
    rest = {name: inner for name, inner in given.items() if name not in _NOT_IN_A_PATCH}
    return found + shape_problems({**value, "spec": rest}, path, POD_PATCH)


#: The whole ``spec`` of a v1alpha2 MiniCluster.
SPEC = _object(
    archive=_object(path=_TEXT),
    backoffLimit=_whole(0),
    cleanup=_OFF,
    containers=_needed(_list(_CONTAINER)),
    deadlineSeconds=_whole(1, _INT64, 31500000),
    flux=_FLUX,
    interactive=_OFF,
    jobLabels=_map(_TEXT),
    logging=_object(debug=_OFF, quiet=_OFF, strict=_OFF, timed=_OFF, zeromq=_OFF),
    maxSize=_whole(1),
    minSize=_whole(1),
    network=_object(disableAffinity=_FLAG, headlessName=_TEXT),
    pod=_POD,
    services=_list(_CONTAINER),
    shareProcessNamespace=_FLAG,
    size=_whole(1, _INT32, 1),
    tasks=_whole(0, _INT32, 1),
)


# -- validation

_WHAT = {
    "string": "a string (without null bytes)",
    "boolean": "true or false",
    "object": "a mapping",
    "map": "a mapping of names to values",
    "list": "a list",
    "quantity": "a quantity such as 2, 500m or 4Gi",
}
#: Kubernetes' quantities (its API concepts, "resource units").
_QUANTITY_PATTERN = r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)(([KMGTPE]i)|[numkMGTPE]|[eE][+-]?[0-9]{1,2})?"
_QUANTITY_RE = re.compile(_QUANTITY_PATTERN + r"\Z")


def shape_problems(value: JSONValue, path: str, kind: Type = SPEC) -> list[str]:
    """Every field below ``path`` that is unknown, missing, or of a wrong type or value: one text each."""
    if kind.kind == "any":
        return _json_problems(value, path)
    if value is None:
        return [f"{path}: is empty (null); give {_allowed(kind)}, or leave the field out"]
    if kind.kind == "object":
        return _object_problems(value, path, kind)
    if kind.kind in ("map", "list"):
        return _collection_problems(value, path, kind)
    if not _is_scalar(value, kind):
        plain = isinstance(value, int | float | bool) and kind.kind in ("string", "quantity")
        shown = f"a value of type {type(value).__name__}" if kind.hidden else _shown(value)
        return [f"{path}: {shown} must be {_allowed(kind)}{'; put it in quotes' if plain else ''}"]
    return []


def _json_problems(value: JSONValue, path: str) -> list[str]:
    """What YAML can hold and JSON cannot: dates, sets, names that are no strings, infinities."""
    if isinstance(value, Mapping):
        strange = [
            f"{path}: the name {name!r} must be a string; put it in quotes" for name in value if type(name) is not str
        ]
        return strange + [one for name, inner in value.items() for one in _json_problems(inner, f"{path}.{name}")]
    if isinstance(value, list):
        return [one for at, inner in enumerate(value) for one in _json_problems(inner, f"{path}[{at}]")]
    finite = not isinstance(value, float) or value - value == 0
    if value is None or (isinstance(value, str | int | float) and finite):
        return []
    return [f"{path}: {_shown(value)} is nothing that JSON knows; put it in quotes"]


def _object_problems(value: JSONValue, path: str, kind: Type) -> list[str]:
    if not isinstance(value, Mapping):
        return [f"{path}: {_shown(value)} must be {_allowed(kind)}"]
    found = []
    for name, inner in value.items():
        below = f"{path}.{name}" if path else str(name)
        known = kind.fields.get(name) if isinstance(name, str) else None
        found += [_unknown_field(below, name, kind)] if known is None else shape_problems(inner, below, known)
    missing = [(name, one) for name, one in kind.fields.items() if one.required and name not in value]
    return found + [f"{path}.{name}: is missing; give {_allowed(one)}" for name, one in missing]


def _collection_problems(value: JSONValue, path: str, kind: Type) -> list[str]:
    assert kind.item is not None
    if kind.kind == "list" and isinstance(value, list):
        return [one for at, inner in enumerate(value) for one in shape_problems(inner, f"{path}[{at}]", kind.item)]
    if kind.kind == "list" or not isinstance(value, Mapping):
        return [f"{path}: {_shown(value)} must be {_allowed(kind)}"]
    found = []
    for name, inner in value.items():
        if not isinstance(name, str):
            found.append(f"{path}: the name {name!r} must be a string; put it in quotes")
        else:
            found += shape_problems(inner, f"{path}.{name}", kind.item)
    return found


def _is_scalar(value: JSONValue, kind: Type) -> bool:
    if kind.kind == "boolean":
        return isinstance(value, bool)
    if kind.kind == "integer":
        return isinstance(value, int) and not isinstance(value, bool) and kind.low <= value <= kind.high
    if kind.kind == "quantity":
        return _is_whole(value) or (isinstance(value, str) and _QUANTITY_RE.match(value) is not None)
    return isinstance(value, str) and "\0" not in value and (not kind.choices or value in kind.choices)


def _is_whole(value: JSONValue) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _allowed(kind: Type) -> str:
    if kind.choices:
        return " or ".join([", ".join(kind.choices[:-1]), kind.choices[-1]])
    if kind.kind == "integer":
        if kind.low == -_INT64:
            return "a whole number"
        return f"a whole number >= {kind.low}" if kind.high >= _INT32 else f"a whole number {kind.low} to {kind.high}"
    return _WHAT[kind.kind]


def _shown(value: JSONValue) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _unknown_field(path: str, name: object, kind: Type) -> str:
    homes = sorted({home for home in _homes(SPEC, "") if home.split(".")[-1] == name})
    said = unknown(path, name, kind.fields)
    return said if "did you mean" in said or not homes else f"{path}: is not known here; did you mean {homes[0]}?"


def _homes(kind: Type, path: str) -> Iterator[str]:
    """Paths of all fields of a type: ``containers[].image``."""
    for name, inner in kind.fields.items():
        below = f"{path}.{name}" if path else name
        yield below
        while inner.item is not None:
            below += ".{}" if inner.kind == "map" else "[]"
            inner = inner.item
        yield from _homes(inner, below)


def unknown(path: str, name: object, known: Mapping[str, object] | Sequence[str]) -> str:
    """The problem of a field that does not exist, with the nearest one that does."""
    import difflib  # for an error only

    lower = {one.lower(): one for one in known}
    near = difflib.get_close_matches(str(name).lower(), list(lower), 1)
    return f"{path}: is not known; " + (f"did you mean {lower[near[0]]}?" if near else f"known are {', '.join(known)}")


# -- JSON Schema

_DRAFT = "https://json-schema.org/draft/2020-12/schema"


def json_schema(kind: Type = SPEC) -> dict[str, JSONValue]:
    """The JSON Schema (draft 2020-12) of a type, without ``$schema``."""
    made: dict[str, JSONValue]
    if kind.kind == "object":
        made = {
            "type": "object",
            "additionalProperties": False,
            "properties": {name: json_schema(inner) for name, inner in kind.fields.items()},
        }
        required = [name for name, inner in kind.fields.items() if inner.required]
        if required:
            made["required"] = required
    elif kind.kind in ("map", "list"):
        assert kind.item is not None
        inner = json_schema(kind.item)
        made = (
            {"type": "object", "additionalProperties": inner}
            if kind.kind == "map"
            else {"type": "array", "items": inner}
        )
    elif kind.kind == "any":
        made = {}
    elif kind.kind == "quantity":
        made = {"anyOf": [{"type": "integer"}, {"type": "string", "pattern": f"^{_QUANTITY_PATTERN}$"}]}
    else:
        made = {"type": kind.kind}
        if kind.low > -_INT64:
            made["minLength" if kind.kind == "string" else "minimum"] = kind.low
        if kind.high < _INT64:
            made["maximum"] = kind.high
        if kind.choices:
            made["enum"] = list(kind.choices)
    if kind.default is not None:
        made["default"] = kind.default
    return made


# -- quantities

_SUFFIXES = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = "KMGTPE"


def quantity(value: str | int) -> Fraction:
    """The number that a Kubernetes quantity stands for: ``500m`` -> 1/2, ``4Gi`` -> 4294967296.

    Raises ValueError for what is none.
    """
    from fractions import Fraction  # see above

    text = str(value)
    found = _QUANTITY_RE.match(text)
    if found is None:
        raise ValueError(f"{text!r} is not a quantity")
    suffix = found.group(3) or ""
    number = Fraction(text[: len(text) - len(suffix)])
    if suffix.endswith("i"):
        return number * Fraction(1 << 10 * (_BINARY.index(suffix[0]) + 1))
    power = int(suffix[1:]) if len(suffix) > 1 else _SUFFIXES[suffix]
    scale = int("1" + "0" * abs(power))
    return number * scale if power >= 0 else number / scale
