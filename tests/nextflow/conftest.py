"""Runs of ``flux-minicluster nextflow``: with the stand-in always, with a real Nextflow where FLUXOP_TEST_NEXTFLOW is
the path of its command; on the embedded engine and on Flux."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import missing
from tests.nextflow.runs import Runner

VARIABLE = "FLUXOP_TEST_NEXTFLOW"


@pytest.fixture(params=["embedded", "flux"])
def engine(request: pytest.FixtureRequest, need: Callable[[str], None]) -> str:
    if request.param == "flux":
        need("flux")
    return str(request.param)


@pytest.fixture(params=["stand-in", "nextflow"])
def nextflow(request: pytest.FixtureRequest) -> str | None:
    """The command of a real Nextflow; None: the stand-in."""
    if request.param == "stand-in":
        return None
    return real_nextflow()


def real_nextflow() -> str:
    command = os.environ.get(VARIABLE)
    if not command:
        missing("nextflow", f"no real Nextflow: set {VARIABLE} to the path of a `nextflow` command")
    return command


@pytest.fixture
def runtime() -> Iterator[Path]:
    """Where instances and sessions are: sockets' paths are short, tmp_path is not."""
    with tempfile.TemporaryDirectory(prefix="nf", dir="/tmp", ignore_cleanup_errors=True) as directory:
        yield Path(directory)


@pytest.fixture
def runner(tmp_path: Path, runtime: Path, engine: str, nextflow: str | None) -> Iterator[Runner]:
    made = Runner(tmp_path / "run", runtime, engine, nextflow)
    yield made
    made.close()
