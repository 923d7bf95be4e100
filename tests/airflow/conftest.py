"""An Airflow for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.airflow.environment import create_database, why_missing
from tests.airflow.inprocess import DagTest
from tests.airflow.stack import AirflowStack
from tests.conftest import missing
from tests.processes import alive

DAGS = Path(__file__).parent / "dags"
CONNECTIONS = {
    "AIRFLOW_CONN_SMOKE_FILES": "fs://",
    "AIRFLOW_CONN_HIDDEN": "generic://user:hunter2-and-more@",
}


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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The limit of a test is for the test: the first one starts Airflow."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.timeout(func_only=True))
