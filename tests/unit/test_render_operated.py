"""What our Flux Operator makes of a MiniCluster: what upstream's users rely on, and who owns it."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import pytest

from executors.render import MiniCluster, Profile, render_operated
from executors.render.entry import ENTRY_SCRIPT
from executors.render.places import CARRIED
from executors.spec import parse_spec
from executors.validation import NOT_BY_OUR_OPERATOR, resource_problems
from tests.support.upstream import miniclusters, rendered

RESOURCE = Profile(of_resource=True, restricted=False)


def made(document: dict[str, Any], *, restricted: bool = False) -> dict[str, Any]:
    """Objects by kind (the last one of each)."""
    cluster = MiniCluster("mc", "science", parse_spec(document), profile=Profile(True, restricted))
    return {one["kind"]: one for one in render_operated(cluster, "certificate", "u-1")}


def document(container: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"size": 2, "containers": [{"image": "app", "command": "hostname", **(container or {})}], **more}


def main(objects: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = objects["Job"]["spec"]["template"]["spec"]["containers"][0]
    return found


def submitted(**more: Any) -> str:
    words = main(made(document(**more)))["command"]
    return " ".join(words[words.index("run") :])


def test_the_job_comes_last_and_everything_has_the_resource_as_its_controller() -> None:
    cluster = MiniCluster("mc", "science", parse_spec(document(services=[{"name": "db"}])), profile=RESOURCE)
    objects = render_operated(cluster, "certificate", "u-1")
    assert [one["kind"] for one in objects] == ["Secret", "ConfigMap", "Service", "Pod", "Job"]
    for one in objects:
        [owner] = one["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["name"], owner["uid"], owner["controller"]) == ("MiniCluster", "mc", "u-1", True)


@pytest.mark.parametrize(
    ("size", "tasks", "words"),
    [(4, 1, "run -n 1 "), (2, 2, "run -N 2 -n 2 "), (2, 5, "run -N 2 -n 5 "), (3, 0, "run -N 3 -o ")],
)
def test_tasks_are_upstreams_tasks(size: int, tasks: int, words: str) -> None:
    options = {"optionFlags": "-o verbose=1"} if tasks else {}
    assert submitted(size=size, tasks=tasks, flux=options).startswith(words)


_ON_NODES = ["node", "slot", "core"]


@pytest.mark.parametrize(
    ("size", "tasks", "when", "kinds"),
    [
        (4, 1, "held", ["slot", "core"]),
        (2, 2, "now", ["node", "slot", "core"]),
        (2, 5, "now", ["node", "slot", "core"]),
    ],
)
def test_a_job_of_all_pods_waits_in_fluxs_queue_and_another_is_held(
    size: int, tasks: int, when: str, kinds: list[str]
) -> None:
    container = main(made(document(size=size, tasks=tasks, flux={"container": {"disable": True}})))
    words = ["now", str(size)] if when == "now" else [when]
    at = container["command"].index(CARRIED.entry)
    assert container["command"][at:] == [CARRIED.entry, "job", *words]
    [text] = [one["value"] for one in container["env"] if one["name"] == "FLUXOP_JOB"]
    resource, found = json.loads(text)["resources"][0], []
    while True:
        found.append(resource["type"])
        if "with" not in resource:
            break
        [resource] = resource["with"]
    assert found == kinds
    # The broker waits for itself only; that the instance runs is said when all are there.
    assert "-Sbroker.quorum=1" in container["command"]
    assert {"name": "FLUXOP_QUORUM", "value": str(size)} in container["env"]


@pytest.mark.parametrize(
    "more",
    [
        {"container": {"launcher": True}},
        {"container": {"command": ""}},
        {"container": {"batch": True}},
        {"container": {"batch": True, "batchRaw": True}},
        {"interactive": True},
        {"archive": {"path": "/data/state"}},
        {"flux": {"submitCommand": "flux submit"}},
        {"flux": {"optionFlags": "-o exit-timeout=none"}},
        {"tasks": 0},
    ],
    ids=lambda more: "-".join(f"{key}-{value}" for key, value in more.items()),
)
def test_whatever_else_the_lead_runs_begins_with_its_quorum(more: dict[str, Any]) -> None:
    container = main(made(document(more.pop("container", {}), **more)))
    assert "-Sbroker.quorum=2" in container["command"]
    assert "FLUXOP_QUORUM" not in [one["name"] for one in container["env"]]


def test_kubernetes_replaces_nothing_in_a_commands_job() -> None:
    [text] = [one["value"] for one in main(made(document({"command": "echo $$ $(hostname)"})))["env"]
              if one["name"] == "FLUXOP_JOB"]  # fmt: skip
    assert "$" not in text.replace("$$", ""), "$$ is what it makes a $ of"
    assert json.loads(text.replace("$$", "$"))["tasks"][0]["command"] == ["sh", "-c", "echo $$ $(hostname)"]
    long = main(made(document({"command": "echo " + "x" * 30_000})))
    assert "FLUXOP_JOB" not in [one["name"] for one in long["env"]], "a variable has its limits"


def test_a_start_asks_the_api_server_for_no_volume() -> None:
    objects = made(document({"volumes": {"out": {"hostPath": "/x", "path": "/out"}}},
                            flux={"container": {"disable": True}}))  # fmt: skip
    pod = objects["Job"]["spec"]["template"]["spec"]
    assert not [one for one in pod["volumes"] if "secret" in one or "configMap" in one]
    sources = {one["name"]: one["valueFrom"] for one in main(objects)["env"] if "valueFrom" in one}
    assert sources["FLUXOP_CURVE"] == {"secretKeyRef": {"name": "mc-curve", "key": "curve.cert"}}
    assert not {"FLUXOP_AGENT", "FLUXOP_SHELL"} & set(sources)


@pytest.mark.parametrize(
    "container",
    [
        {"commands": {"pre": "x=1"}},
        {"commands": {"script": "true"}},
        {"lifeCycle": {"postStartExec": "true"}},
        {"batch": True},
    ],
)
def test_what_reads_files_of_ours_or_starts_before_them_has_them_mounted(container: dict[str, Any]) -> None:
    objects = made(document(container, flux={"container": {"disable": True}}))
    pod = objects["Job"]["spec"]["template"]["spec"]
    assert [one for one in pod["volumes"] if "secret" in one], "nobody else sees the certificate's variable"
    assert "FLUXOP_CURVE" not in [one["name"] for one in main(objects)["env"]]


def test_the_scheduler_is_fluxs_own_choice_as_with_upstream() -> None:
    def modules(**flux: Any) -> Any:
        return tomllib.loads(made(document(flux=flux))["ConfigMap"]["data"]["broker.toml"]).get("modules")

    assert modules() is None
    assert modules(scheduler={"simple": True}) == {"alternatives": {"sched": "sched-simple"}}


def test_a_rank_has_the_cores_that_the_tasks_need_where_the_container_asks_for_none() -> None:
    def cores(**container: Any) -> str:
        config = made(document(container, tasks=5))["ConfigMap"]["data"]["broker.toml"]
        return str(tomllib.loads(config)["resource"]["config"][0]["cores"])

    assert cores() == "0-2"
    assert cores(resources={"requests": {"cpu": "1"}}) == "0"


def test_pods_have_the_labels_by_which_people_and_autoscalers_find_them() -> None:
    objects = made(document(services=[{"name": "db"}]))
    expected = {"app": "flux-operator", "namespace": "science", "app.kubernetes.io/name": "mc"}
    pod = objects["Job"]["spec"]["template"]["metadata"]["labels"]
    assert {**expected, "hpa-selector": "mc"}.items() <= pod.items()
    services = objects["Pod"]["metadata"]["labels"]
    assert {**expected, "job-index": "services", "job-name": "mc"}.items() <= services.items()
    assert "hpa-selector" not in services, "an autoscaler would count it"
    managed = {one["metadata"]["labels"]["app.kubernetes.io/managed-by"] for one in objects.values()}
    assert managed == {"flux-operator-executors-controller"}, "no run's client may take it for a run's"


def test_names_are_upstreams() -> None:
    beside = {"name": "web", "image": "nginx", "ports": [80]}
    broker = {"name": "other", "image": "app", "command": "hostname", "runFlux": True}
    objects = made({"size": 1, "containers": [broker, beside]})
    assert main(objects)["name"] == "mc"
    assert objects["Service"]["metadata"]["name"] == "web"
    assert objects["Secret"]["metadata"]["name"] == "mc-curve"


def test_the_images_own_user_runs_unless_the_namespace_asks_for_more() -> None:
    def contexts(objects: dict[str, Any]) -> tuple[Any, Any]:
        return objects["Job"]["spec"]["template"]["spec"]["securityContext"], main(objects)["securityContext"]

    assert contexts(made(document())) == ({}, {})
    pod, container = contexts(made(document(), restricted=True))
    assert pod["runAsNonRoot"] is True and container["capabilities"] == {"drop": ["ALL"]}


def test_the_place_of_upstreams_files_is_there_with_a_view_and_without() -> None:
    for disable in (True, False):
        container = main(made(document(flux={"container": {"disable": disable}})))
        assert "/mnt/flux" in [one["mountPath"] for one in container["volumeMounts"]]
        assert {"name": "FLUXOP_SHARED", "value": "/mnt/flux"} in container["env"]
    taken = main(made(document({"volumes": {"mine": {"hostPath": "/x", "path": "/mnt/flux"}}},
                               flux={"container": {"disable": True}})))  # fmt: skip
    assert [one["name"] for one in taken["volumeMounts"] if one["mountPath"] == "/mnt/flux"] == ["mine"]
    assert all(
        name in ENTRY_SCRIPT for name in ("flux-view.sh", "flux-connect.sh", "load-fluxion.sh", "flux-resize.sh")
    )


def test_the_resource_goes_by_itself_and_not_by_the_jobs_time_to_live() -> None:
    assert "ttlSecondsAfterFinished" not in made(document(cleanup=True))["Job"]["spec"]


def test_readiness_is_the_brokers_and_a_resource_without_a_command_is_interactive() -> None:
    container = main(made(document({"command": ""})))
    assert container["startupProbe"]["exec"]["command"][-1] == "ready"
    # A pod that has come up is left alone, and one that waits for other brokers is never ended for that.
    assert "readinessProbe" not in container and "livenessProbe" not in container
    assert container["startupProbe"]["failureThreshold"] == 2**31 - 1
    assert "-Sbroker.rc2_none=1" in container["command"]


def test_only_a_command_that_may_leave_jobs_behind_has_flux_look_for_them() -> None:
    def skips(**container: Any) -> bool:
        return {"name": "FLUX_DISABLE_JOB_CLEANUP", "value": "1"} in main(made(document(container)))["env"]

    assert skips() and skips(batch=True)
    assert not skips(launcher=True) and not skips(command="")


def test_the_default_of_the_crd_is_nobodys_choice() -> None:
    assert "-Stbon.connect_timeout=1s" in main(made(document(flux={"connectTimeout": "5s"})))["command"]
    assert "-Stbon.connect_timeout=7s" in main(made(document(flux={"connectTimeout": "7s"})))["command"]


def test_what_is_not_honoured_is_refused_by_name() -> None:
    given: dict[tuple[str, ...], Any] = {
        ("flux", "bursting", "leadBroker"): {"address": "a", "name": "n", "size": 1},
        ("pod", "resources"): {"cpu": "1"},
    }
    assert set(given) == set(NOT_BY_OUR_OPERATOR)
    for field, value in given.items():
        for name in reversed(field):
            value = {name: value}
        [problem] = resource_problems(parse_spec(document(**value)))
        assert problem.startswith(f"spec.{'.'.join(field)}: ")
    honoured = {"arch": "arm", "completeWorkers": True, "disableSocket": True}
    assert resource_problems(parse_spec(document(flux=honoured))) == []


def test_a_munge_key_is_where_munged_looks_for_it() -> None:
    for container in ({}, {"commands": {"pre": "munged"}}):
        objects = made(document(container, flux={"mungeSecret": "key", "container": {"disable": True}}))
        volumes = {one["name"]: one for one in objects["Job"]["spec"]["template"]["spec"]["volumes"]}
        [mount] = [one for one in main(objects)["volumeMounts"] if one["mountPath"] == "/etc/munge"]
        assert volumes[mount["name"]]["secret"]["secretName"] == "key" and mount["readOnly"]


def test_every_example_that_upstream_makes_a_job_of_is_made_here() -> None:
    given = miniclusters()
    for example in rendered():
        spec = parse_spec(given[example]["spec"])
        assert resource_problems(spec) == [], example
        cluster = MiniCluster(given[example]["metadata"]["name"], "ns", spec, profile=RESOURCE)
        assert render_operated(cluster, "certificate", "u")[-1]["kind"] == "Job"
