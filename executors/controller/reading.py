"""A MiniCluster resource as what is rendered, or all that is wrong with it. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from executors.errors import SpecError
from executors.schema import Type
from executors.spec import SPEC, MiniClusterSpec, parse_spec
from executors.validation import name_problems, resource_problems

Object = Mapping[str, Any]

#: Numbers that mean "not given" where they are 0, as upstream takes them.
_ZERO_IS_NOTHING = ("maxSize", "minSize", "backoffLimit", "deadlineSeconds")
#: Of what is recorded: to be raised when digests are made otherwise.
_FORM = 1
#: Hex digits of a field's digest.
_DIGITS = 8


class Refused(Exception):
    """The spec cannot be honoured. ``problems``: all of them, each with field, value and cure."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def read(resource: Object) -> MiniClusterSpec:
    """The spec of a MiniCluster. Raises Refused."""
    document = without_nothing(resource.get("spec") or {})
    name = resource["metadata"]["name"]
    try:
        spec = parse_spec(document, "spec")
    except SpecError as err:
        raise Refused(list(err.problems)) from None
    problems = [*resource_problems(spec), *_names(name, spec)]
    if problems:
        raise Refused(problems)
    return spec


def _names(name: str, spec: MiniClusterSpec) -> list[str]:
    return [f"metadata.{one}" if one.startswith("name:") else f"spec.{one}" for one in name_problems(name, spec)]


def without_nothing(document: Object) -> dict[str, Any]:
    """The document without fields that say nothing: nulls, and empty texts where Kubernetes knows a few words only."""

    def nothing(value: Any, _rest: Any, kind: Type | None) -> bool:
        return value is None or (value == "" and kind is not None and bool(kind.choices))

    made: dict[str, Any] = _without(document, SPEC, nothing)
    for name in _ZERO_IS_NOTHING:
        if made.get(name) == 0:
            del made[name]
    return made


def _without_defaults(document: Object) -> dict[str, Any]:
    """The same without what the CRD would fill in, and without mappings that then say nothing."""

    def default(value: Any, rest: Any, kind: Type | None) -> bool:
        return rest == {} or (kind is not None and kind.default is not None and value == kind.default)

    made: dict[str, Any] = _without(without_nothing(document), SPEC, default)
    return made


def _without(value: Any, kind: Type | None, dropped: Callable[[Any, Any, Type | None], bool]) -> Any:
    """The value without the fields, at any depth, that are ``dropped``: by what they are, what of it is left, and
    their type."""
    if isinstance(value, Mapping):
        made = {}
        for name, inner in value.items():
            below = (kind.item or kind.fields.get(name)) if kind is not None else None
            rest = _without(inner, below, dropped)
            if not dropped(inner, rest, below):
                made[name] = rest
        return made
    if isinstance(value, list):
        return [_without(inner, kind.item if kind is not None else None, dropped) for inner in value]
    return value


def record(resource: Object) -> str:
    """What is written down of a spec when its Job is made: a digest of each field, so that no secret is in it."""
    made = {"form": _FORM, "fields": _digests(resource)}
    return json.dumps(made, sort_keys=True, separators=(",", ":"))


def changes(recorded: str, resource: Object) -> list[str]:
    """Fields that differ from what was written down; size, which may change, is none of them. [] for a record that
    cannot be read: it is another release's."""
    try:
        before = json.loads(recorded)
    except ValueError:
        return []
    if not isinstance(before, dict) or before.get("form") != _FORM or not isinstance(before.get("fields"), dict):
        return []
    then, now = before["fields"], _digests(resource)
    return sorted(name for name in then.keys() | now.keys() if then.get(name) != now.get(name))


def _digests(resource: Object) -> dict[str, str]:
    # Without defaults: those that another release's CRD has the API server fill in are nobody's change.
    document = _without_defaults(resource.get("spec") or {})
    # What may change while it lives, or concerns its end only.
    rest = {name: value for name, value in document.items() if name not in ("size", "cleanup")}
    found: dict[str, str] = {}
    for name, value in rest.items():
        if name in ("containers", "services"):
            for at, container in enumerate(value):
                found |= {f"{name}[{at}].{inner}": _digest(one) for inner, one in container.items()}
        elif isinstance(value, dict):
            found |= {f"{name}.{inner}": _digest(one) for inner, one in value.items()}
        else:
            found[name] = _digest(value)
    return found


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS]
