"""Fields of Kubernetes objects are read by names that stand in `executors.kube.objects`.

mypy finds a misspelt field in ``pod["stauts"]``, but not in ``status.get("reson")``, whose type it takes to be object.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import is_typeddict

import pytest

import executors
from executors.kube import objects

ROOT = Path(executors.__file__).parent
READERS = sorted(
    [
        ROOT / "cli" / "room.py",
        *(ROOT / "provision" / "kubernetes").glob("*.py"),
        *(
            ROOT / "controller" / f"{name}.py"
            for name in ("acting", "conditions", "leading", "loop", "store", "deciding")
        ),
    ]
)
FIELDS = {
    field
    for one in vars(objects).values()
    if is_typeddict(one)
    for field in one.__required_keys__ | one.__optional_keys__
}
#: Read of what is no such object: labels, resources, managed fields, a MiniCluster's spec, rendered pods.
OTHERS = {
    "job-name",
    "memory",
    "f:spec",
    "cleanup",
    "size",
    "maxSize",
    "priorityClassName",
    "flux",
    "curveCert",
    "services",
}


def read_fields(path: Path) -> Iterator[str]:
    """Constant names in ``x.get("name")``."""
    for node in ast.walk(ast.parse(path.read_text())):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "get"
            and node.args
        ):
            key = node.args[0]
            if isinstance(key, ast.Constant) and isinstance(key.value, str):
                yield key.value


@pytest.mark.parametrize("path", READERS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_no_field_that_is_read_is_misspelt(path: Path) -> None:
    assert set(read_fields(path)) - FIELDS - OTHERS == set()
