"""``run.podPatch``: adds what v1alpha2 lacks, and takes nothing from the brokers that they need."""

from __future__ import annotations

import datetime
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from executors.config import load_config
from executors.errors import ConfigError
from executors.provision import make_provisioner
from executors.provision.kubernetes.recipe import minicluster_of, program_of
from executors.render import MiniCluster, Program, pod_patch_problems, render_direct, spec_hash
from executors.spec import parse_spec

PROGRAM = Program(agent=b"agent", arguments=("--run", "mc"), max_lifetime=10.0, ttl=10.0)
CONTAINERS: list[dict[str, Any]] = [
    {
        "name": "tools",
        "runFlux": True,
        "environment": {"MINE": "1"},
        "volumes": {"work": {"emptyDir": True, "path": "/w"}},
    },
    {"name": "beside", "image": "x", "command": "serve"},
]


def cluster(patch: Any, **more: Any) -> MiniCluster:
    spec = parse_spec({"containers": CONTAINERS, **more})
    return MiniCluster("mc", "ns", replace(spec, pod_patch=patch))


def template(patch: Any, **more: Any) -> Any:
    made = cluster(patch, **more)
    assert problems(patch) == []
    return render_direct(made, PROGRAM, "")[0]["spec"]["template"]


def problems(patch: Any, **more: Any) -> list[str]:
    """As a user gets them: of the shape first."""
    try:
        config = load_config(
            {"apiVersion": "flux-operator-executors/v1", "kind": "FluxRun", "run": {"podPatch": patch}}, environ={}
        )
    except ConfigError as err:
        return list(err.problems)
    return pod_patch_problems(cluster(config.run.pod_patch, **more), PROGRAM)


def test_no_patch_changes_nothing() -> None:
    assert (
        template({})
        == render_direct(MiniCluster("mc", "ns", parse_spec({"containers": CONTAINERS})), PROGRAM, "")[0]["spec"][
            "template"
        ]
    )


def test_what_v1alpha2_lacks_is_in_the_pods() -> None:
    spread = {"topologyKey": "kubernetes.io/hostname", "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"}
    toleration = {"key": "spot", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60}
    claim = {"name": "data", "ephemeral": {"volumeClaimTemplate": {}}}
    patch = {
        "metadata": {"labels": {"team": "a"}, "annotations": {"note": "b"}},
        "spec": {
            "priorityClassName": "high",
            "imagePullSecrets": [{"name": "one"}, {"name": "two"}],
            "tolerations": [toleration],
            "topologySpreadConstraints": [spread],
            "volumes": [claim],
            "initContainers": [{"name": "first", "image": "y"}],
            "containers": [
                {
                    "name": "tools",
                    "envFrom": [{"configMapRef": {"name": "settings"}}],
                    "env": [{"name": "MORE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
                    "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                    "securityContext": {"appArmorProfile": {"type": "RuntimeDefault"}},
                    "resources": {"claims": [{"name": "gpu"}]},
                }
            ],
        },
    }
    before, after = template({}), template(patch, pod={"tolerations": [{"operator": "Exists"}]})
    spec = after["spec"]
    assert after["metadata"]["labels"] == {**before["metadata"]["labels"], "team": "a"}
    assert after["metadata"]["annotations"] == {**before["metadata"]["annotations"], "note": "b"}
    assert spec["priorityClassName"] == "high" and spec["topologySpreadConstraints"] == [spread]
    assert spec["imagePullSecrets"] == [{"name": "one"}, {"name": "two"}] and spec["tolerations"] == [toleration]
    assert spec["volumes"] == [*before["spec"]["volumes"], claim]
    assert [one["name"] for one in spec["initContainers"]] == ["flux-view", "beside", "first"]
    [was], [main] = before["spec"]["containers"], spec["containers"]
    for name in ("command", "image", "livenessProbe", "name"):
        assert main[name] == was[name]
    assert main["env"][: len(was["env"])] == was["env"] and main["env"][-1]["name"] == "MORE"
    assert main["volumeMounts"] == [*was["volumeMounts"], {"name": "data", "mountPath": "/data"}]
    assert main["envFrom"] == [{"configMapRef": {"name": "settings"}}]
    assert main["securityContext"] == {**was["securityContext"], "appArmorProfile": {"type": "RuntimeDefault"}}
    assert main["resources"] == {**was["resources"], "claims": [{"name": "gpu"}]}


def test_merging_is_kubernetes_own() -> None:
    more = {"pod": {"securityContext": {"fsGroup": 7}}, "jobLabels": {"a": "b"}}
    assert "podAffinity" in template({}, **more)["spec"]["affinity"]
    assert "affinity" not in template({"spec": {"affinity": None}}, **more)["spec"]
    assert "affinity" not in template({"spec": {"affinity": {"$patch": "delete"}}}, **more)["spec"]
    assert list(template({"spec": {"affinity": {"podAffinity": None}}}, **more)["spec"]["affinity"]) == [
        "podAntiAffinity"
    ]
    security = template({"spec": {"securityContext": {"supplementalGroups": [9]}}}, **more)["spec"]["securityContext"]
    assert security["fsGroup"] == 7 and security["supplementalGroups"] == [9] and security["runAsNonRoot"] is True
    replaced = {"$patch": "replace", "runAsUser": 5}
    assert template({"spec": {"securityContext": replaced}}, **more)["spec"]["securityContext"] == {"runAsUser": 5}


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"restartPolicy": "Always"}, "run.podPatch.spec.restartPolicy: "),
        ({"subdomain": "x"}, "run.podPatch.spec.subdomain: "),
        ({"hostname": "x"}, "run.podPatch.spec.hostname: "),
        ({"setHostnameAsFQDN": True}, "run.podPatch.spec.setHostnameAsFQDN: "),
        ({"activeDeadlineSeconds": 1}, "run.podPatch.spec.activeDeadlineSeconds: "),
        ({"shareProcessNamespace": True}, "run.podPatch.spec.shareProcessNamespace: "),
        ({"ephemeralContainers": []}, "run.podPatch.spec.ephemeralContainers: "),
        ({"hostNetwrok": True}, "did you mean hostNetwork?"),
        ({"hostNetwork": "yes"}, "run.podPatch.spec.hostNetwork: "),
        ({"tolerations": [{"key": 1}]}, "run.podPatch.spec.tolerations[0].key: "),
        ({"containers": None}, "run.podPatch.spec.containers: "),
        ({"containers": {"name": "tools"}}, "run.podPatch.spec.containers: "),
        ({"$patch": "replace"}, "run.podPatch.spec.$patch: "),
        ({"affinity": {"$retainKeys": []}}, "run.podPatch.spec.affinity.$retainKeys: "),
        ({"affinity": {"$patch": "drop"}}, "run.podPatch.spec.affinity.$patch: "),
        ({"affinity": {"since": datetime.date(2001, 1, 1)}}, "run.podPatch.spec.affinity.since: "),
        ({"affinity": {1: 2}}, "run.podPatch.spec.affinity: "),
        ({"affinity": {"weight": float("nan")}}, "run.podPatch.spec.affinity.weight: "),
        ({"containers": [{"image": "x"}]}, "run.podPatch.spec.containers[0].name: "),
        ({"containers": [{"$patch": "replace"}]}, "run.podPatch.spec.containers[0].name: "),
        ({"containers": [{"name": "tools", "$patch": "delete"}]}, "run.podPatch.spec.containers[0].$patch: "),
        ({"containers": [{"name": "tools"}, {"name": "tools"}]}, "run.podPatch.spec.containers[1].name: "),
        ({"containers": [{"name": "other", "image": "x"}]}, "they have tools"),
        ({"containers": [{"name": "beside"}]}, "is in initContainers of the pods"),
        ({"initContainers": [{"name": "tools"}]}, "is in containers of the pods"),
        ({"containers": [{"name": "tools", "command": ["x"]}]}, "minicluster.containers[].command"),
        ({"containers": [{"name": "tools", "args": ["x"]}]}, "run.podPatch.spec.containers[0].args: "),
        ({"containers": [{"name": "tools", "livenessProbe": None}]}, "run.podPatch.spec.containers[0].livenessProbe: "),
        ({"containers": [{"name": "tools", "restartPolicy": "Always"}]}, "containers[0].restartPolicy: "),
        ({"containers": [{"name": "tools", "resources": {"limits": {"cpu": 9}}}]}, "containers[0].resources: "),
        ({"containers": [{"name": "tools", "resources": None}]}, "containers[0].resources: "),
        ({"containers": [{"name": "tools", "resources": {"$patch": "delete"}}]}, "containers[0].resources: "),
        ({"containers": [{"name": "tools", "securityContext": None}]}, "containers[0].securityContext: "),
        ({"containers": [{"name": 5}]}, "run.podPatch.spec.containers[0].name: 5 must be a string"),
        ({"containers": [{"name": "tools", "ports": [{"containerPort": "web"}]}]}, "'web' must be a number"),
        ({"volumes": [{"name": 5, "emptyDir": {}}]}, "run.podPatch.spec.volumes[0].name: 5 must be a string"),
        ({"volumes": [{"name": ["x"]}]}, "run.podPatch.spec.volumes[0].name: "),
        ({"containers": [{"name": "tools", "env": None}]}, "run.podPatch.spec.containers[0].env: "),
        ({"containers": [{"name": "tools", "env": [{"name": "FLUX_URI"}]}]}, "containers[0].env[0].name: "),
        ({"containers": [{"name": "tools", "env": [{"name": "FLUXOP_ENTRY"}]}]}, "containers[0].env[0].name: "),
        ({"containers": [{"name": "tools", "env": [{"name": "MINE", "value": "2"}]}]}, "containers[0].env[0].name: "),
        ({"containers": [{"name": "tools", "env": [{"$patch": "replace"}]}]}, "containers[0].env[0].name: "),
        (
            {"containers": [{"name": "tools", "volumeMounts": [{"name": "x", "mountPath": "/flux_operator/"}]}]},
            "containers[0].volumeMounts[0].mountPath: ",
        ),
        (
            {"containers": [{"name": "tools", "envFrom": [{"configMapRef": {}}, {"secretRef": {"name": "s3"}}]}]},
            "run.podPatch.spec.containers[0].envFrom[1].secretRef: ",
        ),
        ({"initContainers": [{"name": "beside", "command": ["x"]}]}, "initContainers[0].command: "),
        ({"initContainers": [{"name": "flux-view", "$patch": "delete"}]}, "initContainers[0].$patch: "),
        ({"volumes": [{"name": "flux-curve", "emptyDir": {}}]}, "run.podPatch.spec.volumes[0].name: "),
        ({"volumes": [{"name": "mc-entrypoint", "$patch": "delete"}]}, "run.podPatch.spec.volumes[0].name: "),
        ({"volumes": [{"name": "work", "emptyDir": None}]}, "run.podPatch.spec.volumes[0].name: "),
        ({"volumes": [{"$patch": "replace"}]}, "run.podPatch.spec.volumes[0].name: "),
        ({"securityContext": {"runAsUser": 0}}, "run.podPatch.spec.securityContext.runAsUser: "),
        ({"terminationGracePeriodSeconds": 1}, "run.podPatch.spec.terminationGracePeriodSeconds: "),
    ],
    ids=str,
)
def test_what_the_brokers_need_is_refused_with_the_field(spec: Any, words: str) -> None:
    found = problems({"spec": spec})
    assert len(found) == 1 and words in found[0]


@pytest.mark.parametrize(
    "path",
    [
        "/flux_operator/.", "//flux_operator", "flux_operator", "/run/../flux_operator", "/run/flux_operator/flux",
        "/flux_operator_curve/x", "/mnt//flux", "/w/.", "/", "/..",
    ],
)  # fmt: skip
def test_no_spelling_of_a_path_hides_what_is_mounted(path: str) -> None:
    for field, key in (("volumeMounts", "mountPath"), ("volumeDevices", "devicePath")):
        found = problems({"spec": {"containers": [{"name": "tools", field: [{"name": "x", key: path}]}]}})
        assert len(found) == 1 and f".containers[0].{field}[0].{key}: {path!r} is in use already" in found[0]


def test_other_paths_can_be_mounted() -> None:
    for path in ("/data", "/w/below", "/flux_operators", "/run/x", "/opt", "/mnt/flux/mine"):
        mounts = [{"name": "x", "mountPath": path}]
        assert problems({"spec": {"containers": [{"name": "tools", "volumeMounts": mounts}]}}) == []


@pytest.mark.parametrize(
    "patch",
    [
        {"metadata": {"labels": {"app.kubernetes.io/name": "x"}}},
        {"metadata": {"labels": {"job-name": "x"}}},
        {"metadata": {"annotations": {"batch.kubernetes.io/job-completion-index": "0"}}},
        {"metadata": {"name": "x"}},
        {"metadata": {"labels": {"a": None}}},
        {"status": {}},
        "text",
        [],
    ],
    ids=str,
)
def test_what_is_no_patch_of_labels_annotations_and_spec_is_refused(patch: Any) -> None:
    assert len(problems(patch)) == 1


def test_pods_of_the_nodes_network_find_each_other_and_never_share_a_node() -> None:
    made = template({"spec": {"hostNetwork": True}})["spec"]
    [main] = made["containers"]
    assert made["dnsPolicy"] == "ClusterFirstWithHostNet"
    assert "-Shostname=mc-$(JOB_COMPLETION_INDEX)" in main["command"]
    assert main["ports"] == [{"containerPort": 8050, "protocol": "TCP"}]
    assert template({"spec": {"hostNetwork": True, "dnsPolicy": "Default"}})["spec"]["dnsPolicy"] == "Default"


def test_a_patch_that_brings_volumes_or_forbids_writing_has_our_files_mounted() -> None:
    alone = {"containers": [{"name": "tools"}], "flux": {"container": {"disable": True}}}
    assert "volumes" not in template({"spec": {"priorityClassName": "high"}}, **alone)["spec"]
    for spec in (
        {"containers": [{"name": "tools", "securityContext": {"readOnlyRootFilesystem": True}}]},
        {"volumes": [{"name": "more", "emptyDir": {}}]},
        {"runtimeClassName": "gvisor"},
    ):
        made = template({"spec": spec}, **alone)["spec"]
        assert "flux-state" in [one["name"] for one in made["volumes"]]
        assert pod_patch_problems(cluster({"spec": {"volumes": [{"name": "flux-state"}]}}, **alone), PROGRAM)


def test_another_patch_is_another_spec() -> None:
    one, other = cluster({"spec": {"priority": 1}}), cluster({"spec": {"priority": 2}})
    assert len({spec_hash(cluster({}), PROGRAM), spec_hash(one, PROGRAM), spec_hash(other, PROGRAM)}) == 3


def test_jobs_do_not_inherit_what_a_patch_takes_from_secrets(tmp_path: Path) -> None:
    """Nor what is made of it; what runs beside the brokers may have all."""
    env: list[Any] = [
        {"name": "FROM_SECRET", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
        {"name": "FROM_FILE", "valueFrom": {"fileKeyRef": {"volumeName": "v", "path": "p", "key": "k"}}},
        {"name": "MADE_OF_IT", "value": "s3://user:$(FROM_SECRET)@store"},
        {"name": "OF_THE_SPECS", "value": "$(TOKEN)"},
        {"name": "PLAIN", "value": "$(HOME)", "valueFrom": None},
        {"name": "FROM_CONFIG", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}},
        {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
    ]
    beside = {"name": "beside", "env": [{"name": "PLAIN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}
    beside["envFrom"] = [{"secretRef": {"name": "s"}}]
    tools = {**CONTAINERS[0], "secrets": {"TOKEN": {"name": "t", "key": "k"}}}
    config = load_config(
        {
            "apiVersion": "flux-operator-executors/v1",
            "kind": "FluxRun",
            "run": {
                "provisioner": "direct",
                "podPatch": {"spec": {"containers": [{"name": "tools", "env": env}], "initContainers": [beside]}},
            },
            "minicluster": {"containers": [tools, CONTAINERS[1]]},
        },
        environ={},
    )
    assert config.minicluster is not None
    patched = replace(config.minicluster, pod_patch=config.run.pod_patch)
    words = program_of(config.run, minicluster_of("run-1", "", patched), "/agent").arguments
    hidden = [word for before, word in pairwise(words) if before == "--without-env"]
    assert hidden == ["FROM_FILE", "FROM_SECRET", "MADE_OF_IT", "OF_THE_SPECS", "TOKEN"]


def test_operator_mode_refuses_it_by_name(tmp_path: Path) -> None:
    config = load_config(
        {
            "apiVersion": "flux-operator-executors/v1",
            "kind": "FluxRun",
            "run": {"provisioner": "operator", "podPatch": {"spec": {"hostNetwork": True}}},
        },
        environ={},
    )
    with pytest.raises(ConfigError, match=r"run\.podPatch: is not supported by the provisioner operator"):
        make_provisioner("run-1", config, {}).ensure()
