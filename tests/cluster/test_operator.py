"""Operator mode: with upstream's own CRD and operator where the test bed is given them (FLUXOP_TEST_CRD and
FLUXOP_TEST_OPERATOR, paths); what needs no operator, with a CRD made from our own schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from executors import ExecutorsError, JobRequest, Outcome, ProvisionError, RunId, run_name
from executors.lifecycle import Lifecycle
from executors.schema import MINICLUSTER_API_VERSION, json_schema
from executors.spec import SPEC
from tests.cluster.rights import grant, role, without
from tests.cluster.runs import KINDS, LIMIT, Runs, job, output_of, runs_on, spec
from tests.cluster.testbed.cluster import Cluster
from tests.cluster.testbed.waiting import wait_until


@pytest.fixture
def own_crd(cluster: Cluster, tmp_path: Path) -> Iterator[None]:
    """A CRD made from our schema, and nobody who acts on it."""
    schema = {"type": "object", "properties": {"spec": json_schema(SPEC)}}
    names = {"kind": "MiniCluster", "listKind": "MiniClusterList", "plural": "miniclusters", "singular": "minicluster"}
    version = {"name": "v1alpha2", "served": True, "storage": True, "schema": {"openAPIV3Schema": _structural(schema)}}
    manifest = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "miniclusters.flux-framework.org"},
        "spec": {"group": "flux-framework.org", "scope": "Namespaced", "names": names, "versions": [version]},
    }
    file = tmp_path / "crd.json"
    file.write_text(json.dumps(manifest))
    cluster.install_crd(file)
    yield
    cluster.kubectl("delete", "crd", "miniclusters.flux-framework.org")


def _structural(schema: object) -> object:
    """A JSON Schema in the form that Kubernetes takes: it keeps unknown fields where ours says nothing of them."""
    return {"type": "object", "x-kubernetes-preserve-unknown-fields": True} if schema else schema


@pytest.fixture
def operated(cluster: Cluster, namespace: str, tmp_path: Path) -> Iterator[Runs]:
    # Upstream's pods run as the image's user says; under restricted Pod Security they would not start.
    cluster.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=privileged", "--overwrite")
    found = runs_on(cluster, namespace, tmp_path)
    found.provisioner = "operator"
    yield found
    found.close()


def test_a_cluster_without_the_crd_is_named(operated: Runs) -> None:
    with pytest.raises(ProvisionError, match="knows no MiniClusters: the Flux Operator's CRD is not installed there"):
        operated.open()
    assert operated.left() == [], "its agent's ConfigMap"


@pytest.mark.usefixtures("own_crd")
def test_an_operator_that_does_nothing_is_reported_and_nothing_is_left(
    operated: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    from executors.provision.kubernetes.operator import OperatorMode

    monkeypatch.setattr(OperatorMode, "job_limit", 2.0)
    with pytest.raises(ProvisionError, match="the Flux Operator has made no Job within 2 s"):
        operated.open()
    operated.wait_nothing_left()


def _job(name: str, **metadata: object) -> dict[str, object]:
    """A Job that does nothing."""
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, **metadata},
        "spec": {"suspend": True, "template": template},
    }


@pytest.mark.usefixtures("own_crd")
def test_a_job_of_the_runs_name_that_is_somebody_elses_is_named(cluster: Cluster, operated: Runs) -> None:
    name = run_name(RunId("test", "taken"))
    cluster.api.post(f"/apis/batch/v1/namespaces/{operated.namespace}/jobs", _job(name))
    with pytest.raises(
        ProvisionError, match=f"a Job {operated.namespace}/{name} that belongs to no MiniCluster has this name"
    ):
        operated.open(run_id="taken")
    assert left(operated) == [f"job/{name}"]


@pytest.mark.usefixtures("own_crd")
def test_no_minicluster_is_made_beside_the_job_of_an_earlier_one(
    cluster: Cluster, operated: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Upstream's operator would take it for that of the new one."""
    name = run_name(RunId("test", "late"))
    owner = {"apiVersion": MINICLUSTER_API_VERSION, "kind": "MiniCluster", "name": name, "uid": "gone"}
    old = _job(name, ownerReferences=[owner], finalizers=["example.org/kept"])
    cluster.api.post(f"/apis/batch/v1/namespaces/{operated.namespace}/jobs", old)
    monkeypatch.setattr("executors.provision.kubernetes.operator.DELETE_LIMIT", 2.0)
    try:
        with pytest.raises(ProvisionError, match="of an earlier MiniCluster is not gone after 2 s"):
            operated.open(run_id="late")
        assert left(operated) == [f"job/{name}"]
    finally:
        free = '--patch={"metadata": {"finalizers": null}}'
        cluster.kubectl("patch", "job", name, "--type=merge", free, f"--namespace={operated.namespace}")


@pytest.mark.usefixtures("operator")
def test_a_run_through_the_clusters_operator(operated: Runs) -> None:
    session = operated.open(spec(operated.image, size=2))
    assert len(output_of(session, "hostname", nodes=2, tasks=2).split()) == 2
    assert output_of(session, "sh", "-c", "echo $TOKEN", secret_env={"TOKEN": "s3cret"}).strip() == "s3cret"
    session.close()
    left = operated.bed.kubectl("get", "miniclusters,jobs,pods", f"--namespace={operated.namespace}", "--output=name")
    assert left == ""


@pytest.mark.usefixtures("operator")
def test_a_run_that_is_asked_for_twice_is_one(operated: Runs) -> None:
    first, second = operated.open(run_id="one"), operated.open(run_id="one")
    assert first.hello.instance == second.hello.instance
    first.close()
    assert job(second, "true").ok


@pytest.mark.usefixtures("operator")
def test_a_job_that_fails_is_reported_as_in_direct_mode(operated: Runs) -> None:
    session = operated.open()
    [handle] = session.submit([JobRequest(argv=["sh", "-c", "exit 9"])])
    result = handle.result(LIMIT)
    assert (result.outcome, result.returncode) == (Outcome.FAILED, 9)


def left(runs: Runs) -> list[str]:
    """As ``Runs.left``, and the resources."""
    return runs.bed.left_in(runs.namespace, "miniclusters", *KINDS)


def wait_nothing_left(runs: Runs) -> None:
    # Brokers in upstream's pods do not hear SIGTERM: the half minute of grace that Kubernetes gives goes by.
    wait_until("nothing to be left", lambda: not left(runs), 2 * LIMIT)


@pytest.mark.usefixtures("operator")
def test_a_whole_run_under_exactly_the_role(cluster: Cluster, operated: Runs) -> None:
    grant(cluster, operated, role("operator"))
    session = operated.open()
    assert job(session, "true").ok
    session.close()
    wait_nothing_left(operated)


@pytest.mark.usefixtures("operator")
@pytest.mark.parametrize(
    ("resource", "verb", "words"),
    [
        ("miniclusters", "create", 'cannot create resource "miniclusters"'),
        ("configmaps", "create", 'cannot create resource "configmaps"'),
        ("configmaps", "patch", 'cannot patch resource "configmaps"'),
        ("jobs", "list", 'cannot list resource "jobs"'),
        ("jobs", "watch", 'cannot watch resource "jobs"'),
        ("pods", "list", 'cannot list resource "pods"'),
        ("pods", "watch", 'cannot watch resource "pods"'),
        ("events", "list", 'cannot list resource "events"'),
        ("events", "watch", 'cannot watch resource "events"'),
        ("pods/exec", "get", "on pods/exec is needed"),
    ],
)
def test_one_verb_less_fails_with_a_message_that_names_it(
    cluster: Cluster, operated: Runs, resource: str, verb: str, words: str
) -> None:
    grant(cluster, operated, without(role("operator"), resource, verb))
    with pytest.raises(ExecutorsError, match=words):
        operated.open()
    wait_nothing_left(operated)


@pytest.mark.usefixtures("operator")
def test_without_the_right_to_delete_the_run_says_so_and_ends_by_itself(
    cluster: Cluster, operated: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    grant(cluster, operated, without(role("operator"), "miniclusters", "delete"))
    session = operated.open()
    assert job(session, "true").ok
    session.close()
    assert 'cannot delete resource "miniclusters"' in caplog.text and "ends by its own time-outs" in caplog.text


@pytest.mark.usefixtures("operator")
def test_a_run_that_may_not_see_its_end_says_so(
    cluster: Cluster, operated: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    grant(cluster, operated, without(role("operator"), "miniclusters", "list"))
    session = operated.open()
    assert job(session, "true").ok
    session.close()
    assert "whether it is gone cannot be seen" in caplog.text and 'cannot list resource "miniclusters"' in caplog.text
    wait_nothing_left(operated)


@pytest.mark.usefixtures("operator")
@pytest.mark.parametrize(
    ("resource", "verb"),
    [("miniclusters", "watch"), ("jobs", "get"), ("pods", "get"), ("pods/log", "get"), ("configmaps", "delete")],
)
def test_rights_that_only_errors_and_ends_need_do_not_stop_a_run(
    cluster: Cluster, operated: Runs, resource: str, verb: str
) -> None:
    grant(cluster, operated, without(role("operator"), resource, verb))
    session = operated.open()
    assert job(session, "true").ok
    session.close()
    wait_nothing_left(operated)


@pytest.mark.usefixtures("operator")
def test_the_same_run_again_needs_to_get_what_is_there(cluster: Cluster, operated: Runs) -> None:
    first = operated.open(run_id="one")
    for resource in ("miniclusters", "configmaps", "jobs"):
        grant(cluster, operated, without(role("operator"), resource, "get"))
        with pytest.raises(ExecutorsError, match=f'cannot get resource "{resource}"'):
            operated.open(run_id="one")
    assert job(first, "true").ok


@pytest.mark.usefixtures("operator")
def test_resizing_needs_to_patch_the_resource(cluster: Cluster, operated: Runs) -> None:
    grant(cluster, operated, without(role("operator"), "miniclusters", "patch"))
    session = operated.open(spec(operated.image, maxSize=2))
    lifecycle = Lifecycle(session.run_name, operated.config(), {})
    with pytest.raises(ExecutorsError, match='cannot patch resource "miniclusters"'):
        lifecycle.resize(2, LIMIT, print)
    assert job(session, "true").ok
