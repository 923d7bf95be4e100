"""The order in which the suite runs."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


OPTIONS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]


def test_every_folder_of_tests_is_run_and_the_quick_ones_come_first() -> None:
    there = {f"tests/{one.parent.name}" for one in (ROOT / "tests").glob("*/test_*.py")}
    assert there == set(OPTIONS["testpaths"])
    assert OPTIONS["testpaths"][:2] == ["tests/unit", "tests/contract"]


def test_no_test_lies_outside_the_folders() -> None:
    """However deep it lies."""
    folders = [ROOT / one for one in OPTIONS["testpaths"]]
    found = list((ROOT / "tests").rglob("test_*.py"))
    assert found
    assert [one for one in found if not any(one.is_relative_to(folder) for folder in folders)] == []
