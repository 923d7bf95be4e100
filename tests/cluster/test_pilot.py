"""Pilots in the pods of a MiniCluster, where nodes share no directory."""

from __future__ import annotations

import pytest

from executors import JobRequest, Outcome, Session
from executors.lifecycle import Lifecycle
from tests.cluster.runs import LIMIT, Runs, output_of, spec
from tests.cluster.testbed.waiting import wait_until


@pytest.fixture
def session(runs: Runs) -> Session:
    """With pilots, in two pods of a core each, and room for a third."""
    session = runs.open(spec(runs.image, size=2, maxSize=3), pilot="on")
    session.wait_for_brokers()
    return session


def test_tasks_run_in_all_pods_and_bring_their_output_and_secrets(session: Session) -> None:
    script = 'hostname; echo "$TOKEN" >&2; sleep 0.2'
    request = JobRequest(argv=["sh", "-c", script], secret_env={"TOKEN": "s3cret of a task"})
    handles = session.submit([request for _ in range(30)])
    results = [handle.result(LIMIT) for handle in handles]
    assert all(result.ok for result in results), [result.describe() for result in results if not result.ok]
    assert all(str(handle.id).startswith("p") for handle in handles)
    assert {result.node for result in results} == {f"{session.run_name}-0", f"{session.run_name}-1"}
    for handle, result in zip(handles, results, strict=True):
        assert b"".join(handle.output()).decode() == f"{result.node}\n"
        assert b"".join(handle.output("stderr")) == b"s3cret of a task\n"


def test_output_is_read_while_a_task_writes_it_and_a_cancelled_one_ends(session: Session) -> None:
    handle = session.submit_one(JobRequest(argv=["sh", "-c", "echo begun; exec sleep 600"]))
    assert next(iter(handle.output())) == b"begun\n"
    handle.cancel("enough")
    assert handle.result(LIMIT).outcome is Outcome.CANCELLED


def test_tasks_and_a_job_of_both_pods_share_them(session: Session) -> None:
    tasks = session.submit([JobRequest(argv=["true"]) for _ in range(100)])
    names = output_of(session, "hostname", nodes=2, tasks=2).split()
    assert sorted(names) == [f"{session.run_name}-0", f"{session.run_name}-1"]
    assert all(handle.result(LIMIT).ok for handle in tasks)


def test_a_pod_that_joins_gets_a_pilot_and_one_that_goes_loses_no_task(runs: Runs, session: Session) -> None:
    lifecycle = Lifecycle(session.run_name, runs.config(), {})
    lifecycle.resize(3, LIMIT, lambda _line: None)
    wait_until("the third rank to be up", lambda: sum(node.up for node in session.nodes()) == 3, LIMIT)
    handles = session.submit([JobRequest(argv=["sleep", "1"]) for _ in range(9)])
    results = [handle.result(LIMIT) for handle in handles]
    assert all(result.ok for result in results)
    assert f"{session.run_name}-2" in {result.node for result in results}
    handles = session.submit([JobRequest(argv=["sleep", "0.3"]) for _ in range(60)])
    lifecycle.resize(1, LIMIT, lambda _line: None)
    results = [handle.result(LIMIT) for handle in handles]
    assert all(result.ok for result in results), [result.describe() for result in results if not result.ok]
