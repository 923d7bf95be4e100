"""What is installed."""

from __future__ import annotations

import tomllib
from pathlib import Path

import yaml

from executors.controller.crd import crd
from executors.controller.manifests import IMAGE, manifests

DEPLOY = Path(__file__).parents[2] / "deploy" / "flux-operator.yaml"
CHART = DEPLOY.parent / "helm" / "flux-operator"
#: What Helm fills in; the last is a number.
BLANKS = {"image": "{{ .Values.image }}", "home": "{{ .Release.Namespace }}", "replicas": "{{ .Values.replicas }}"}


def test_the_file_is_what_the_command_prints() -> None:
    assert list(yaml.safe_load_all(DEPLOY.read_text())) == manifests(), (
        "flux-operator manifests >deploy/flux-operator.yaml"
    )


def test_the_image_is_made_of_what_is_installed_and_of_nothing_else() -> None:
    root = DEPLOY.parents[1]
    project = tomllib.loads((root / "pyproject.toml").read_text())
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    lines = (root / ".dockerignore").read_text().splitlines()
    assert "*" in lines
    kept = {line[1:] for line in lines if line.startswith("!")}
    assert kept == {*packages, project["project"]["readme"], "pyproject.toml", "constraints.txt", "LICENSE"}
    assert all((root / one).exists() for one in kept)


def test_no_secret_or_configmap_is_ever_read_nor_a_log_nor_a_shell_begun() -> None:
    for one in [*manifests(), *manifests("science")]:
        for rule in one.get("rules", []):
            if {"secrets", "configmaps"} & set(rule["resources"]):
                assert rule["verbs"] == ["create"]
            assert not {"pods/exec", "pods/log", "*"} & {*rule["resources"], *rule["verbs"]}


def test_for_one_namespace_nothing_is_beyond_it() -> None:
    found = manifests("science")
    assert {one["kind"] for one in found} == {"ServiceAccount", "Role", "RoleBinding", "Deployment"}
    assert {one["metadata"]["namespace"] for one in found} == {"science"}
    [container] = found[-1]["spec"]["template"]["spec"]["containers"]
    assert container["args"][:3] == ["run", "--namespace", "science"]


def template() -> str:
    """What the chart has to hold: all but the namespace, which is Helm's to make, and the CRD."""
    kept = [
        one
        for one in manifests(image=BLANKS["image"], home=BLANKS["home"])
        if one["kind"] not in ("Namespace", "CustomResourceDefinition")
    ]
    return yaml.safe_dump_all(kept, sort_keys=False).replace("replicas: 1", f"replicas: {BLANKS['replicas']}")


def test_the_chart_installs_the_same_and_its_crd_stays_when_it_is_uninstalled() -> None:
    assert (CHART / "templates" / "operator.yaml").read_text() == template()
    assert yaml.safe_load((CHART / "crds" / "miniclusters.yaml").read_text()) == crd()
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert values == {"image": IMAGE, "replicas": 1}
    filled = template().replace(BLANKS["home"], "flux-operator").replace(BLANKS["image"], IMAGE)
    installed = list(yaml.safe_load_all(filled.replace(BLANKS["replicas"], "1")))
    assert installed == [one for one in manifests() if one["kind"] not in ("Namespace", "CustomResourceDefinition")]
