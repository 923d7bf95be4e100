"""Nextflow's tasks in pods: the stand-in for Nextflow here, its work directory on a volume that both sides have."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from tests.cluster.runs import Runs, spec, write_config
from tests.cluster.testbed.cluster import Cluster
from tests.cluster.volumes import mounted, volume_of
from tests.nextflow.conftest import real_nextflow
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
        made.options = configured(runs, volume, tmp_path, size=2)
        # The pods' user writes where this one makes directories.
        before = os.umask(0)
        yield made
        os.umask(before)
        made.close()


def configured(runs: Runs, volume: Path, directory: Path, *, size: int, **container: object) -> tuple[str, ...]:
    """Options of the command for a MiniCluster with the volume; ``container`` adds to its container."""
    minicluster = spec(runs.image, size=size, container={**mounted(volume), **container})
    given = {"kubeconfig": str(runs.kubeconfig), "provisioner": "direct", "namespace": runs.namespace}
    return "--config", str(write_config(directory / "run.yaml", minicluster, **given))


def hosts(run: Run) -> set[str]:
    return {row["node"] for row in run.efficiency()}


@pytest.mark.parametrize("real", [False, True], ids=["stand-in", "nextflow"])
def test_tasks_run_in_both_pods(runs: Runs, runner: Runner, real: bool) -> None:
    if real:
        runner.nextflow = real_nextflow()
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


def test_flux_run_inside_a_task_has_the_cores_of_the_task(runs: Runs, runner: Runner, tmp_path: Path) -> None:
    cpu = {"requests": {"cpu": "1100m"}, "limits": {"cpu": "2"}}  # two cores, and the task has both
    runner.options = configured(runs, runner.directory.parent, tmp_path, size=1, resources=cpu)
    script = "flux run -n2 sh -c 'echo rank $FLUX_TASK_RANK'"
    run = runner([Process("MPI", script, cpus=2, count=2, time=120, retries=0)])
    assert run.process.returncode == 0, run.output
    assert [sorted(row.text(".command.out").split()) for row in run.rows] == [["0", "1", "rank", "rank"]] * 2
    assert runs.left() == []


def test_what_ignores_its_limit_is_gone_while_the_run_goes_on(runs: Runs, runner: Runner) -> None:
    stubborn = "exec 9> ../../../held; flock 9; trap '' TERM; touch ../../../begun; while sleep 0.2 || true; do :; done"
    waits = "while [ ! -e ../../../go ]; do sleep 0.2; done"
    processes = [Process("STUBBORN", stubborn, time=2, retries=0, strategy="ignore"), Process("WAITS", waits)]
    run = runner.start(processes)
    wait_until((runner.directory / "begun").exists, 120.0)
    with (runner.directory / "held").open() as held:  # a pod's process is on this machine's kernel
        wait_until(lambda: is_free(held), 30.0)
    assert run.process.poll() is None
    (runner.directory / "go").touch()
    assert run.wait() == 0, run.output
    assert [row.exit for row in run.rows if row.name == "STUBBORN"] == [143]


def is_free(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def test_a_run_goes_on_when_the_api_server_is_restarted(cluster: Cluster, runs: Runs, runner: Runner) -> None:
    script = "touch ../../../begun.$index; while [ ! -e ../../../go ]; do sleep 0.2; done; echo $index"
    run = runner.start([Process("WAITS", script, count=2), Process("AFTER", "sleep 1", count=4, max_forks=1)])
    wait_until(lambda: len(list(runner.directory.glob("begun.*"))) == 2 or run.process.poll() is not None, 120.0)
    cluster.restart_api_server()
    (runner.directory / "go").touch()
    assert run.wait() == 0, run.output
    assert {(row.status, row.exit, row.attempt) for row in run.rows} == {("COMPLETED", 0, 1)} and len(run.rows) == 6
    wait_until(lambda: not run.left() and runs.left() == [], 60.0)


def test_a_queue_that_is_not_there_is_refused_with_the_reason(runs: Runs, runner: Runner) -> None:
    run = runner([Process("QUEUED", "true", queue="nowhere")])
    assert run.process.returncode == 1 and "nowhere" in run.output, run.output


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
    assert any("ended unexpectedly" in row.text(".command.log") for row in run.rows)
    wait_until(lambda: not run.left() and runs.left() == [], 60.0)
