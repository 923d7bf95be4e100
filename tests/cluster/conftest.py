"""A real Kubernetes for the tests of this folder; see ``testbed``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.beds import started
from tests.cluster.operators import running
from tests.cluster.runs import Runs, runs_on
from tests.cluster.testbed.cluster import Cluster
from tests.cluster.testbed.control_plane import ControlPlane


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane]:
    """Enough for objects, RBAC and admission. It has no node: pods stay pending."""
    with started(ControlPlane) as bed:
        yield bed


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """With a node that has ``cluster.image``: for pods. Another one than ``control_plane``, where pods must not run."""
    with started(Cluster) as bed:
        yield bed


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace of ``cluster`` under restricted Pod Security, deleted after the test."""
    name = cluster.create_namespace()
    yield name
    cluster.delete_namespace(name)


@pytest.fixture(scope="module")
def operator(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A Flux Operator, running: upstream's where it is given, else ours, with the rights that it is published with."""
    if cluster.crd is None or cluster.operator is None:
        with running(cluster, tmp_path_factory.mktemp("operator")):
            yield
        return
    cluster.install_crd(cluster.crd)
    program = cluster.start_operator()
    yield
    program.stop()
    cluster.kubectl("delete", "crd", "miniclusters.flux-framework.org")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The limit of a test is for the test: Kubernetes takes minutes to build the first time."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.timeout(func_only=True))


@pytest.fixture
def runs(cluster: Cluster, namespace: str, tmp_path: Path) -> Iterator[Runs]:
    """Sessions in a namespace of the test's own, as its administrator; what it leaves open is closed."""
    found = runs_on(cluster, namespace, tmp_path)
    yield found
    found.close()


@pytest.fixture(scope="module")
def module_runs(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """The same for all tests of a module."""
    name = cluster.create_namespace()
    found = runs_on(cluster, name, tmp_path_factory.mktemp("runs"))
    yield found
    found.close()
    cluster.delete_namespace(name)
