"""Rendering: what becomes of a spec, and what never does."""

from __future__ import annotations

import base64
import copy
import dataclasses
import json
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executors.errors import SpecError
from executors.provision.package import agent_archive, shell_text
from executors.render import (
    HASH_ANNOTATION,
    MiniCluster,
    Program,
    owned_by,
    render_direct,
    render_resource,
    spec_hash,
)
from executors.render.broker import broker_config, rank_resources
from executors.render.command import command_words
from executors.render.entry import ENTRY_SCRIPT, call
from executors.render.objects import config_map
from executors.render.places import MOUNTED, UNMOUNTED
from executors.render.toml import toml_text
from executors.spec import Container, Resources, parse_spec
from executors.validation import direct_problems, name_problems
from tests.unit.documents import DOCUMENTS, TEXT

PROGRAM = Program(b"zip", ("--run", "it's $HOME"), max_lifetime=3600.5, ttl=60.0, shell_text="-- lua")
CERTIFICATE = "a-secret-certificate"


def cluster(container: dict[str, Any] | None = None, **more: Any) -> MiniCluster:
    document = {"size": 2, "containers": [{"image": "app", "command": "run it", **(container or {})}], **more}
    return MiniCluster("mc", "science", parse_spec(document), labels={"team": "x"}, annotations={"run": "r"})


def direct(container: dict[str, Any] | None = None, program: Program | None = PROGRAM, **more: Any) -> dict[str, Any]:
    """Objects by kind (the last one of each)."""
    return {one["kind"]: one for one in render_direct(cluster(container, **more), program, CERTIFICATE)}


def pod(*arguments: Any, **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = direct(*arguments, **more)["Job"]["spec"]["template"]["spec"]
    return found


def command(*arguments: Any, **more: Any) -> list[str]:
    found: list[str] = pod(*arguments, **more)["containers"][0]["command"]
    return found


# -- the Job and what it owns


def test_the_job_comes_first_suspended_and_owns_the_rest_without_being_their_controller() -> None:
    made = render_direct(cluster(services=[{"name": "db", "image": "db"}]), PROGRAM, CERTIFICATE)
    assert [one["kind"] for one in made] == ["Job", "Secret", "ConfigMap", "Service", "Pod"]
    assert made[0]["spec"]["suspend"] is True
    owner = copy.deepcopy(made[0])
    owner["metadata"]["uid"] = "u-1"
    owned = owned_by(made, owner)
    reference = {"apiVersion": "batch/v1", "kind": "Job", "name": "mc", "uid": "u-1"}
    assert [one["metadata"]["ownerReferences"] for one in owned] == [[reference]] * 4
    assert all("ownerReferences" not in one["metadata"] for one in made), "the given objects stay as they were"


def test_every_object_says_whose_it_is_and_pods_are_counted_for_costs() -> None:
    labels = {"app.kubernetes.io/managed-by": "flux-operator-executors", "app.kubernetes.io/name": "mc", "team": "x"}
    made = render_direct(cluster(services=[{"name": "db", "image": "db"}]), PROGRAM, CERTIFICATE)
    for one in [*made, made[0]["spec"]["template"]]:
        assert labels.items() <= one["metadata"]["labels"].items()
    assert all(one["metadata"]["namespace"] == "science" for one in made)
    assert made[0]["metadata"]["annotations"]["run"] == "r"


def test_limits_of_time_are_whole_seconds_that_are_never_too_few() -> None:
    spec = direct()["Job"]["spec"]
    assert (spec["activeDeadlineSeconds"], spec["ttlSecondsAfterFinished"]) == (3601, 60)
    assert direct(deadlineSeconds=50)["Job"]["spec"]["activeDeadlineSeconds"] == 50
    endless = Program(b"", (), max_lifetime=0, ttl=0)
    assert direct(program=endless, deadlineSeconds=50)["Job"]["spec"]["activeDeadlineSeconds"] == 50
    own = direct(program=None)["Job"]["spec"]
    assert own["suspend"] is False and "ttlSecondsAfterFinished" not in own
    assert direct(program=None, cleanup=True)["Job"]["spec"]["ttlSecondsAfterFinished"] == 0


def test_only_the_lead_completes_the_job_and_a_lost_lead_fails_it() -> None:
    spec = direct(backoffLimit=7)["Job"]["spec"]
    assert spec["successPolicy"] == {"rules": [{"succeededIndexes": "0"}]}
    unserved, rule = spec["podFailurePolicy"]["rules"]
    assert unserved["action"] == "Ignore" and unserved["onExitCodes"]["values"] == [77]
    assert rule["action"] == "FailJob" and rule["onExitCodes"]["operator"] == "NotIn"
    assert rule["onExitCodes"]["containerName"] == "mc"
    assert 75 not in rule["onExitCodes"]["values"] and 76 in rule["onExitCodes"]["values"]
    assert (spec["completions"], spec["parallelism"], spec["backoffLimit"]) == (2, 2, 7)
    assert spec["template"]["spec"]["restartPolicy"] == "Never"


def test_the_hash_follows_what_is_rendered_and_not_whose_it_is_nor_the_certificate() -> None:
    first = cluster()
    other = MiniCluster("mc", "science", first.spec, labels={"team": "y"}, annotations={})
    found = spec_hash(first, PROGRAM)
    assert found == spec_hash(other, PROGRAM)
    assert {
        render_direct(one, PROGRAM, certificate)[0]["metadata"]["annotations"][HASH_ANNOTATION]
        for one, certificate in ((first, "a"), (other, "b"))
    } == {found}
    changed = [
        spec_hash(cluster({"image": "other"}), PROGRAM),
        spec_hash(cluster(maxSize=3), PROGRAM),
        spec_hash(cluster(pod={"labels": {"a": "b"}}), PROGRAM),
        spec_hash(first, None),
        spec_hash(first, Program(b"zip2", PROGRAM.arguments, PROGRAM.max_lifetime, PROGRAM.ttl)),
        spec_hash(first, Program(b"zip", PROGRAM.arguments, PROGRAM.max_lifetime, 61.0)),
    ]
    assert len({found, *changed}) == 1 + len(changed)


# -- secrets and strings


@pytest.mark.parametrize("given", [{}, {"flux": {"curveCert": "the-users-certificate"}}])
def test_the_certificate_is_in_the_secret_and_nowhere_else(given: dict[str, Any]) -> None:
    made = render_direct(cluster(**given), PROGRAM, CERTIFICATE)
    text = given.get("flux", {}).get("curveCert", CERTIFICATE)
    secret = next(one for one in made if one["kind"] == "Secret")
    assert base64.b64decode(secret["data"]["curve.cert"]).decode() == text
    rest = json.dumps([one for one in made if one["kind"] != "Secret"])
    for form in (text, base64.b64encode(text.encode()).decode()[:-4]):
        assert form not in rest


@given(st.dictionaries(st.sampled_from(["command", "image", "workingDir", "logs"]), TEXT.map("/{}".format), max_size=4))
def test_a_users_string_is_in_no_shell_text(strings: dict[str, str]) -> None:
    try:
        made = direct(strings, program=None)
    except ValueError:
        return  # an open quote, which validation refuses
    assert made["ConfigMap"]["data"]["entry.sh"] == ENTRY_SCRIPT
    assert made["Job"]["spec"]["template"]["spec"]["containers"][0]["command"][:3] == [
        "/bin/sh",
        "/flux_operator/entry.sh",
        "broker",
    ]


def test_kubernetes_replaces_nothing_in_a_command() -> None:
    words = command()
    assert words[-4:] == [MOUNTED.agent_archive, "supervise", "--run", "it's $$HOME"]
    assert command({"command": "echo $(HOME) $$", "launcher": True}, program=None)[-1] == "echo $$(HOME) $$$$"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lmp -v x 2 -in 'in put'", ["lmp", "-v", "x", "2", "-in", "in put"]),
        ('a "b c"  d\\ e', ["a", "b c", "d e"]),
        ("echo $HOME", ["sh", "-c", "echo $HOME"]),
        ("a | b", ["sh", "-c", "a | b"]),
        ("  a\nb\n", ["sh", "-c", "a\nb"]),
        ("ls *.txt", ["sh", "-c", "ls *.txt"]),
        ("", []),
    ],
)
def test_a_command_is_split_into_words_unless_it_needs_a_shell(text: str, words: list[str]) -> None:
    assert command_words(text) == words


# -- what is run


def test_the_spec_runs_in_upstreams_modes() -> None:
    run = command(program=None, tasks=4, flux={"optionFlags": "-o mpi=openmpi@5"})
    assert run[-12:] == [
        "flux", "run", "-N", "2", "-n", "4", "-o", "cpu-affinity=off", "-o", "mpi=openmpi@5", "run", "it",
    ]  # fmt: skip
    submit = command(program=None, flux={"submitCommand": "flux submit --watch"})
    assert submit[-11:-6] == ["flux", "submit", "--watch", "-N", "2"]
    assert command({"launcher": True}, program=None)[-3:] == ["-Sbroker.shutdown-timeout=3", "run", "it"]
    assert command(program=None, interactive=True)[-1] == "-Sbroker.rc2_none=1"
    assert command({"batch": True}, program=None)[-6:] == [
        "sh", "/flux_operator/entry.sh", "batch", "/flux_operator/0-batch", "/tmp/fluxout", "-o", "cpu-affinity=off",
    ][-6:]  # fmt: skip
    assert command({"batchRaw": True}, program=None)[-2:] == ["sh", "/flux_operator/0-batch"]
    assert command({"batchRaw": True, "command": "#!/bin/bash\nx"}, program=None)[-1] == "/flux_operator/0-batch"


def test_with_an_agent_the_lead_waits_for_nobody() -> None:
    assert "-Sbroker.quorum=1" in command()
    assert "-Sbroker.quorum=2" in command(program=None)
    assert "-Sbroker.quorum=1" in command(program=None, minSize=1)
    with_fluxion = {"scheduler": {"queuePolicy": "fcfs"}}
    assert "-Sbroker.quorum=2" in command(flux=with_fluxion)
    assert "-Sbroker.quorum=1" in command(flux=with_fluxion, minSize=1)


def test_words_before_the_broker_come_before_it() -> None:
    words = command({"commands": {"prefix": "numactl -i 'all x'"}}, flux={"wrap": "strace,-f"})
    assert words[:9] == [
        "/bin/sh",
        "/flux_operator/entry.sh",
        "broker",
        "numactl",
        "-i",
        "all x",
        "strace",
        "-f",
        "flux",
    ]


def test_hooks_are_files_and_their_shell_is_bash() -> None:
    commands = {"pre": "source /x", "post": "echo $(date)"}
    made = direct({"commands": commands})
    data = made["ConfigMap"]["data"]
    assert (data["0-pre"], data["0-post"]) == ("source /x", "echo $(date)")
    assert made["Job"]["spec"]["template"]["spec"]["containers"][0]["command"][0] == "/bin/bash"


# -- broker.toml


def test_the_broker_config_names_every_broker_that_may_ever_join() -> None:
    config = tomllib.loads(broker_config(cluster(maxSize=16, network={"headlessName": "flux-service"}), None))
    assert config["bootstrap"] == {
        "curve_cert": "/run/flux_operator/flux/curve.cert",
        "enable_ipv6": False,
        "default_port": 8050,
        "default_bind": "tcp://*:%p",
        "default_connect": "tcp://%h.flux-service:%p",
        "hosts": [{"host": "mc-[0-15]"}],
    }
    assert config["resource"] == {"noverify": True, "config": [{"hosts": "mc-[0-15]", "cores": "0"}]}
    assert config["modules"] == {"alternatives": {"sched": "sched-backfill"}}
    assert config["ingest"] == {"validator": {"plugins": ["jobspec", "feasibility"]}}


def test_bursting_adds_hosts() -> None:
    clusters = [{"size": 4, "name": "remote"}, {}]
    config = tomllib.loads(broker_config(cluster(flux={"bursting": {"clusters": clusters}}), None))
    assert [one["host"] for one in config["bootstrap"]["hosts"]] == ["mc-[0-1]", "remote-[0-3]", "burst-1-[0-1]"]
    assert config["resource"]["config"][0]["hosts"] == "mc-[0-1],remote-[0-3],burst-1-[0-1]"
    given = tomllib.loads(broker_config(cluster(flux={"bursting": {"hostlist": "mc-[0-3],gpu-[01-03]"}}), None))
    assert given["bootstrap"]["hosts"] == [{"host": "mc-[0-3],gpu-[01-03]"}]


def test_a_users_own_config_stays_but_for_what_only_we_know() -> None:
    text = (
        '[bootstrap]\ncurve_cert = "/x"\ndefault_port = 1\n[resource]\nexclude = "0"\npath = "/mnt/flux/view/etc/R"\n'
        '[[queues]]\na = 1\n[modules.alternatives]\nsched = "sched-fifo"\n'
    )
    config = tomllib.loads(broker_config(cluster(flux={"brokerConfig": text}), None))
    assert config["bootstrap"]["curve_cert"] == "/run/flux_operator/flux/curve.cert"
    assert (config["bootstrap"]["default_port"], config["bootstrap"]["hosts"]) == (1, [{"host": "mc-[0-1]"}])
    assert config["resource"]["exclude"] == "0" and "path" not in config["resource"]
    assert config["modules"] == {"alternatives": {"sched": "sched-fifo"}}
    assert config["queues"] == [{"a": 1}] and "validator" in config["ingest"]
    few = tomllib.loads(broker_config(cluster(flux={"brokerConfig": "ingest.batch-count = 1"}), None))
    assert few["ingest"] == {"batch-count": 1, "validator": {"plugins": ["jobspec", "feasibility"]}}
    own = '[resource]\npath = "/data/R"\n'
    kept = tomllib.loads(broker_config(cluster(flux={"brokerConfig": own}), None))
    assert kept["resource"] == {"path": "/data/R"}


@pytest.mark.parametrize(
    ("requests", "limits", "cores", "gpus"),
    [
        ({}, {}, "0", None),
        ({"cpu": "500m"}, {}, "0", None),
        ({"cpu": "2500m"}, {"cpu": "8"}, "0-2", None),
        ({}, {"cpu": 4}, "0-3", None),
        ({"cpu": 0}, {}, "0", None),
        ({}, {"nvidia.com/gpu": "1"}, "0", "0"),
        ({"amd.com/gpu": 2, "nvidia.com/gpu": 1}, {"amd.com/gpu": 2, "nvidia.com/gpu": 1}, "0", "0-2"),
        ({}, {"nvidia.com/gpu.shared": "1"}, "0", None),
    ],
)
def test_a_rank_has_its_containers_cores_and_gpus(
    requests: dict[str, Any], limits: dict[str, Any], cores: str, gpus: str | None
) -> None:
    found = rank_resources(Container(resources=Resources(requests, limits)))
    assert (found["cores"], found.get("gpus")) == (cores, gpus)


TABLES = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(TEXT, TABLES, max_size=4))
@settings(max_examples=300)
def test_whatever_is_written_as_toml_is_read_back(document: dict[str, Any]) -> None:
    assert tomllib.loads(toml_text(document)) == document


def test_what_toml_cannot_hold_is_refused() -> None:
    with pytest.raises(TypeError, match="no form in TOML"):
        toml_text({"a": None})


# -- pods


def allowed_by_restricted(spec: dict[str, Any]) -> Iterator[str]:
    """What Kubernetes' restricted pod security standard would object to."""
    if any(spec.get(name) for name in ("hostPID", "hostIPC", "hostNetwork")):
        yield "host namespaces"
    context = spec["securityContext"]
    if context.get("runAsNonRoot") is not True or context.get("runAsUser") == 0:
        yield "root"
    if context["seccompProfile"]["type"] not in ("RuntimeDefault", "Localhost"):
        yield "seccomp"
    for container in [*spec["containers"], *spec.get("initContainers", [])]:
        own = container["securityContext"]
        if own.get("allowPrivilegeEscalation") is not False or own.get("privileged"):
            yield f"{container['name']}: privileges"
        if own["capabilities"].get("drop") != ["ALL"] or set(own["capabilities"].get("add", [])) - {"NET_BIND_SERVICE"}:
            yield f"{container['name']}: capabilities"
    for volume in spec.get("volumes", []):
        if not {"configMap", "csi", "emptyDir", "persistentVolumeClaim", "secret"} & set(volume):
            yield f"volume {volume['name']}"


def test_pods_pass_the_restricted_standard_by_default() -> None:
    sidecar = {"name": "beside", "image": "b", "command": "x"}
    more = {"services": [{"name": "db", "image": "db"}]}
    document = {"containers": [{"runFlux": True}, sidecar], **more}
    made = render_direct(MiniCluster("mc", "ns", parse_spec(document)), PROGRAM, CERTIFICATE)
    pods = [made[0]["spec"]["template"]["spec"], made[-1]["spec"]]
    assert [list(allowed_by_restricted(one)) for one in pods] == [[], []]
    assert all(one["automountServiceAccountToken"] is False for one in pods)


def test_a_specs_security_contexts_are_taken_whole() -> None:
    context = {
        "runAsUser": 0, "fsGroup": 5, "supplementalGroups": [1], "sysctls": [{"name": "a", "value": "b"}],
        "seccompProfile": {"type": "Unconfined"},
    }  # fmt: skip
    assert pod(pod={"securityContext": context})["securityContext"] == {**context, "runAsNonRoot": False}
    given = {"privileged": True, "runAsUser": 0, "readOnlyRootFilesystem": True}
    own = pod({"securityContext": given})["containers"][0]["securityContext"]
    assert own == {**given, "runAsNonRoot": False}, "the API server refuses privileged beside our defaults"
    added = pod({"securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}})["containers"][0]["securityContext"]
    assert added == {"capabilities": {"drop": ["ALL"], "add": ["SYS_ADMIN"]}}


def test_autoscalers_leave_the_pods_where_they_are_unless_the_spec_says_otherwise() -> None:
    template = direct(pod={"annotations": {"karpenter.sh/do-not-disrupt": "false", "a": "b"}})["Job"]["spec"][
        "template"
    ]
    assert template["metadata"]["annotations"] == {
        "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
        "karpenter.sh/do-not-disrupt": "false",
        "a": "b",
    }


def test_a_view_is_copied_by_an_init_container_and_an_image_with_flux_needs_none() -> None:
    given = pod(flux={"container": {"image": "view", "imagePullSecret": "s", "pullAlways": True}})
    [view] = given["initContainers"]
    assert (view["image"], view["imagePullPolicy"], view["command"][-1]) == ("view", "Always", "view")
    assert given["imagePullSecrets"] == [{"name": "s"}]
    mounts = {one["mountPath"]: one for one in given["containers"][0]["volumeMounts"]}
    assert mounts["/opt/software"]["subPath"] == "software" and "/mnt/flux" in mounts
    without = pod(program=None, flux={"container": {"disable": True}})
    assert "initContainers" not in without
    assert "flux-view" not in {one["name"] for one in without["volumes"]}


# -- with and without volumes

OWN_FLUX: dict[str, Any] = {"flux": {"container": {"disable": True}}}


def test_pods_that_need_nothing_else_have_no_volume_and_get_our_files_as_variables() -> None:
    made = direct(**OWN_FLUX)
    given = made["Job"]["spec"]["template"]["spec"]
    [main] = given["containers"]
    assert "volumes" not in given and "volumeMounts" not in main
    found = {one["name"]: one["valueFrom"] for one in main["env"] if "valueFrom" in one}
    del found["FLUXOP_INDEX_FAILURES"]
    config = made["ConfigMap"]["data"]
    assert {
        name: config[value["configMapKeyRef"]["key"]] for name, value in found.items() if name != "FLUXOP_CURVE"
    } == {
        "FLUXOP_ENTRY": ENTRY_SCRIPT,
        "FLUXOP_BROKER": broker_config(cluster(**OWN_FLUX), PROGRAM),
        "FLUXOP_AGENT": base64.b64encode(PROGRAM.agent).decode(),
        "FLUXOP_AGENT_REST": "",
        "FLUXOP_SHELL": PROGRAM.shell_text,
    }
    assert found["FLUXOP_CURVE"] == {"secretKeyRef": {"name": "mc-curve", "key": "curve.cert"}}
    assert "binaryData" not in made["ConfigMap"], "what is no text cannot be a variable"
    assert tomllib.loads(config["broker.toml"])["bootstrap"]["curve_cert"] == UNMOUNTED.certificate
    assert main["command"][:5] == call("broker") and UNMOUNTED.agent_archive in main["command"]


@pytest.mark.parametrize(
    ("container", "more"),
    [
        ({"volumes": {"work": {"claimName": "work", "path": "/work"}}}, OWN_FLUX),
        ({"commands": {"pre": "source /x"}}, OWN_FLUX),
        ({"lifeCycle": {"postStartExec": "true"}}, OWN_FLUX),
        ({"securityContext": {"readOnlyRootFilesystem": True}}, OWN_FLUX),
        ({}, {}),
        ({}, {"flux": {"container": {"disable": True}, "brokerConfig": "#" * 30_000}}),
        ({}, {**OWN_FLUX, "pod": {"runtimeClassName": "gvisor"}}),
        ({"runFlux": True}, {**OWN_FLUX, "containers": [{"runFlux": True}, {"name": "beside", "image": "b"}]}),
    ],
)
def test_pods_that_need_a_volume_or_may_not_write_get_our_files_by_volumes(
    container: dict[str, Any], more: dict[str, Any]
) -> None:
    made = direct(container, **more)
    given = made["Job"]["spec"]["template"]["spec"]
    assert {"flux-state", "flux-curve", "mc-entrypoint"} <= {one["name"] for one in given["volumes"]}
    assert "FLUXOP_ROOT" not in {one["name"] for one in given["containers"][0]["env"]}
    assert list(made["ConfigMap"]["binaryData"]) == ["agent.pyz"]
    assert made["ConfigMap"]["data"]["shell.lua"] == PROGRAM.shell_text


def test_each_of_our_files_fits_into_a_variable_and_the_agent_into_two() -> None:
    """Linux takes 128 KiB as one, with its name; some room is left for what they grow by."""
    program = dataclasses.replace(PROGRAM, agent=agent_archive())
    data = config_map(cluster(**OWN_FLUX), program)["data"]
    for text in (ENTRY_SCRIPT, data["agent.base64"], data["agent.base64.rest"], shell_text()):
        assert len(text) < 110 * 1024
    assert base64.b64decode(data["agent.base64"] + data["agent.base64.rest"]) == program.agent


def test_every_source_of_a_volume_is_rendered() -> None:
    volumes = {
        "claim": {"claimName": "c", "path": "/a", "readOnly": True},
        "host": {"hostPath": "/h", "path": "/b"},
        "secret": {"secretName": "s", "path": "/c"},
        "config": {"configMapName": "m", "path": "/d", "items": {"k": "p"}},
        "csi": {"csiDriver": "d", "csiDriverAttributes": {"a": "b"}, "path": "/e"},
        "scratch": {"emptyDir": True, "emptyDirSizeLimit": "1Gi", "path": "/f"},
        "shm": {"emptyDir": True, "emptyDirMedium": "memory"},
    }
    given = pod({"volumes": volumes})
    assert {one.pop("name"): one for one in copy.deepcopy(given["volumes"]) if one["name"] in volumes} == {
        "claim": {"persistentVolumeClaim": {"claimName": "c"}},
        "host": {"hostPath": {"path": "/h", "type": "Directory"}},
        "secret": {"secret": {"secretName": "s"}},
        "config": {"configMap": {"name": "m", "items": [{"key": "k", "path": "p"}]}},
        "csi": {"csi": {"driver": "d", "volumeAttributes": {"a": "b"}}},
        "scratch": {"emptyDir": {"sizeLimit": "1Gi"}},
        "shm": {"emptyDir": {"medium": "Memory"}},
    }
    mounts = {one["name"]: one for one in given["containers"][0]["volumeMounts"]}
    assert mounts["claim"] == {"name": "claim", "mountPath": "/a", "readOnly": True}
    assert mounts["shm"]["mountPath"] == "/dev/shm"


def test_secrets_of_the_environment_are_references() -> None:
    container = {"environment": {"B": "2", "A": "1"}, "secrets": {"T": {"name": "n", "key": "k"}}}
    env = pod(container, flux={"environment": {"C": "3", "A": "0"}})["containers"][0]["env"]
    assert [one for one in env if len(one["name"]) == 1] == [
        {"name": "A", "value": "1"},
        {"name": "B", "value": "2"},
        {"name": "C", "value": "3"},
        {"name": "T", "valueFrom": {"secretKeyRef": {"name": "n", "key": "k"}}},
    ]


def test_a_sidecar_ends_with_the_brokers_and_its_ports_have_a_service() -> None:
    document = {"containers": [{"runFlux": True, "name": "flux"}, {"name": "web", "image": "nginx", "ports": [80]}]}
    made = render_direct(MiniCluster("mc", "ns", parse_spec(document)), PROGRAM, CERTIFICATE)
    spec = made[0]["spec"]["template"]["spec"]
    sidecar = spec["initContainers"][-1]
    assert (sidecar["name"], sidecar["restartPolicy"]) == ("web", "Always")
    assert "command" not in sidecar, "nothing is given to run, so its image's own entry runs"
    assert [one["name"] for one in spec["containers"]] == ["flux"]
    [service] = [one for one in made if one["metadata"]["name"] == "mc-web"]
    assert service["spec"]["ports"] == [{"name": "port-80", "port": 80, "targetPort": 80, "protocol": "TCP"}]
    assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": "mc"}


def test_services_have_a_pod_that_the_brokers_find_by_name() -> None:
    services = [{"name": "db", "image": "mongo", "ports": [27017]}, {"name": "b", "commands": {"servicePre": "x"}}]
    made = render_direct(cluster(services=services), PROGRAM, CERTIFICATE)
    found = made[-1]
    assert (found["kind"], found["spec"]["hostname"], found["spec"]["subdomain"]) == ("Pod", "mc-services", "mc")
    service = next(one for one in made if one["kind"] == "Service")
    assert service["spec"]["selector"].items() <= found["metadata"]["labels"].items()
    assert [one.get("command", ["-"])[0] for one in found["spec"]["containers"]] == ["-", "/bin/bash"]
    config = next(one for one in made if one["kind"] == "ConfigMap")
    assert config["data"]["2-servicePre"] == "x"


def test_a_minimal_service_names_the_lead_only() -> None:
    spec = direct(flux={"minimalService": True})["Service"]["spec"]
    assert spec["clusterIP"] == "None" and spec["publishNotReadyAddresses"] is True
    assert spec["selector"] == {"job-name": "mc", "batch.kubernetes.io/job-completion-index": "0"}


def test_options_of_pods_are_taken_over() -> None:
    wishes = {
        "dnsPolicy": "Default", "hostIPC": True, "hostPID": True, "nodeSelector": {"a": "b"}, "runtimeClassName": "rc",
        "schedulerName": "fluence", "serviceAccountName": "me", "automountServiceAccountToken": True,
        "tolerations": [{"key": "k", "operator": "Exists"}],
    }  # fmt: skip
    given = pod(pod={**wishes, "nodeAffinity": {"zone": ["a", "b"]}}, shareProcessNamespace=True)
    assert wishes.items() <= given.items()
    assert given["shareProcessNamespace"] is True
    assert given["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] == {
        "nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a", "b"]}]}]
    }
    assert "affinity" not in pod(network={"disableAffinity": True})


@given(DOCUMENTS, st.booleans())
@settings(max_examples=200)
def test_whatever_has_no_problems_is_rendered_with_names_that_fit(document: dict[str, Any], runs: bool) -> None:
    try:
        spec = parse_spec(document)
    except SpecError:
        return
    if direct_problems(spec, program=runs) or name_problems("mc", spec):
        return
    made = render_direct(MiniCluster("mc", "ns", spec), PROGRAM if runs else None, CERTIFICATE)
    json.dumps(made)
    names = [(one["kind"], one["metadata"]["name"]) for one in made]
    assert len(set(names)) == len(names) and all(len(name) <= 63 for _, name in names)
    template = made[0]["spec"]["template"]["spec"]
    volumes = [one["name"] for one in template["volumes"]]
    assert len(set(volumes)) == len(volumes)
    for container in [*template["containers"], *template.get("initContainers", [])]:
        mounts = [one["name"] for one in container.get("volumeMounts", [])]
        assert set(mounts) <= set(volumes)
        variables = [one["name"] for one in container.get("env", [])]
        assert len(set(variables)) == len(variables)


# -- operator mode


def test_the_resource_is_the_users_but_for_what_runs_in_it() -> None:
    container = {
        "batch": True,
        "commands": {"pre": "p", "script": "s"},
        "volumes": {"d": {"claimName": "c", "path": "/d"}},
    }
    given = cluster(container, interactive=True, flux={"curveCert": "x"}, deadlineSeconds=10**6)
    before = copy.deepcopy(given.spec.document)
    holder, resource = render_resource(given, PROGRAM)
    assert given.spec.document == before
    assert (holder["kind"], holder["metadata"]["name"]) == ("ConfigMap", "mc-agent")
    assert base64.b64decode(holder["binaryData"]["agent.pyz"]) == b"zip"
    assert holder["data"] == {"shell.lua": PROGRAM.shell_text}
    spec = resource["spec"]
    assert (resource["apiVersion"], resource["kind"]) == ("flux-framework.org/v1alpha2", "MiniCluster")
    assert (spec["interactive"], spec["deadlineSeconds"], spec["flux"], spec["size"]) == (
        False,
        3601,
        {"curveCert": "x"},
        2,
    )
    made = spec["containers"][0]
    assert made["launcher"] is True and "batch" not in made and made["commands"] == {"pre": "p"}
    assert made["command"] == "flux python /flux_agent/agent.pyz supervise --run 'it'\"'\"'s $HOME'"
    assert made["volumes"]["mc-agent"] == {
        "configMapName": "mc-agent",
        "path": "/flux_agent",
        "items": {"agent.pyz": "agent.pyz", "shell.lua": "shell.lua"},
    }
    assert made["volumes"]["d"] == {"claimName": "c", "path": "/d"}
    assert HASH_ANNOTATION in resource["metadata"]["annotations"]


@given(DOCUMENTS)
def test_the_resource_is_always_a_valid_spec(document: dict[str, Any]) -> None:
    try:
        spec = parse_spec(document)
    except SpecError:
        return
    _, resource = render_resource(MiniCluster("mc", "ns", spec), PROGRAM)
    parse_spec(resource["spec"])
