"""The order in which the suite runs."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_folder_of_tests_is_run_and_the_quick_ones_come_first() -> None:
    options = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    there = {f"tests/{one.parent.name}" for one in (ROOT / "tests").glob("*/test_*.py")}
    assert there == set(options["testpaths"])
    assert options["testpaths"][:2] == ["tests/unit", "tests/contract"]


def test_no_test_lies_outside_the_folders() -> None:
    assert not list((ROOT / "tests").glob("test_*.py"))
    assert not list((ROOT / "tests").glob("*/*/test_*.py"))
