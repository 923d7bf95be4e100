"""MiniCluster specs: every problem at once, nothing lost, and one description for validation and JSON Schema."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import is_dataclass
from fractions import Fraction
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executors.described import described
from executors.errors import SpecError
from executors.schema import Type, json_schema, quantity, shape_problems
from executors.spec import DEFAULT_IMAGE, SPEC, default_document, parse_spec
from tests.unit.documents import ANYTHING, DOCUMENTS, paths, with_value

#: Compiled once: building it costs more than using it.
SCHEMA = jsonschema.Draft202012Validator(json_schema(SPEC))


def problems_of(document: dict[str, Any]) -> list[str]:
    try:
        parse_spec(document)
    except SpecError as err:
        return list(err.problems)
    return []


def test_every_problem_is_said_at_once_with_field_value_and_what_is_allowed() -> None:
    document = {
        "size": 4,
        "maxSize": "8",
        "conatiners": [],
        "containers": [
            {"image": 3, "ports": [0], "resources": {"limits": {"cpu": 1.5, "memory": "4 GB"}}, "runflux": True},
        ],
        "volumes": {"data": {}},
        "flux": None,
        "pod": {"restartPolicy": "Sometimes", "tolerations": {}, "labels": {1: "a"}},
    }
    assert problems_of(document) == [
        "minicluster.maxSize: '8' must be a whole number >= 1",
        "minicluster.conatiners: is not known; did you mean containers?",
        "minicluster.containers[0].image: 3 must be a string (without null bytes); put it in quotes",
        "minicluster.containers[0].ports[0]: 0 must be a whole number 1 to 65535",
        "minicluster.containers[0].resources.limits.cpu: 1.5 must be a quantity such as 2, 500m or 4Gi; "
        "put it in quotes",
        "minicluster.containers[0].resources.limits.memory: '4 GB' must be a quantity such as 2, 500m or 4Gi",
        "minicluster.containers[0].runflux: is not known; did you mean runFlux?",
        "minicluster.volumes: is not known here; did you mean containers[].volumes?",
        "minicluster.flux: is empty (null); give a mapping, or leave the field out",
        "minicluster.pod.restartPolicy: 'Sometimes' must be Never, OnFailure or Always",
        "minicluster.pod.tolerations: {} must be a list",
        "minicluster.pod.labels: the name 1 must be a string; put it in quotes",
    ]


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({}, "spec.containers: is missing; give a list"),
        ([], "spec: [] must be a mapping"),
        ({"containers": []}, "spec.containers: [] is empty; give one container"),
        ({"containers": [{}], "size": 4, "maxSize": 2}, "spec.maxSize: 2 is less than size 4"),
        ({"containers": [{}], "size": 4, "minSize": 5}, "spec.minSize: 5 is more than"),
        ({"containers": [{}, {"name": "b"}]}, "0 of 2 have runFlux: true"),
        ({"containers": [{"runFlux": True}, {}]}, "spec.containers[1].name: is missing"),
        ({"containers": [{"name": "a", "runFlux": True}, {"name": "a"}]}, "spec.containers[1].name: 'a' is used twice"),
        ({"containers": [{"batch": True, "launcher": True}]}, "batch and launcher exclude each other"),
        ({"containers": [{}], "services": [{}]}, "spec.services[0].name: is missing"),
        ({"containers": [{"secrets": {"A": {"key": "k"}}}]}, "spec.containers[0].secrets.A.name: is missing"),
        ({"containers": [{"environment": {"A": 1}}]}, "environment.A: a value of type int must be a string"),
    ],
)
def test_a_problem_names_field_value_and_cure(document: Any, words: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_spec(document, "spec")
    assert any(words in problem for problem in caught.value.problems), caught.value


def test_a_secret_is_not_shown_in_a_problem() -> None:
    document = {"containers": [{"environment": {"TOKEN": ["sesame"]}}], "flux": {"curveCert": {"sesame": 1}}}
    assert len(problems_of(document)) == 2
    assert "sesame" not in " ".join(problems_of(document))
    kept = parse_spec({"containers": [{"environment": {"A": "sesame"}}], "flux": {"curveCert": "sesame", "wrap": "a"}})
    assert "sesame" not in repr(kept)
    assert kept.public_document == {"containers": [{"environment": {"A": "sesame"}}], "flux": {"wrap": "a"}}


def test_defaults_hold_where_nothing_is_given() -> None:
    spec = parse_spec({"containers": [{}]})
    assert (spec.size, spec.max_size, spec.tasks, spec.min_size) == (1, 1, 1, None)
    assert spec.flux.container.mount_path == "/mnt/flux" and not spec.flux.container.disable
    assert spec.flux_container.image_pull_policy == "IfNotPresent"
    assert parse_spec({"containers": [{"pullAlways": True}]}).flux_container.image_pull_policy == "Always"


def test_the_default_spec_is_valid_and_has_flux() -> None:
    spec = parse_spec(default_document(3))
    assert spec.size == 3 and spec.flux.container.disable
    assert spec.flux_container.image == DEFAULT_IMAGE


@given(DOCUMENTS)
def test_what_the_table_allows_has_no_problem_of_shape_and_is_kept_word_for_word(document: dict[str, Any]) -> None:
    assert shape_problems(document, "spec", SPEC) == []
    before = copy.deepcopy(document)
    try:
        spec = parse_spec(document)
    except SpecError:
        return  # a rule between fields
    assert document == before
    assert spec.document == before
    assert parse_spec(spec.document) == spec


@given(DOCUMENTS, ANYTHING, st.data())
@settings(max_examples=300)
def test_json_schema_and_validation_agree(document: Any, other: Any, data: st.DataObject) -> None:
    changed = with_value(document, data.draw(st.sampled_from(paths(document))), other)
    found = shape_problems(changed, "spec", SPEC)
    assert all(isinstance(problem, str) and problem.startswith("spec") for problem in found)
    assert (found == []) == SCHEMA.is_valid(changed)


@pytest.mark.parametrize(
    ("text", "number"),
    [("2", 2), (2, 2), ("500m", Fraction(1, 2)), ("4Gi", 4 << 30), ("1k", 1000), ("1.5", Fraction(3, 2)), (".5", 0.5),
     ("2.", 2), ("1e3", 1000), ("1E-1", Fraction(1, 10)), ("1E", 10**18), ("10n", Fraction(1, 10**8)), ("-1Ki", -1024)],
)  # fmt: skip
def test_quantities_are_kubernetes_own(text: str | int, number: Fraction) -> None:
    assert quantity(text) == number


@pytest.mark.parametrize("text", ["", "m", "1 Gi", "1gi", "0x1", "1e", "½", "1\n", "1e999"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        quantity(text)
    assert shape_problems(text, "cpu", SPEC.fields["pod"].fields["resources"].item or SPEC)


# -- the typed spec


def _typed(part: Any, kind: Type, path: str = "") -> Iterator[tuple[str, Any, Type | None]]:
    """Every field of a typed part: its path, its value, and the spec's type for it."""
    for one in described(type(part)):
        inner: Type | None = kind
        for name in one.path:
            inner = inner.fields.get(name) if inner is not None else None
        place = ".".join(one.path)
        default = getattr(part, one.name)
        yield f"{path}{place}", default, inner
        if is_dataclass(default) and inner is not None:
            yield from _typed(default, inner, f"{path}{place}.")


def test_every_field_of_the_typed_spec_stands_in_its_type_with_its_default() -> None:
    spec = parse_spec({"containers": [{}]})
    container = SPEC.fields["containers"].item
    assert container is not None
    typed = [*_typed(spec, SPEC), *_typed(spec.containers[0], container, "containers.")]
    assert [path for path, _, kind in typed if kind is None] == []
    # What is not given is empty in the typed spec, where the default is not the document's but who renders it.
    different = {
        path: (default, kind.run_default)
        for path, default, kind in typed
        if kind is not None and default not in ("", None, (), {}) and kind.run_default is not None
        if default != kind.run_default
    }
    assert different == {}


def test_what_is_given_arrives_in_the_typed_spec_wherever_it_stands() -> None:
    document = {
        "archive": {"path": "/a"},
        "network": {"headlessName": "net", "disableAffinity": True},
        "flux": {
            "bursting": {"hostlist": "b[0-1]", "clusters": [{"name": "b", "size": 2}]},
            "scheduler": {"queuePolicy": "fcfs", "simple": True},
            "container": {"mountPath": "/view"},
        },
        "pod": {"hostIPC": True, "hostPID": True, "tolerations": [{"key": "k"}]},
        "containers": [
            {
                "lifeCycle": {"postStartExec": "up", "preStopExec": "down"},
                "batchRaw": True,
                "ports": [80],
                "secrets": {"A": {"name": "s", "key": "k"}},
                "volumes": {"data": {"claimName": "c", "path": "/data"}},
                "commands": {"workerPre": "w"},
                "resources": {"limits": {"cpu": 2}},
            }
        ],
    }
    spec = parse_spec(document)
    [container] = spec.containers
    assert (spec.archive_path, spec.headless_name, spec.disable_affinity) == ("/a", "net", True)
    assert (spec.flux.burst_hostlist, spec.flux.burst_clusters[0].size) == ("b[0-1]", 2)
    flux = spec.flux
    assert (flux.queue_policy, flux.simple_scheduler, flux.container.mount_path) == (
        "fcfs",
        True,
        "/view",
    )
    assert (spec.pod.host_ipc, spec.pod.host_pid, spec.pod.tolerations) == (True, True, ({"key": "k"},))
    assert (container.post_start, container.pre_stop, container.batch, container.batch_raw) == (
        "up",
        "down",
        True,
        True,
    )
    assert (container.ports, container.secrets) == ((80,), {"A": ("s", "k")})
    assert (container.volumes[0].name, container.volumes[0].claim_name) == ("data", "c")
    assert (container.commands.worker_pre, container.resources.limits) == ("w", {"cpu": 2})
