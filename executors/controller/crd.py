"""The CustomResourceDefinition, made from the spec's type. Pure.

It accepts whatever upstream's accepts, and drops what it drops: types, defaults and requirements are upstream's, and no
value is refused here. What is wrong with a spec is said in the status, where all of it can be said at once.
"""

from __future__ import annotations

from typing import Any

from executors.schema import MINICLUSTER_API_VERSION, Type
from executors.spec import SPEC

Object = dict[str, Any]

#: Kubernetes' own pattern of a quantity, as every CRD with one has it.
_QUANTITY = (
    r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$"
)
_INT32 = 2**31 - 1
_CONDITION: Object = {
    "type": "object",
    "required": ["lastTransitionTime", "message", "reason", "status", "type"],
    "properties": {
        "lastTransitionTime": {"type": "string", "format": "date-time"},
        "message": {"type": "string", "maxLength": 32768},
        "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0},
        "reason": {"type": "string", "minLength": 1, "maxLength": 1024},
        "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
        "type": {"type": "string", "maxLength": 316},
    },
}


def crd() -> Object:
    """The manifest."""
    group, _, version = MINICLUSTER_API_VERSION.partition("/")
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"miniclusters.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {
                "kind": "MiniCluster",
                "listKind": "MiniClusterList",
                "plural": "miniclusters",
                "singular": "minicluster",
                "shortNames": ["mc"],
            },
            "versions": [
                {
                    "name": version,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": _resource()},
                    "subresources": {
                        "status": {},
                        "scale": {
                            "specReplicasPath": ".spec.size",
                            "statusReplicasPath": ".status.size",
                            "labelSelectorPath": ".status.selector",
                        },
                    },
                    "additionalPrinterColumns": _columns(),
                }
            ],
        },
    }


def _columns() -> list[Object]:
    ready = '.status.conditions[?(@.type=="Ready")]'
    return [
        {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
        {"name": "Ready", "type": "string", "jsonPath": f"{ready}.status"},
        {"name": "Reason", "type": "string", "jsonPath": f"{ready}.reason"},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
        {"name": "Message", "type": "string", "jsonPath": f"{ready}.message", "priority": 1},
    ]


def _resource() -> Object:
    status = {
        "type": "object",
        "required": ["jobid", "maximumSize", "selector", "size"],
        "properties": {
            "conditions": {"type": "array", "x-kubernetes-list-type": "atomic", "items": _CONDITION},
            "jobid": {"type": "string"},
            "maximumSize": {"type": "integer", "format": "int32"},
            "observedGeneration": {"type": "integer", "format": "int64"},
            "selector": {"type": "string"},
            "size": {"type": "integer", "format": "int32"},
        },
    }
    properties = {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"type": "object"},
        "spec": structural(SPEC),
        "status": status,
    }
    return {"type": "object", "properties": properties}


def structural(kind: Type) -> Object:
    """The structural schema (Kubernetes' form of OpenAPI 3) of a type; its ranges and choices are left out."""
    if kind.kind == "object":
        made: Object = {
            "type": "object",
            "properties": {name: structural(inner) for name, inner in sorted(kind.fields.items())},
        }
        required = sorted(name for name, inner in kind.fields.items() if inner.required)
        if required:
            made["required"] = required
    elif kind.kind in ("map", "list"):
        assert kind.item is not None
        inner = structural(kind.item)
        made = (
            {"type": "object", "additionalProperties": inner}
            if kind.kind == "map"
            else {"type": "array", "items": inner}
        )
    elif kind.kind == "quantity":
        anything = [{"type": "integer"}, {"type": "string"}]
        made = {"anyOf": anything, "pattern": _QUANTITY, "x-kubernetes-int-or-string": True}
    else:
        made = {"type": kind.kind}
        if kind.kind == "integer":
            made["format"] = "int32" if kind.high <= _INT32 else "int64"
    if kind.default is not None:
        made["default"] = kind.default
    return made
