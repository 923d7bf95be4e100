"""Real Flux only: what the embedded engine does not promise."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.conftest import opener, out, session
from tests.flux.pods import MakePods, Pods

__all__ = ["engine", "opener", "out", "session"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "engine" in metafunc.fixturenames:
        # What becomes of jobs when agents are killed is told by Flux of its own, by pilots of theirs.
        engines = ["flux", "pilot"] if metafunc.module.__name__.endswith(".test_restart") else ["flux"]
        metafunc.parametrize("engine", engines, indirect=True, scope="module")


@pytest.fixture(scope="module")
def engine(request: pytest.FixtureRequest, need: Callable[[str], None]) -> str:
    need("flux")
    return str(request.param)


@pytest.fixture
def pods(need: Callable[[str], None], tmp_path: Path) -> Iterator[MakePods]:
    """Makes `Pods` in directories of their own; what runs of them is ended."""
    need("flux")
    made: list[Pods] = []

    def make(document: dict[str, Any], *arguments: Any, **options: Any) -> Pods:
        # Sockets' paths are short, tmp_path is not.
        root = Path(os.path.realpath(tmp_path)) / str(len(made))
        root.mkdir()
        made.append(Pods(root, document, *arguments, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()
