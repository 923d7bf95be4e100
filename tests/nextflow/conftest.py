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


#: Engine and what runs the pipeline; a real Nextflow takes ten seconds a test, and does not know which engine it has.
COMBINATIONS = ["embedded-stand-in", "flux-stand-in", "flux-nextflow"]


@pytest.fixture(params=COMBINATIONS)
def combination(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def engine(combination: str, need: Callable[[str], None]) -> str:
    name = combination.partition("-")[0]
    if name == "flux":
        need("flux")
    return name


@pytest.fixture
def nextflow(combination: str) -> str | None:
    """The command of a real Nextflow; None: the stand-in."""
    return None if combination.endswith("stand-in") else real_nextflow()


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
