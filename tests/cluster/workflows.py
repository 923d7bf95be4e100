"""Workflow engines on a Kubernetes: a volume that pods and tests share, a namespace, the example and its result."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.runs import Runs, spec, write_config
from tests.cluster.testbed.cluster import Cluster
from tests.cluster.volumes import mounted, volume_of
from tests.conftest import missing

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "snakemake" / "variant-calling"


@pytest.fixture
def open_namespace(cluster: Cluster, runs: Runs) -> Iterator[str]:
    """A namespace without Pod Security, which the test's sessions and volumes are in."""
    runs.namespace = cluster.create_namespace(labels={})
    yield runs.namespace
    cluster.delete_namespace(runs.namespace)


@pytest.fixture
def python_in_pods(cluster: Cluster) -> None:
    if cluster.image.without_python is not None:
        missing("kubernetes", f"no Snakemake in the pods' image: {cluster.image.without_python}")


@pytest.fixture
def volume(cluster: Cluster, runs: Runs, python_in_pods: None, tmp_path: Path) -> Iterator[Path]:
    with volume_of(cluster, runs.namespace, tmp_path / "volume") as directory:
        yield directory


def config_file(runs: Runs, directory: Path, mount: Path | None, **more: object) -> Path:
    container = {} if mount is None else mounted(mount)
    minicluster = spec(runs.image, size=2, container=container, **more)
    file = directory / "run.yaml"
    given = {"kubeconfig": str(runs.kubeconfig), "provisioner": "direct", "namespace": runs.namespace}
    return write_config(file, minicluster, **given)


def for_everybody(directory: Path) -> None:
    """The pods' user writes where this one made directories."""
    for path in (directory, *directory.rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o666)


def assert_variants(table: Path) -> None:
    with table.open() as found, (EXAMPLE / "expected" / "variants.tsv").open() as expected:
        rows = list(csv.DictReader(found, delimiter="\t"))
        wanted = list(csv.DictReader(expected, delimiter="\t"))
    assert [{name: row[name] for name in wanted[0]} for row in rows] == wanted
