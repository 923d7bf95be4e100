"""Operator mode: with upstream's own CRD and operator where the test bed is given them (FLUXOP_TEST_CRD and
FLUXOP_TEST_OPERATOR, paths); what needs no operator, with a CRD made from our own schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from executors import JobRequest, Outcome, ProvisionError
from executors.schema import json_schema
from tests.cluster.runs import LIMIT, Runs, job, output_of, runs_on, spec
from tests.cluster.testbed.cluster import Cluster
from tests.conftest import missing

_CURE = "upstream's operator is not given; build it and set FLUXOP_TEST_CRD and FLUXOP_TEST_OPERATOR to its paths"


@pytest.fixture(scope="module")
def operator(cluster: Cluster) -> Iterator[None]:
    """Upstream's operator, running."""
    if cluster.crd is None or cluster.operator is None:
        missing("flux-operator", _CURE)
    cluster.install_crd(cluster.crd)
    program = cluster.start_operator()
    yield
    program.stop()
    cluster.kubectl("delete", "crd", "miniclusters.flux-framework.org")


@pytest.fixture
def own_crd(cluster: Cluster, tmp_path: Path) -> Iterator[None]:
    """A CRD made from our schema, and nobody who acts on it."""
    schema = {"type": "object", "properties": {"spec": json_schema()}}
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
    from executors.provision.operator import OperatorProvisioner

    monkeypatch.setattr(OperatorProvisioner, "job_limit", 2.0)
    with pytest.raises(ProvisionError, match="the Flux Operator has made no Job within 2 s"):
        operated.open()
    operated.wait_nothing_left()


@pytest.mark.usefixtures("operator")
def test_a_run_through_upstreams_operator(operated: Runs) -> None:
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
