"""What is installed."""

from __future__ import annotations

from pathlib import Path

import yaml

from executors.controller.manifests import manifests

DEPLOY = Path(__file__).parents[2] / "deploy" / "flux-operator.yaml"


def test_the_file_is_what_the_command_prints() -> None:
    assert list(yaml.safe_load_all(DEPLOY.read_text())) == manifests(), (
        "flux-operator manifests >deploy/flux-operator.yaml"
    )


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
