"""Exec streams where only ``v4.channel.k8s.io`` is spoken: an API server before 1.30, or what stands before one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from executors import JobRequest, Outcome, Session
from tests.cluster.runs import LIMIT, Runs, job
from tests.cluster.testbed.cluster import Cluster
from tests.cluster.testbed.waiting import wait_until
from tests.cluster.tls_proxy import OlderServer


@pytest.fixture
def older(cluster: Cluster, runs: Runs, tmp_path: Path) -> Iterator[OlderServer]:
    """The API server without v5, which the test's sessions use."""
    with OlderServer(cluster) as proxy:
        runs.kubeconfig = proxy.kubeconfig(tmp_path, token_kubeconfig(cluster, runs.namespace))
        yield proxy
        runs.close()


def token_kubeconfig(cluster: Cluster, namespace: str) -> dict[str, Any]:
    """Of a service account that may do all in the namespace."""
    path = cluster.service_account_kubeconfig(namespace, "worker")
    cluster.kubectl(
        *("create", "rolebinding", "worker", "--clusterrole=admin", f"--serviceaccount={namespace}:worker"),
        f"--namespace={namespace}",
    )
    document: dict[str, Any] = yaml.safe_load(path.read_text())
    return document


def relays(runs: Runs, session: Session) -> int:
    """How many streams the pod holds open."""
    pod = runs.pod(session.run_name, 0)["metadata"]["name"]
    script = "pgrep -cf '[a]gent.pyz relay' || true"
    return int(runs.bed.kubectl("exec", pod, f"--namespace={runs.namespace}", "--", "sh", "-c", script))


def test_a_run_from_its_start_to_its_end(runs: Runs, older: OlderServer) -> None:
    session = runs.open()
    [handle] = session.submit([JobRequest(argv=["sh", "-c", 'yes "$(printf %9999s)" | head -n 200'])])
    assert handle.result(LIMIT).outcome is Outcome.COMPLETED
    assert b"".join(handle.output()) == (b" " * 9999 + b"\n") * 200
    # Much in the other direction too.
    argument = "x" * 100_000
    [handle] = session.submit([JobRequest(argv=["sh", "-c", 'printf %s "$1" | wc -c', "sh", argument])])
    assert b"".join(handle.output()).strip() == b"100000"
    session.close()
    assert runs.left() == []
    assert set(older.chosen) == {"v4.channel.k8s.io"}


def test_a_cut_stream_is_taken_up_again_and_its_relay_ends_without_the_word_that_v5_has_for_it(
    runs: Runs, older: OlderServer
) -> None:
    session = runs.open()
    [handle] = session.submit([JobRequest(argv=["sleep", "2"])])
    wait_until("the job to run", lambda: handle.state == "RUN", LIMIT)
    older.cut()
    assert handle.result(LIMIT).outcome is Outcome.COMPLETED
    assert job(session, "true").ok
    assert older.chosen == ["v4.channel.k8s.io"] * 2
    wait_until("the end of the relay that was cut", lambda: relays(runs, session) == 1, LIMIT)
    session.leave()
    wait_until("the end of the relay that was left", lambda: relays(runs, session) == 0, LIMIT)
