"""Nextflow's tasks in pods: the stand-in for Nextflow here, its work directory on a volume that both sides have."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.runs import Runs, spec, write_config
from tests.cluster.testbed.cluster import Cluster
from tests.cluster.volumes import mounted, volume_of
from tests.nextflow.pipelines import Process
from tests.nextflow.runs import Run, Runner, wait_until


@pytest.fixture
def open_namespace(cluster: Cluster, runs: Runs) -> Iterator[str]:
    """A namespace without Pod Security, for a volume that is a directory of the node."""
    before, runs.namespace = runs.namespace, cluster.create_namespace(labels={})
    yield runs.namespace
    cluster.delete_namespace(runs.namespace)
    runs.namespace = before


@pytest.fixture
def runner(cluster: Cluster, runs: Runs, open_namespace: str, tmp_path: Path) -> Iterator[Runner]:
    """Its directory is on the volume."""
    with volume_of(cluster, open_namespace, tmp_path / "volume") as volume:
        volume.chmod(0o777)
        made = Runner(volume / "run", tmp_path, "flux", None)
        made.environ.pop("FLUX_OPERATOR_ENGINE")
        minicluster = spec(runs.image, size=2, container=mounted(volume))
        given = {"kubeconfig": str(runs.kubeconfig), "provisioner": "direct", "namespace": open_namespace}
        made.options = ("--config", str(write_config(tmp_path / "run.yaml", minicluster, **given)))
        # The pods' user writes where this one makes directories.
        before = os.umask(0)
        yield made
        os.umask(before)
        made.close()


def hosts(run: Run) -> set[str]:
    return {row["node"] for row in run.efficiency()}


def test_tasks_run_in_both_pods(runs: Runs, runner: Runner) -> None:
    script = "hostname; sleep 2; env | grep -c PRIVATE || true"
    runner.environ["PRIVATE"] = "of this machine"
    run = runner([Process("WHERE", script, count=4), Process("OVER", "test $attempt = 2 || sleep 60", time=3)])
    assert run.process.returncode == 0, run.output
    assert len(hosts(run)) == 2
    where = [row for row in run.rows if row.name.startswith("WHERE")]
    assert all(row.text(".command.out").split()[1] == "0" for row in where)
    over = sorted((row.attempt, row.exit) for row in run.rows if row.name.startswith("OVER"))
    assert over == [(1, 143), (2, 0)]
    assert runs.left() == []


def test_a_work_directory_that_is_not_in_the_pods_is_refused(runs: Runs, runner: Runner, tmp_path: Path) -> None:
    runner.directory = tmp_path / "elsewhere"
    run = runner([Process("HELLO", "true")])
    assert run.process.returncode == 1 and "is not in the pods; mount the volume" in run.output
    assert runs.left() == []


def started(runner: Runner, count: int) -> Run:
    run = runner.start([Process("LONG", "touch ../../../begun.$index.$attempt; sleep 120", count=count, retries=0)])
    wait_until(lambda: len(list(runner.directory.glob("begun.*"))) == count or run.process.poll() is not None, 120.0)
    assert run.process.poll() is None, run.output
    return run


def pod(runs: Runs, index: int) -> str:
    words = ["get", "pods", "-o", "name", "-l", f"batch.kubernetes.io/job-completion-index={index}"]
    return runs.bed.kubectl(*words, f"--namespace={runs.namespace}").strip()


def test_a_lead_that_is_lost_ends_the_run_with_the_reason(runs: Runs, runner: Runner) -> None:
    run = started(runner, 2)
    runs.bed.kubectl("delete", pod(runs, 0), f"--namespace={runs.namespace}", "--grace-period=0", "--force")
    assert run.wait() == 1
    assert 143 in {row.exit for row in run.rows}
    assert any("flux: job" in row.text(".command.log") for row in run.rows)
    wait_until(lambda: not run.left() and runs.left() == [], 60.0)


def test_tasks_of_a_follower_that_is_lost_are_143(runs: Runs, runner: Runner) -> None:
    run = started(runner, 2)
    runs.bed.kubectl("delete", pod(runs, 1), f"--namespace={runs.namespace}", "--grace-period=0", "--force")
    assert run.wait() == 1
    assert 143 in {row.exit for row in run.rows}
    wait_until(lambda: not run.left() and runs.left() == [], 60.0)


def test_ctrl_c_ends_the_minicluster(runs: Runs, runner: Runner) -> None:
    run = started(runner, 1)
    run.process.terminate()
    run.wait()
    wait_until(lambda: not run.left() and runs.left() == [], 60.0)


def test_a_killed_session_ends_the_minicluster_and_the_run(runs: Runs, runner: Runner) -> None:
    run = started(runner, 1)
    run.session().kill()
    assert run.wait() == 1
    assert any("has ended without" in row.text(".command.log") for row in run.rows)
    wait_until(lambda: not run.left() and runs.left() == [], 60.0)
