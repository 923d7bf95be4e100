"""The ways of installing our Flux Operator: Helm's chart and the kustomize base, by their own programs."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from executors.controller.manifests import NAMESPACE, manifests
from tests.cluster.operators import CRD_NAME, MiniClusters
from tests.cluster.testbed import binaries
from tests.cluster.testbed.control_plane import ControlPlane
from tests.cluster.testbed.missing import Missing
from tests.conftest import missing

DEPLOY = Path(__file__).parents[3] / "deploy"
CHART = DEPLOY / "helm" / "flux-operator"
SET = "--set=image=registry.example.org/op:2,replicas=3"


@pytest.fixture(scope="module")
def helm_program() -> Path:
    try:
        return binaries.helm()
    except Missing as reason:
        missing("kubernetes", f"no Helm: {reason}")


class Helm:
    def __init__(self, program: Path, bed: ControlPlane, directory: Path) -> None:
        self._program = program
        self._env = {**os.environ, "KUBECONFIG": str(bed.kubeconfig), "HOME": str(directory), "NO_PROXY": "*"}

    def __call__(self, *arguments: str) -> str:
        argv = [str(self._program), f"--namespace={NAMESPACE}", *arguments]
        done = subprocess.run(argv, env=self._env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def helm(helm_program: Path, control_plane: ControlPlane, tmp_path: Path) -> Helm:
    return Helm(helm_program, control_plane, tmp_path)


def by_name(documents: list[Any]) -> dict[tuple[str, str], Any]:
    return {(one["kind"], one["metadata"]["name"]): one for one in documents}


def test_the_chart_is_rendered_to_what_the_command_prints(helm: Helm) -> None:
    text = helm("template", "any-name", str(CHART), "--include-crds", "--kube-version=1.34", SET)
    made = by_name(list(yaml.safe_load_all(text)))
    printed = by_name([one for one in manifests(image="registry.example.org/op:2") if one["kind"] != "Namespace"])
    printed["Deployment", "flux-operator"]["spec"]["replicas"] = 3
    assert made == printed


def test_the_kustomize_base_is_built_to_what_the_command_prints(control_plane: ControlPlane) -> None:
    text = control_plane.kubectl("kustomize", str(DEPLOY))
    assert by_name(list(yaml.safe_load_all(text))) == by_name(manifests())


def test_uninstalling_the_chart_leaves_the_crd_and_every_minicluster(control_plane: ControlPlane, helm: Helm) -> None:
    helm("install", "flux", str(CHART), "--create-namespace")
    namespace = control_plane.create_namespace(labels={})
    try:
        MiniClusters(control_plane, namespace, "localhost/flux:1").apply("stays")
        assert "deployment.apps/flux-operator" in control_plane.kubectl(
            "get", "deployments", f"--namespace={NAMESPACE}", "--output=name"
        )
        helm("uninstall", "flux", "--wait")
        left = control_plane.kubectl("get", "deployments", f"--namespace={NAMESPACE}", "--output=name")
        assert left == ""
        assert "stays" in control_plane.kubectl("get", "miniclusters", f"--namespace={namespace}", "--output=name")
    finally:
        control_plane.delete_namespace(namespace)
        control_plane.kubectl("delete", "crd", CRD_NAME, "--ignore-not-found")
        control_plane.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=60s")
