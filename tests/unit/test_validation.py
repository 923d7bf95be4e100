"""What direct mode refuses, each by name and with a cure; and names that would be too long."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from executors.errors import SpecError
from executors.names import DEFAULT_BUDGET, RunId, run_name
from executors.spec import parse_spec
from executors.validation import LABEL_LIMIT, direct_problems, name_problems, replaced_by_program
from tests.unit.documents import DOCUMENTS


def spec_with(container: dict[str, Any] | None = None, **more: Any) -> Any:
    return parse_spec({"containers": [{"command": "true", **(container or {})}]} | more)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (
            {"flux": {"arch": "arm64"}},
            "minicluster.flux.arch: 'arm64' is not supported in direct mode: direct mode d",
        ),
        (
            {"flux": {"bursting": {"leadBroker": {"address": "a", "name": "b", "size": 1}}}},
            "use the provisioner operator",
        ),
        ({"flux": {"completeWorkers": True}}, "minicluster.flux.completeWorkers: True"),
        ({"flux": {"disableSocket": True}}, "minicluster.flux.disableSocket: True"),
        ({"flux": {"mungeSecret": "munge"}}, "minicluster.flux.mungeSecret: 'munge'"),
        ({"pod": {"resources": {"cpu": 1}}}, "give resources to containers[]"),
        ({"pod": {"restartPolicy": "OnFailure"}}, "minicluster.pod.restartPolicy: 'OnFailure'"),
        ({"flux": {"brokerConfig": "a = ["}}, "minicluster.flux.brokerConfig: is not valid TOML"),
        ({"flux": {"brokerConfig": "bootstrap = 3"}}, "bootstrap must be a table; see flux-config-bootstrap(5)"),
        ({"flux": {"brokerConfig": "[bootstrap]\nhosts = 3"}}, "bootstrap.hosts must be a list"),
        ({"flux": {"brokerConfig": "[resource]\npath = 3"}}, "resource.path must be a string"),
        ({"flux": {"connectTimeout": "soon"}}, "'soon' must be a Flux duration"),
        ({"flux": {"minimalService": True, "topology": "kary:2"}}, "minicluster.flux.topology: 'kary:2'"),
        ({"flux": {"scheduler": {"simple": True, "queuePolicy": "easy"}}}, "leave out one of them"),
        ({"flux": {"optionFlags": "-o 'x"}}, 'minicluster.flux.optionFlags: "-o \'x" cannot be split into words'),
        ({"flux": {"container": {"mountPath": "mnt"}}}, "mountPath: 'mnt' must be an absolute path"),
        (
            {"services": [{"name": "a", "launcher": True}]},
            "minicluster.services[0]: launcher: only the broker's container",
        ),
    ],
)
def test_what_direct_mode_cannot_do_is_refused_by_name(more: dict[str, Any], words: str) -> None:
    found = direct_problems(spec_with(**more), program=False)
    assert len(found) == 1 and words in found[0], found


@pytest.mark.parametrize(
    ("container", "words"),
    [
        ({"command": "echo 'x"}, 'command: "echo \'x" cannot be split into words'),
        ({"commands": {"prefix": '"'}}, "commands.prefix: '\"' cannot be split"),
        ({"command": ""}, "command: is missing, so there is nothing to run"),
        ({"name": "My_App"}, "name: 'My_App' must hold small letters"),
        ({"environment": {"A=B": "x"}}, "'A=B' cannot be the name of an environment variable"),
        ({"commands": {"servicePre": "x"}}, "commands.servicePre: is for services[]"),
        ({"noWrapEntrypoint": True}, "noWrapEntrypoint: is for containers beside the broker's"),
        ({"environment": {"FLUXOP_VIEW": "x"}}, "'FLUXOP_VIEW' is set by us"),
        ({"environment": {"A": ""}, "secrets": {"A": {"name": "n", "key": "k"}}}, "secrets.A: is given in environment"),
        ({"workingDir": "data"}, "workingDir: 'data' must be an absolute path"),
        ({"resources": {"requests": {"cpu": 2}, "limits": {"cpu": "1"}}}, "resources.requests.cpu: 2 must be from 0"),
        ({"volumes": {"data": {"path": "/d"}}}, "volumes.data: has no source; give exactly one of claimName,"),
        ({"volumes": {"d": {"path": "/d", "claimName": "a", "hostPath": "/b"}}}, "has claimName and hostPath"),
        ({"volumes": {"d": {"path": "d", "claimName": "a"}}}, "volumes.d.path: 'd' must be an absolute path"),
        ({"volumes": {"d": {"claimName": "a"}}}, "volumes.d.path: '' must be an absolute path"),
        ({"volumes": {"D": {"path": "/d", "claimName": "a"}}}, "the name 'D' must hold small letters"),
        ({"volumes": {"d": {"path": "/d", "secretName": "a", "items": {"a": "b"}}}}, "give configMapName"),
        ({"volumes": {"d": {"path": "/d", "emptyDir": True, "emptyDirSizeLimit": "x"}}}, "emptyDirSizeLimit: 'x'"),
        ({"volumes": {"d": {"path": "/mnt/flux/", "claimName": "a"}}}, "'/mnt/flux/' is a reserved directory"),
        ({"volumes": {"d": {"path": "//mnt/./flux", "claimName": "a"}}}, "'//mnt/./flux' is a reserved directory"),
        ({"volumes": {"d": {"path": "/run/../flux_operator", "claimName": "a"}}}, "is a reserved directory"),
        ({"volumes": {"d": {"path": "/run/flux_operator/flux", "claimName": "a"}}}, "is a reserved directory"),
        ({"volumes": {"flux-state": {"path": "/d", "claimName": "a"}}}, "the name is reserved"),
    ],
)
def test_what_kubernetes_would_refuse_later_is_refused_now(container: dict[str, Any], words: str) -> None:
    found = direct_problems(spec_with(container), program=False)
    assert len(found) == 1 and words in found[0], found


def test_a_sidecar_has_nothing_that_would_be_left_out_without_a_word() -> None:
    sidecar = {"name": "b", "noWrapEntrypoint": True, "batch": True, "commands": {"workerPre": "x", "pre": "y"}}
    assert direct_problems(parse_spec({"containers": [{"runFlux": True}, sidecar]})) == [
        "minicluster.containers[1]: batch, commands.workerPre: only the broker's container uses this; leave it out",
        "minicluster.containers[1].noWrapEntrypoint: without our entry its commands do not run; "
        "leave out one or the other",
    ]


def test_variables_of_ours_are_refused_for_all_containers_too() -> None:
    spec = parse_spec({"flux": {"environment": {"FLUXOP_CURVE": "x"}}, "containers": [{"command": "true"}]})
    assert direct_problems(spec) == [
        "minicluster.flux.environment: 'FLUXOP_CURVE' is set by us; leave it out",
    ]


def test_one_volume_may_be_in_two_containers_but_not_two_volumes_of_one_name() -> None:
    first = {"runFlux": True, "command": "true", "volumes": {"data": {"claimName": "a", "path": "/a"}}}
    same = {"name": "b", "volumes": {"data": {"claimName": "a", "path": "/b"}}}
    other = {"name": "b", "volumes": {"data": {"claimName": "b", "path": "/b"}}}
    assert direct_problems(parse_spec({"containers": [first, same]})) == []
    [problem] = direct_problems(parse_spec({"containers": [first, other]}))
    assert problem.startswith("minicluster.containers[1].volumes.data: is another volume")


def test_an_agent_takes_the_place_of_a_command_and_says_of_what() -> None:
    spec = spec_with({"batch": True, "logs": "/l"}, tasks=3, interactive=True, flux={"optionFlags": "-o x"})
    assert direct_problems(spec) == []
    assert replaced_by_program(spec) == [
        "minicluster.interactive",
        "minicluster.tasks",
        "minicluster.flux.optionFlags",
        "minicluster.containers[0].command",
        "minicluster.containers[0].batch",
        "minicluster.containers[0].logs",
    ]
    assert direct_problems(spec_with({"command": ""}, interactive=True), program=False) == []


@pytest.mark.parametrize(
    ("name", "more", "words"),
    [
        ("Run", {}, "name: 'Run' must begin with a letter"),
        ("1a", {}, "name: '1a' must begin with a letter"),
        ("a" * 56, {}, f"pod name '{'a' * 56}-0-xxxxx', 64 characters long; 63 are allowed, so shorten the name by 1"),
        ("a" * 50, {"maxSize": 10**7}, "or lower maxSize"),
        ("a" * 55, {"services": [{"name": "s"}]}, "service pod's name"),
        ("a" * 53, {}, "ConfigMap and volume name"),
        ("web", {"containers": [{"runFlux": True}, {"name": "web"}]}, "name: 'web' is the name of a container beside"),
        (
            "ab",
            {"containers": [{"runFlux": True}, {"name": "web", "ports": [1]}], "network": {"headlessName": "ab-web"}},
            "network.headlessName: 'ab-web' is the Service of a container too",
        ),
        ("ab", {"network": {"headlessName": "a.b"}}, "network.headlessName: 'a.b'"),
        (
            "ab",
            {"flux": {"bursting": {"hostlist": "abc-[0-3]"}}},
            "flux.bursting.hostlist: abc-[0-3] does not hold ab-0",
        ),
        ("ab", {"flux": {"brokerConfig": '[bootstrap]\nhosts = [{host = "x-0"}]'}}, "bootstrap.hosts: x-0 does not"),
    ],
)
def test_names_that_would_not_be_legal_are_found(name: str, more: dict[str, Any], words: str) -> None:
    found = name_problems(name, spec_with(**more))
    assert any(words in one for one in found), found


@given(st.text(min_size=1), st.integers(1, 10**5))
def test_the_name_of_a_run_always_fits(run: str, size: int) -> None:
    name = run_name(RunId("snakemake", run))
    assert name_problems(name, spec_with(maxSize=size)) == []
    assert len(name) <= DEFAULT_BUDGET < LABEL_LIMIT


@given(DOCUMENTS, st.text(max_size=70))
def test_validation_never_fails_itself(document: dict[str, Any], name: str) -> None:
    try:
        spec = parse_spec(document)
    except SpecError:
        return
    for problem in [*direct_problems(spec), *direct_problems(spec, program=False), *name_problems(name, spec)]:
        assert isinstance(problem, str) and ": " in problem
