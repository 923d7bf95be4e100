"""The order in which the suite runs, and that no test depends on another."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


OPTIONS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]


def test_every_folder_of_tests_is_run_and_the_quick_ones_come_first_then_the_longest() -> None:
    there = {f"tests/{one.parent.name}" for one in (ROOT / "tests").glob("*/test_*.py")}
    assert there == set(OPTIONS["testpaths"])
    assert OPTIONS["testpaths"][:4] == ["tests/unit", "tests/component", "tests/cluster", "tests/airflow"]


def test_no_unit_test_asks_a_server() -> None:
    """What does, or waits for a process, is in tests/component."""
    asking = [file.name for file in (ROOT / "tests/unit").glob("*.py") if "support.servers" in file.read_text()]
    assert asking == ["test_order.py"]


def test_no_test_lies_outside_the_folders() -> None:
    """However deep it lies."""
    folders = [ROOT / one for one in OPTIONS["testpaths"]]
    found = list((ROOT / "tests").rglob("test_*.py"))
    assert found
    assert [one for one in found if not any(one.is_relative_to(folder) for folder in folders)] == []


def test_no_test_imports_another() -> None:
    """What several tests use is in tests/support, or in a module beside them.

    But tests/cluster/test_contract.py runs those of tests/contract, in pods.
    """
    importing = re.compile(
        r"^(?:from tests[.a-z_]*\.test_\w+ import|from tests[.a-z_]+ import .*\btest_)", re.MULTILINE
    )
    files = [*(ROOT / "tests").rglob("*.py"), *(ROOT / "bench").rglob("*.py")]
    importers = [file.relative_to(ROOT) for file in files if importing.search(file.read_text())]
    assert importers == []
    assert "test_jobs" in (ROOT / "tests/cluster/test_contract.py").read_text()
