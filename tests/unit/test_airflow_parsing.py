"""What each parse of a DAG costs."""

from __future__ import annotations

import ast
from pathlib import Path

import airflow_provider_flux

PACKAGE = Path(airflow_provider_flux.__file__).parent


def loaded_with(module: Path) -> set[str]:
    """The packages that a module's own statements import, but not those of its functions and of type checkers."""
    names: set[str] = set()
    for node in ast.parse(module.read_text()).body:
        if isinstance(node, ast.ImportFrom):
            names.add(str(node.module).partition(".")[0])
        elif isinstance(node, ast.Import):
            names.update(alias.name.partition(".")[0] for alias in node.names)
    return names


def test_no_module_of_the_provider_loads_the_core_with_itself() -> None:
    """The core takes longer to load than the operators, which a DAG has, and which need it when a task runs."""
    modules = list(PACKAGE.rglob("*.py"))
    assert len(modules) > 20
    assert [str(one) for one in modules if "executors" in loaded_with(one)] == []
