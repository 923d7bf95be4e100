"""The engines that the contract holds for, each as a session on this machine.

What of it does not depend on this machine is run on Kubernetes too, by tests/cluster/test_contract.py.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from executors import RunId, Session, load_config, open_session
from tests.processes import alive
from tests.support.environment import engine_options, environment
from tests.support.sessions import Opener

#: Files whose tests run on Flux with pilots too: where those could differ from Flux, or from the embedded engine.
_OF_PILOTS = (
    "jobs",
    "ends",
    "keys",
    "output",
    "secrets",
    "dead_agents",
    "events",
    "engines_agree",
    "nodes_and_files",
    "release",
    "callbacks",
    "cuts",
    "faults",
    "joining",
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    chosen = [marker for marker in metafunc.definition.iter_markers("parametrize") if marker.args[0] == "engine"]
    if "engine" in metafunc.fixturenames and not chosen:
        has_pilots = metafunc.module.__name__.rpartition(".test_")[2] in _OF_PILOTS
        engines = ["embedded", "flux", *(["pilot"] if has_pilots else [])]
        metafunc.parametrize("engine", engines, indirect=True, scope="module")


@pytest.fixture(scope="module")
def engine(request: pytest.FixtureRequest, need: Callable[[str], None]) -> str:
    """embedded, flux, or pilot: Flux with ``run.pilot: on``."""
    if request.param != "embedded":
        need("flux")
    return str(request.param)


@pytest.fixture(scope="module")
def opener(engine: str) -> Iterator[Opener]:
    """Opens sessions of runs of their own; whatever a test leaves open is closed."""
    opened: list[Session] = []

    def open_one(run: str | None = None, **settings: object) -> Session:
        keywords = {k: settings.pop(k) for k in ("auto_acknowledge", "max_in_flight") if k in settings}
        options = engine_options(engine)
        options.update({f"run.{key}": value for key, value in settings.items()})
        environ = environment()
        config = load_config(environ=environ, options=options)
        session = open_session(RunId("test", run or uuid.uuid4().hex[:8]), config, environ=environ, **keywords)  # type: ignore[arg-type]
        opened.append(session)
        return session

    yield open_one
    for session in opened:
        session.close()


@pytest.fixture(scope="module")
def session(opener: Opener) -> Session:
    """One session for all tests of a module that do not end it."""
    return opener()


@pytest.fixture
def node_name() -> str:
    """What the session's only node is called."""
    return os.uname().nodename


@pytest.fixture
def is_alive() -> Callable[[int], bool]:
    """Whether a process of a job runs, by the number that the job knows it by."""
    return alive


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def many_lines() -> int:
    """So many lines of output are much."""
    return 200_000


@pytest.fixture
def moments_of_submitting(engine: str) -> list[float]:
    """Seconds after a submission that span the time in which it is answered."""
    return [index * 0.001 for index in range(0, 12, _each(engine))]


@pytest.fixture
def moments_of_ending(engine: str) -> list[float]:
    """Seconds after the beginning of an instance's end that span it."""
    return [index * 0.03 for index in range(0, 8, _each(engine))]


def _each(engine: str) -> int:
    """Of so many moments one: with pilots, an instance begins and ends as without them, and takes a second longer."""
    return 2 if engine == "pilot" else 1
