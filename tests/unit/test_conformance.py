"""Direct mode makes what upstream's operator makes, but for what docs/differences.md says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from executors.errors import SpecError
from executors.render import MiniCluster, render_direct
from executors.schema import Type
from executors.spec import SPEC, parse_spec
from executors.validation import NOT_IN_DIRECT_MODE, direct_problems
from tests.support.upstream import crd_spec, flat, miniclusters, rendered

DIFFERENCES = Path(__file__).parents[2] / "docs" / "differences.md"
_ABSENT = "-"

#: What the API server itself puts into objects that say nothing of it.
_API_DEFAULTS = {
    "Job spec.manualSelector": "False",
    "Job spec.suspend": "False",
    "* *.dnsPolicy": "ClusterFirst",
    "* *.schedulerName": "default-scheduler",
    "* *.setHostnameAsFQDN": "False",
    "* *.lifecycle": "{}",
    "* *.terminationMessagePath": "/dev/termination-log",
    "* *.terminationMessagePolicy": "File",
    "* *.securityContext": "{}",
    "* *.defaultMode": "420",
    "* *metadata.labels.job-name": "NAME",
    "* *metadata.labels.batch.kubernetes.io/job-name": "NAME",
    "Service *.internalTrafficPolicy": "Cluster",
    "Service *.sessionAffinity": "None",
    "Service *.type": "ClusterIP",
    "Pod spec.enableServiceLinks": "True",
    "Pod spec.preemptionPolicy": "PreemptLowerPriority",
    "Pod spec.priority": "0",
    "Pod spec.tolerations*": "*",
}


@dataclass(frozen=True)
class Row:
    place: str
    upstream: str
    ours: str
    why: str

    def covers(self, place: str, upstream: str, ours: str) -> bool:
        return _matches(self.place, place) and _fits(self.upstream, upstream) and _fits(self.ours, ours)


def _fits(said: str, value: str) -> bool:
    return value != _ABSENT if said == "*" else said == value


@cache
def _pattern(glob: str) -> re.Pattern[str]:
    return re.compile(re.escape(glob).replace(r"\*", ".*") + r"\Z")


def _matches(glob: str, text: str) -> bool:
    return _pattern(glob).match(text) is not None


def rows() -> list[Row]:
    """The tables of the document."""
    found = []
    for line in DIFFERENCES.read_text().splitlines():
        if line.startswith("| `"):
            cells = [cell.strip() for cell in line.strip("| ").split(" | ")]
            place, upstream, ours, why = cells
            found.append(Row(place.strip("`"), upstream.strip("`"), ours.strip("`"), why))
    return found


def places(objects: list[dict[str, Any]], name: str, namespace: str) -> dict[str, str]:
    """Every value of all objects, by kind and path; the MiniCluster's name and namespace are NAME and NS."""
    found = {}
    for one in objects:
        kind = one["kind"]
        own_name = one["metadata"]["name"]
        if kind == "Secret":
            kind = f"Secret {own_name}"
        elif kind == "Service" and own_name != name:
            kind = "Service of a sidecar"  # no example has two
        for path, value in flat(one):
            text = f"{kind} {path}".replace(name, "NAME")
            found[text] = str(value).replace(name, "NAME").replace(namespace, "NS")
    return found


def upstreams(objects: list[dict[str, Any]], name: str, namespace: str) -> dict[str, str]:
    found = places(objects, name, namespace)
    return {place: value for place, value in found.items() if not _is_default(place, value)}


def _is_default(place: str, value: str) -> bool:
    return any(_matches(glob, place) and said in (value, "*") for glob, said in _API_DEFAULTS.items())


def mine(document: dict[str, Any], name: str, namespace: str) -> dict[str, str]:
    """Ours, without an API server's defaults where we write them down, and sidecars among the containers."""
    made = render_direct(MiniCluster(name, namespace, parse_spec(document)), None, "certificate")
    pod = made[0]["spec"]["template"]["spec"]
    beside = [one for one in pod.get("initContainers", []) if one.get("restartPolicy")]
    pod["initContainers"] = [one for one in pod.get("initContainers", []) if one not in beside]
    pod["containers"] += beside
    if not pod["initContainers"]:
        del pod["initContainers"]
    found = places(made, name, namespace)
    return {place: value for place, value in found.items() if not _is_default(place, value)}


@cache
def differences() -> list[tuple[str, str, str, str]]:
    """Example, place, upstream's value, ours."""
    return list(_differences())


def _differences() -> Iterator[tuple[str, str, str, str]]:
    given = miniclusters()
    for example, objects in rendered().items():
        document = given[example]
        name, namespace = document["metadata"]["name"], objects[0]["metadata"]["namespace"]
        theirs, ours = upstreams(objects, name, namespace), mine(document["spec"], name, namespace)
        for place in sorted(theirs.keys() | ours.keys()):
            pair = theirs.get(place, _ABSENT), ours.get(place, _ABSENT)
            if pair[0] != pair[1]:
                yield example, place, *pair


def test_the_same_objects_are_made_but_for_the_documented_differences() -> None:
    known = rows()
    unknown = [
        f"{example}: {place}: upstream {theirs}, here {ours}"
        for example, place, theirs, ours in differences()
        if not any(row.covers(place, theirs, ours) for row in known)
    ]
    assert unknown == []


def test_every_documented_difference_is_one_and_has_a_reason() -> None:
    found = differences()
    unused = [row for row in rows() if not any(row.covers(*one[1:]) for one in found)]
    assert unused == []
    assert all(len(row.why) > 5 for row in rows())


def test_only_what_upstream_does_not_make_either_is_refused() -> None:
    refused = set()
    unknown: set[str] = set()
    for example, document in miniclusters().items():
        try:
            spec = parse_spec(document["spec"])
        except SpecError as err:
            refused.add(example)
            unknown |= set(err.problems)
            continue
        assert spec.document == document["spec"], "word for word"
        if direct_problems(spec, program=False):
            refused.add(example)
    assert refused == set(miniclusters()) - set(rendered())
    assert unknown == {"minicluster.volumes: is not known here; did you mean containers[].volumes?"}


def test_the_fields_that_are_refused_are_in_the_document() -> None:
    text = " ".join(DIFFERENCES.read_text().split()).split("refused by name: ")[1]
    said = set(re.findall(r"`([a-zA-Z.]+)`", text))
    assert said == {".".join(path) for path in NOT_IN_DIRECT_MODE} | {"pod.restartPolicy"}


# -- the schema


def from_crd(schema: dict[str, Any], required: bool = False) -> dict[str, Any]:
    """What our table says of a type too: kind, default, whether it is required, and what is in it."""
    kind = schema.get("type", "quantity" if schema.get("x-kubernetes-int-or-string") else "?")
    inner: dict[str, Any] = {}
    if kind == "object" and "additionalProperties" in schema:
        kind, inner = "map", {"*": from_crd(schema["additionalProperties"])}
    elif kind == "array":
        kind, inner = "list", {"*": from_crd(schema["items"])}
    else:
        needed = schema.get("required", [])
        inner = {name: from_crd(one, name in needed) for name, one in schema.get("properties", {}).items()}
    return {"kind": kind, "default": schema.get("default"), "required": required, **inner}


def from_table(kind: Type) -> dict[str, Any]:
    inner = {name: from_table(one) for name, one in kind.fields.items()}
    if kind.item is not None:
        inner = {"*": from_table(kind.item)}
    return {"kind": kind.kind, "default": kind.default, "required": kind.required, **inner}


def test_the_table_has_every_field_of_the_crd_and_no_other() -> None:
    crd, table = dict(flat(from_crd(crd_spec()))), dict(flat(from_table(SPEC)))
    assert {place: value for place, value in crd.items() if table.get(place) != value} == {}
    assert set(table) == set(crd)


@pytest.mark.parametrize("example", ["tests__hello-world__minicluster", "interactive__minicluster-persistent"])
def test_the_comparison_itself_would_find_a_difference(example: str) -> None:
    objects, document = rendered()[example], miniclusters()[example]
    name, namespace = document["metadata"]["name"], objects[0]["metadata"]["namespace"]
    theirs = upstreams(objects, name, namespace)
    changed = mine({**document["spec"], "size": 3}, name, namespace)
    assert (theirs["Job spec.completions"], changed["Job spec.completions"]) != ("3", "3")
    assert not any(row.covers("Job spec.completions", "4", "3") for row in rows())
