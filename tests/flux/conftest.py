"""Real Flux only: what the embedded engine does not promise."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from executors import RunId, Session, load_config, open_session
from tests.conftest import missing
from tests.contract.conftest import opener, out, session
from tests.flux.pilots import Opener
from tests.flux.pods import MakePods, Pods
from tests.support.environment import engine_options, environment

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
def pilots(need: Callable[[str], None]) -> Iterator[Opener]:
    """Opens sessions with pilots; what a test leaves open is closed. ``variables``: more of the environment."""
    need("flux")
    opened: list[Session] = []

    def open_one(name: str, brokers: int = 1, pilot: str = "on", variables: Mapping[str, str] | None = None) -> Session:
        environ = {**environment(), **(variables or {})}
        options = {**engine_options("pilot"), "run.brokers": brokers, "run.pilot": pilot}
        one = open_session(RunId("test", name), load_config(environ=environ, options=options), environ=environ)
        opened.append(one)
        return one

    yield open_one
    for one in opened:
        one.close()


@pytest.fixture
def fluxion() -> dict[str, str]:
    """Variables with which an instance begins with Fluxion, the scheduler that gives jobs GPUs."""
    prefix = os.environ.get("FLUXOP_TEST_FLUXION", "")
    if not prefix:
        missing(
            "fluxion", "FLUXOP_TEST_FLUXION names no directory that flux-sched was installed into (CONTRIBUTING.md)"
        )
    return {
        "FLUX_MODULE_PATH_PREPEND": f"{prefix}/lib/flux/modules",
        "FLUX_MODPROBE_PATH_APPEND": f"{prefix}/etc/flux/modprobe",
        "LD_LIBRARY_PATH": f"{prefix}/lib",
    }


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
