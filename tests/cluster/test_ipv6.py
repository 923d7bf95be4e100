"""A cluster that has IPv6 only."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.beds import started
from tests.cluster.operators import MiniClusters, deploy, installed
from tests.cluster.remembering import joins_where_dns_remembers
from tests.cluster.runs import Runs, output_of, spec
from tests.cluster.testbed.addresses import IPV6
from tests.cluster.testbed.cluster import Cluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with started(lambda: Cluster(family=IPV6)) as bed:
        yield bed


def test_a_run_has_all_its_pods(runs: Runs) -> None:
    session = runs.open(spec(runs.image, size=2))
    session.wait_for_brokers()
    assert output_of(session, "hostname", nodes=2, tasks=2).split() == [f"{session.run_name}-{rank}" for rank in (0, 1)]
    parent = output_of(session, "flux", "exec", "-r", "1", "sh", "-c", "cat /proc/net/tcp6 | grep -c ' 01 '")
    assert int(parent) >= 1, "it is connected by IPv6"


def test_a_follower_joins_where_the_dns_remembers_that_its_lead_has_no_name(runs: Runs) -> None:
    joins_where_dns_remembers(runs)


def test_our_operator_answers_its_probes_and_works(cluster: Cluster, tmp_path: Path) -> None:
    name = cluster.create_namespace(labels={})  # restricted pod security lets nobody mount what is on the node
    if cluster.image.without_python is not None:
        pytest.skip(cluster.image.without_python)
    inside = MiniClusters(cluster, name)
    with installed(cluster, tmp_path):
        deploy(cluster, name, tmp_path)
        inside.apply("both", size=2, tasks=2)
        inside.wait("both", "Completed")
        assert sorted(inside.lead_log("both").split()) == ["both-0", "both-1"]
