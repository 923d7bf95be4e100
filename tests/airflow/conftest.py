"""An Airflow for the tests of this folder."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.airflow.environment import ROOT, airflow_environment, create_database, why_missing
from tests.airflow.inprocess import DagTest
from tests.airflow.stack import AirflowStack
from tests.conftest import missing
from tests.processes import alive
from tests.support.prepared import Prepared

#: Runs a piece of Python with Airflow; keywords are environment variables.
Python = Callable[..., Any]

DAGS = Path(__file__).parent / "dags"
#: Characters of a log that are shown of a failed test.
_SHOWN = 4000
#: Seconds for a piece of a DAG file, which takes one or two.
_LIMIT = 120.0
CONNECTIONS = {
    "AIRFLOW_CONN_SMOKE_FILES": "fs://",
    "AIRFLOW_CONN_HIDDEN": "generic://user:hunter2-and-more@",
}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that has failed shows what Airflow has logged meanwhile: its directory is gone afterwards."""
    report = yield
    stack = getattr(item, "funcargs", {}).get("airflow")
    if report.failed and isinstance(stack, AirflowStack):
        for path in sorted((stack.home / "logs").rglob("*.log")):
            if path.is_file() and path.stat().st_mtime >= call.start:
                text = "\n".join(map(_shown, path.read_text(errors="replace").splitlines()))
                report.sections.append((str(path.relative_to(stack.home)), text[-_SHOWN:]))
    return report


def _shown(line: str) -> str:
    """An entry of a task's log without what all of them have."""
    try:
        entry = json.loads(line)
    except ValueError:
        return line
    found = [entry.get("timestamp"), entry.get("level"), entry.get("event"), entry.get("error_detail")]
    return " ".join(str(part) for part in found if part)


@pytest.fixture(scope="session")
def airflow_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if reason := why_missing():
        missing("airflow", reason)
    return create_database(tmp_path_factory.mktemp("airflow-database"))


@pytest.fixture(scope="session")
def airflow(airflow_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AirflowStack]:
    """A whole one, for all tests that need it: each works on runs of its own, and leaves all components running."""
    with AirflowStack(tmp_path_factory.mktemp("airflow"), airflow_database, DAGS, CONNECTIONS) as stack:
        yield stack
        members = stack.members()
    assert not [pid for pid in members if alive(pid)]


@pytest.fixture(scope="session")
def dag_test(airflow_database: Path, tmp_path_factory: pytest.TempPathFactory) -> DagTest:
    """One run of a DAG in a process, in 7 s, without scheduler and triggerer."""
    return DagTest(tmp_path_factory.mktemp("dag-test"), airflow_database, CONNECTIONS)


HEAD = """
import json
from airflow.sdk import DAG, task
from airflow_provider_flux.operators import FluxMiniCluster, FluxOperator
"""


@pytest.fixture(scope="session")
def airflow_imported(airflow_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prepared]:
    """A process that has imported Airflow, which takes 1.5 s of CPU; its home has no database."""
    home = tmp_path_factory.mktemp("airflow-imported")
    prepared = Prepared("airflow", airflow_environment(home, home, {}))
    yield prepared
    prepared.close()


@pytest.fixture
def python(airflow_imported: Prepared) -> Python:
    """Runs a piece of a DAG file in a process of its own, as Airflow is never imported in pytest's.

    Gives what it prints as JSON in its last line.
    """

    def run(code: str, **environ: str) -> Any:
        environ = {**airflow_imported.environ, **environ}
        # Not in tmp_path: tests look at what is written there.
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            process = airflow_imported.start(["-c", HEAD + code], ROOT, environ, out.fileno(), err.fileno())
            ended = process.wait(_LIMIT)
            out.seek(0)
            err.seek(0)
            assert ended == 0, err.read().decode()
            return json.loads(out.read().splitlines()[-1])

    return run


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The limit of a test is for the test: the first one starts Airflow."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.timeout(func_only=True))
