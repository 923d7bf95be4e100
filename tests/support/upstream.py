"""The conformance data: MiniClusters of upstream's examples, and what the real upstream operator made of each.

They belong to upstream and are no part of this project: FLUXOP_UPSTREAM_DATA names their directory.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

_HOW = (
    "upstream's data is not here; set FLUXOP_UPSTREAM_DATA to a directory with its crd.yaml (config/crd/bases of "
    "flux-framework/flux-operator), miniclusters/*.yaml (from its examples) and rendered/<same name>.yaml (kubectl get "
    "job,configmap,service,pod -o yaml of what its operator made of each)"
)


def directory() -> Path:
    """Where the data is; skips the test where it is not."""
    given = os.environ.get("FLUXOP_UPSTREAM_DATA")
    found = Path(given) if given else Path(__file__).parents[3] / "shared" / "upstream"
    if not (found / "crd.yaml").exists():
        pytest.skip(_HOW)
    return found


def miniclusters() -> dict[str, dict[str, Any]]:
    """By name; the caller may change what it is given."""
    return {name: documents[0] for name, documents in copy.deepcopy(_read(directory() / "miniclusters")).items()}


def rendered() -> dict[str, list[dict[str, Any]]]:
    """By the name of the MiniCluster; the caller may change what it is given."""
    return copy.deepcopy(_read(directory() / "rendered"))


@cache
def _read(folder: Path) -> dict[str, list[dict[str, Any]]]:
    found = {}
    for path in sorted(folder.glob("*.yaml")):
        with path.open() as file:
            # libyaml's, where PyYAML has it: the pure one takes seconds.
            found[path.stem] = [
                one for one in yaml.load_all(file, getattr(yaml, "CSafeLoader", yaml.SafeLoader)) if one
            ]
    return found


def crd_spec() -> dict[str, Any]:
    """The schema of ``spec`` in v1alpha2."""
    document = yaml.safe_load((directory() / "crd.yaml").read_text())
    [version] = [one for one in document["spec"]["versions"] if one["name"] == "v1alpha2"]
    found: dict[str, Any] = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return found


def flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of an object with its path; items of lists go by their name, a list of plain values is one value."""
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from flat(inner, f"{path}.{name}" if path else name)
    elif isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
        for at, inner in enumerate(value):
            name = inner["port"] if "port" in inner else inner.get("name", at)
            if "mountPath" in inner:  # a volume may be mounted twice
                inner = {**inner, "mountPath": inner["mountPath"].rstrip("/")}
                name = f"{name} at {inner['mountPath']}"
            yield from flat(inner, f"{path}[{name}]")
    else:
        yield path, value
