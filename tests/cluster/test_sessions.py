"""A run on Kubernetes: its jobs, its MiniCluster, and nothing left."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from executors import ConfigError, JobRequest, Outcome, ProvisionError, RunId, Session, open_session
from tests.cluster.runs import LIMIT, Runs, job, output_of, spec
from tests.cluster.testbed.waiting import wait_until


@pytest.fixture(scope="module")
def pair(module_runs: Runs) -> Session:
    """One MiniCluster of two pods, for tests that do not end it."""
    return module_runs.open(spec(module_runs.image, size=2))


def test_a_job_runs_in_a_pod_and_its_output_and_exit_code_come_back(pair: Session) -> None:
    assert output_of(pair, "sh", "-c", "echo $0 out", "sh").strip() == "sh out"
    result = job(pair, "sh", "-c", "exit 7")
    assert (result.outcome, result.returncode) == (Outcome.FAILED, 7)
    assert result.node.startswith(pair.run_name)


def test_a_job_over_two_nodes_runs_in_both_pods(pair: Session) -> None:
    names = output_of(pair, "hostname", nodes=2, tasks=2).split()
    assert sorted(names) == [f"{pair.run_name}-0", f"{pair.run_name}-1"]


def test_each_rank_offers_its_containers_cores_and_not_the_nodes(pair: Session) -> None:
    nodes = pair.nodes()
    assert [(node.rank, node.cores, node.gpus) for node in nodes] == [(0, 1, 0), (1, 1, 0)]
    [handle] = pair.submit([JobRequest(argv=["true"], nodes=1, cores_per_task=2)])
    assert handle.result(LIMIT).outcome is not Outcome.COMPLETED


def test_jobs_inherit_the_pods_environment_and_not_the_clients(pair: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONLY_OF_THE_CLIENT", "1")
    text = output_of(pair, "env", env={"GIVEN": "2", "KUBERNETES_PORT": None})
    values = dict(line.partition("=")[::2] for line in text.splitlines())
    assert "ONLY_OF_THE_CLIENT" not in values and "KUBERNETES_PORT" not in values
    assert values["GIVEN"] == "2" and "/usr/bin" in values["PATH"] and "KUBERNETES_SERVICE_HOST" in values


def test_a_secret_reaches_the_tasks_in_every_pod_and_no_jobspec(pair: Session) -> None:
    secret = "only-for-the-job-8c1f"
    both = output_of(pair, "sh", "-c", "echo $TOKEN", nodes=2, tasks=2, secret_env={"TOKEN": secret})
    assert both.split() == [secret, secret]
    specs = output_of(pair, "sh", "-c", "for id in $(flux jobs -a -n -o {id}); do flux job info $id jobspec; done")
    assert '"command"' in specs and secret not in specs


def test_a_secret_that_is_asked_for_twice_is_given_once(pair: Session) -> None:
    steal = (
        "import flux, os, sys, json\n"
        "spec = os.popen('flux job info $(flux jobs -n -o {id} --filter=inactive --name=holder) jobspec').read()\n"
        "name = json.loads(spec)['attributes']['user']['fxo']['secret'] + '.0'\n"
        "print(flux.Flux().rpc('fxo.secret', {'name': name}, nodeid=0).get())\n"
    )
    assert job(pair, "true", name="holder", secret_env={"TOKEN": "s"}).ok
    answer = output_of(pair, "flux", "python", "-c", steal)
    assert "is not there" in answer and "'s'" not in answer


def test_many_small_jobs_all_complete(pair: Session) -> None:
    handles = pair.submit([JobRequest(argv=["true"]) for _ in range(200)])
    assert {handle.result(LIMIT).outcome for handle in handles} == {Outcome.COMPLETED}


def test_a_closed_session_leaves_nothing(runs: Runs) -> None:
    session = runs.open()
    assert job(session, "true").ok
    assert runs.left()
    session.close()
    assert runs.left() == []


def test_a_running_job_is_cancelled_and_may_tidy_up_when_the_session_is_closed(runs: Runs) -> None:
    session = runs.open()
    [handle] = session.submit([JobRequest(argv=["sh", "-c", "echo up; trap 'echo tidy; exit' TERM; sleep 600 & wait"])])
    stream = handle.output()
    assert next(stream).strip() == b"up"
    session.close()
    assert handle.result(0).outcome is Outcome.CANCELLED
    assert runs.left() == []


def test_two_clients_of_one_run_share_one_minicluster(runs: Runs) -> None:
    opened: list[Session] = []
    failed: list[BaseException] = []

    def open_one() -> None:
        try:
            opened.append(runs.open(run_id="shared"))
        except BaseException as err:  # for the assertion below
            failed.append(err)

    threads = [threading.Thread(target=open_one) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert len({session.hello.instance for session in opened}) == 1
    assert len([name for name in runs.left() if name.startswith("job")]) == 1
    opened[0].close()
    assert job(opened[1], "true").ok, "its MiniCluster was ended under it"
    opened[1].close()
    opened[2].close()
    assert runs.left() == []


def test_a_run_that_is_asked_for_with_another_spec_is_refused_with_the_difference(runs: Runs) -> None:
    session = runs.open(run_id="differs")
    with pytest.raises(ConfigError, match=r"minicluster\.size: 2 is asked for, but 1 is running"):
        runs.open(spec(runs.image, size=2), run_id="differs")
    assert job(session, "true").ok


def test_a_run_that_is_being_deleted_begins_anew(runs: Runs) -> None:
    first = runs.open(run_id="again")
    runs.bed.kubectl("delete", "job", first.run_name, f"--namespace={runs.namespace}", "--wait=false")
    second = runs.open(run_id="again")
    assert second.hello.instance != first.hello.instance
    assert job(second, "true").ok


def test_a_run_that_is_over_and_kept_begins_anew(runs: Runs) -> None:
    first = runs.open(run_id="over", idleTimeout=1)
    first.leave()
    wait_until(
        "the Job to be complete",
        lambda: runs.bed.object("jobs", first.run_name, runs.namespace)["status"].get("succeeded"),
        LIMIT,
    )
    second = runs.open(run_id="over", idleTimeout=1)
    assert second.hello.instance != first.hello.instance
    assert job(second, "true").ok


def test_an_object_that_is_not_ours_is_left_alone(runs: Runs) -> None:
    from executors.names import run_name

    name = run_name(RunId("test", "taken"))
    body = {"containers": [{"name": "c", "image": runs.image, "command": ["true"]}], "restartPolicy": "Never"}
    manifest = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"suspend": True, "template": {"spec": body}},
    }
    runs.bed.kubectl("create", f"--namespace={runs.namespace}", "--filename=-", input=json.dumps(manifest))
    with pytest.raises(ProvisionError, match="was not made by this program"):
        runs.open(run_id="taken")
    assert f"job/{name}" in runs.left()


def test_a_minicluster_half_made_by_a_client_that_died_is_completed_by_the_next(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    from executors.provision.kubernetes.direct import DirectMode
    from executors.provision.kubernetes.provisioner import ClusterProvisioner

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(DirectMode, "complete", die)
        patch.setattr(ClusterProvisioner, "abandon", lambda _: None)
        with pytest.raises(KeyboardInterrupt):
            runs.open(run_id="half")
    assert [name.split("/")[0] for name in runs.left()] == ["job"]
    assert job(runs.open(run_id="half"), "true").ok


def test_the_default_spec_needs_no_minicluster_section(runs: Runs, tmp_path: Path) -> None:
    config = runs.config(spec(runs.image))
    assert config.minicluster is not None and config.minicluster.size == 1
    with open_session(RunId("test", "plain"), config, environ={}) as session:
        assert job(session, "true").ok


def test_a_run_that_its_first_client_closes_meanwhile_begins_anew(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    from executors.provision.kubernetes.provisioner import ClusterProvisioner

    first = runs.open(run_id="closing")
    wait_ready = ClusterProvisioner.wait_ready

    def after_the_end_of_the_first(self: ClusterProvisioner, *given: Any) -> Any:
        if self.adopted():
            first.close()
        return wait_ready(self, *given)

    monkeypatch.setattr(ClusterProvisioner, "wait_ready", after_the_end_of_the_first)
    second = runs.open(run_id="closing")
    assert second.hello.instance != first.hello.instance
    assert job(second, "true").ok


def test_what_an_earlier_minicluster_of_the_name_left_is_not_taken_for_the_new_ones(runs: Runs) -> None:
    """Kubernetes removes it after its owner, and takes the time that it takes: here for ever, by a finalizer."""
    kept, in_namespace = '{"metadata": {"finalizers": ["example.org/kept"]}}', f"--namespace={runs.namespace}"
    first = runs.open(run_id="leftovers")
    job_name = f"job.batch/{first.run_name}"
    old = [name for name in runs.left() if name.startswith(("secret/", "configmap/", "service/"))]
    runs.bed.kubectl("patch", *old, "--type=merge", f"--patch={kept}", in_namespace)
    try:
        runs.bed.kubectl("delete", job_name, "--cascade=background", in_namespace)
        second = runs.open(run_id="leftovers")
        assert second.hello.instance != first.hello.instance
        assert job(second, "true").ok
        uid = json.loads(runs.bed.kubectl("get", job_name, "--output=json", in_namespace))["metadata"]["uid"]
        [container] = runs.pod(second.run_name, 0)["spec"]["containers"]
        sources = [variable.get("valueFrom", {}) for variable in container["env"]]
        used = {one.get("name") for source in sources for one in source.values() if "key" in one}
        assert len(used) == 2, "its ConfigMap and its Secret"
        named = {name.partition("/")[2]: name for name in runs.left()}
        owners = [
            json.loads(runs.bed.kubectl("get", named[name], "--output=json", in_namespace))["metadata"]
            for name in [*used, runs.pod(second.run_name, 0)["spec"]["subdomain"]]
        ]
        assert [one["ownerReferences"][0]["uid"] for one in owners] == [uid] * 3
    finally:
        runs.bed.kubectl("patch", *old, "--type=merge", '--patch={"metadata": {"finalizers": null}}', in_namespace)


def test_a_start_that_fails_leaves_the_minicluster_to_the_client_that_came_meanwhile(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    from executors.provision.kubernetes.provisioner import ClusterProvisioner

    wait_ready = ClusterProvisioner.wait_ready
    others: list[Session] = []

    def fail_after_another_has_come(self: ClusterProvisioner, *given: Any) -> Any:
        if self.adopted():
            return wait_ready(self, *given)
        others.append(runs.open(run_id="shared"))
        raise ProvisionError("interrupted")

    monkeypatch.setattr(ClusterProvisioner, "wait_ready", fail_after_another_has_come)
    with pytest.raises(ProvisionError, match="interrupted"):
        runs.open(run_id="shared")
    [other] = others
    assert job(other, "true").ok
    other.close()
    assert runs.left() == []
