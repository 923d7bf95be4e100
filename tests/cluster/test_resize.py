"""MiniClusters that grow and shrink while jobs run."""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest

from executors import ConfigError, JobRequest, Outcome, Session
from executors.lifecycle import Lifecycle
from tests.cluster.runs import LIMIT, Runs, output_of, spec
from tests.cluster.testbed.waiting import wait_until


def on_rank(rank: int, *argv: str) -> JobRequest:
    return JobRequest(argv=argv, constraint={"ranks": [str(rank)]})


def running(session: Session, request: JobRequest) -> Any:
    [handle] = session.submit([request])
    wait_until("the job to run", lambda: handle.state == "RUN", LIMIT)
    return handle


def resize(runs: Runs, session: Session, size: int, grace: float = LIMIT) -> list[str]:
    said: list[str] = []
    Lifecycle(session.run_name, runs.config(), os.environ).resize(size, grace, said.append)
    return said


def up(session: Session) -> list[int]:
    return [node.rank for node in session.nodes() if node.up and not node.drained]


@pytest.fixture
def elastic(runs: Runs) -> Session:
    return runs.open(spec(runs.image, size=2, maxSize=3))


def test_growing_gives_more_nodes_to_a_running_instance(runs: Runs, elastic: Session) -> None:
    before = running(elastic, on_rank(0, "sleep", "600"))
    resize(runs, elastic, 3)
    wait_until("the third rank to be up", lambda: up(elastic) == [0, 1, 2], LIMIT)
    assert len(output_of(elastic, "hostname", nodes=2, tasks=2, constraint={"not": [{"ranks": ["0"]}]}).split()) == 2
    assert before.state == "RUN"


def test_shrinking_waits_for_the_jobs_of_the_ranks_that_go(runs: Runs, elastic: Session) -> None:
    first, last = running(elastic, on_rank(0, "sleep", "600")), running(elastic, on_rank(1, "sleep", "4"))
    resize(runs, elastic, 1)
    assert last.result(LIMIT).outcome is Outcome.COMPLETED
    wait_until("the pod to go", lambda: len([n for n in runs.left() if n.startswith("pod/")]) == 1, LIMIT)
    assert first.state == "RUN"


def test_what_still_runs_after_the_grace_is_lost(runs: Runs, elastic: Session) -> None:
    first, last = running(elastic, on_rank(0, "sleep", "600")), running(elastic, on_rank(1, "sleep", "600"))
    said = resize(runs, elastic, 1, grace=1)
    assert any("jobs still run on rank 1" in line for line in said)
    assert last.result(LIMIT).outcome is Outcome.LOST
    assert first.state == "RUN"


def test_no_job_is_started_on_a_rank_that_is_about_to_go(runs: Runs, elastic: Session) -> None:
    holding = running(elastic, on_rank(1, "sleep", "6"))
    shrinking = threading.Thread(target=resize, args=(runs, elastic, 1))
    shrinking.start()
    wait_until("the rank to be drained", lambda: up(elastic) == [0], LIMIT)
    handles = elastic.submit([JobRequest(argv=["true"]) for _ in range(4)])
    assert {handle.result(LIMIT).node for handle in handles} == {f"{elastic.run_name}-0"}
    assert holding.result(LIMIT).outcome is Outcome.COMPLETED
    shrinking.join()


def test_what_was_shrunk_can_grow_again(runs: Runs, elastic: Session) -> None:
    resize(runs, elastic, 1)
    wait_until("the second rank to be down", lambda: up(elastic) == [0], LIMIT)
    resize(runs, elastic, 2)
    wait_until("the second rank to be back", lambda: up(elastic) == [0, 1], LIMIT)
    assert len(output_of(elastic, "hostname", nodes=2, tasks=2).split()) == 2


def test_a_size_beyond_the_greatest_is_refused(runs: Runs, elastic: Session) -> None:
    with pytest.raises(ConfigError, match=r"size: 4 is not from 1 to 3, the minicluster\.maxSize"):
        resize(runs, elastic, 4)


def test_an_instance_on_this_machine_cannot_be_resized() -> None:
    from executors import load_config

    config = load_config(environ={}, options={"run.provisioner": "local"})
    with pytest.raises(ConfigError, match="only MiniClusters on Kubernetes can be resized"):
        Lifecycle("any", config, {}).resize(2, 1.0, print)


def test_a_shrinking_that_is_broken_off_leaves_no_rank_drained(
    runs: Runs, elastic: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    from executors.provision.kubernetes.provisioner import ClusterProvisioner

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ClusterProvisioner, "resize", interrupted)
    with pytest.raises(KeyboardInterrupt):
        resize(runs, elastic, 1)
    # The scheduler hears of it a moment later.
    wait_until("both ranks to be up again", lambda: up(elastic) == [0, 1], LIMIT)
