"""An Airflow for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.airflow.environment import why_missing
from tests.airflow.inprocess import DagTest
from tests.airflow.stack import AirflowStack
from tests.conftest import missing

DAGS = Path(__file__).parent / "dags"
CONNECTIONS = {"AIRFLOW_CONN_SMOKE_FILES": "fs://"}


@pytest.fixture(scope="session")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AirflowStack]:
    """A whole one, for all tests that need it: each works on runs of its own, and leaves all components running."""
    _need_airflow()
    with AirflowStack(tmp_path_factory.mktemp("airflow"), DAGS, CONNECTIONS) as stack:
        yield stack


@pytest.fixture(scope="session")
def dag_test(tmp_path_factory: pytest.TempPathFactory) -> DagTest:
    """One run of a DAG in a process, in 4 s, without scheduler and triggerer."""
    _need_airflow()
    return DagTest(tmp_path_factory.mktemp("dag-test"), CONNECTIONS)


def _need_airflow() -> None:
    if reason := why_missing():
        missing("airflow", reason)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The limit of a test is for the test: the first one starts Airflow."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.timeout(func_only=True))
