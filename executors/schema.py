"""Types of documents, from which their validation and the JSON Schema follow; quantities. Pure.

Values are held to what Kubernetes itself takes later (``choices``, ranges), so that a mistake is said before anything
is created. What must not live here: the MiniCluster's spec (`executors.spec`), rules between fields, and what direct
mode can do (`executors.validation`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fractions import Fraction  # brings decimal, for a function that a command line does not need

JSONValue = Any  # a JSON value; see executors.job

#: The group of upstream's resource, and its version that is spoken here.
MINICLUSTER_API_VERSION = "flux-framework.org/v1alpha2"

INT32 = 2**31 - 1
INT64 = 2**63 - 1


#: `Type.of_run` of a field whose default is Flux's own.
FLUX_DECIDES = "up to Flux"


@dataclass(frozen=True, kw_only=True)
class Type:
    """What one field may hold.

    ``kind``: string (``low``: its least length), boolean, integer, number, quantity, object (``fields``), map (names to
    ``item``), list (of ``item``) or any (of what JSON knows).
    """

    kind: str
    fields: Mapping[str, Type] = field(default_factory=dict, hash=False)
    item: Type | None = None
    required: bool = False
    #: The CRD's, which the API server fills in; None: it has none.
    default: JSONValue = None
    #: What a run has instead, where its document names none (direct mode); None: the same.
    of_run: JSONValue = None
    choices: Sequence[str] = ()
    #: Its value may be a secret, and is not shown.
    hidden: bool = False
    low: int = -INT64
    high: int = INT64

    @property
    def run_default(self) -> JSONValue:
        """What a run has where its document names none; None: nothing, or that is up to Flux."""
        if self.of_run is None:
            return self.default
        return None if self.of_run == FLUX_DECIDES else self.of_run


TEXT = Type(kind="string")
HIDDEN = Type(kind="string", hidden=True)
FLAG = Type(kind="boolean")
QUANTITY = Type(kind="quantity")
ANY = Type(kind="any")


def one_of(*choices: str) -> Type:
    return Type(kind="string", choices=choices)


def whole(low: int, high: int = INT32) -> Type:
    return Type(kind="integer", low=low, high=high)


def object_of(**fields: Type) -> Type:
    return Type(kind="object", fields=fields)


def map_of(item: Type) -> Type:
    return Type(kind="map", item=item)


def list_of(item: Type) -> Type:
    return Type(kind="list", item=item)


def needed(kind: Type) -> Type:
    return replace(kind, required=True)


# -- validation

_WHAT = {
    "string": "a string (without null bytes)",
    "boolean": "true or false",
    "object": "a mapping",
    "map": "a mapping of names to values",
    "list": "a list",
    "quantity": "a quantity such as 2, 500m or 4Gi",
}
#: Kubernetes' quantities (its API concepts, "resource units").
_QUANTITY_PATTERN = r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)(([KMGTPE]i)|[numkMGTPE]|[eE][+-]?[0-9]{1,2})?"
_QUANTITY_RE = re.compile(_QUANTITY_PATTERN + r"\Z")


def shape_problems(value: JSONValue, path: str, kind: Type, root: Type | None = None) -> list[str]:
    """Every field below ``path`` that is unknown, missing, or of a wrong type or value: one text each.

    ``root``: where a field that is not known here may have its place; None: ``kind``.
    """
    root = root or kind
    if kind.kind == "any":
        return _json_problems(value, path)
    if value is None:
        return [f"{path}: is empty (null); give {_allowed(kind)}, or leave the field out"]
    if kind.kind == "object":
        return _object_problems(value, path, kind, root)
    if kind.kind in ("map", "list"):
        return _collection_problems(value, path, kind, root)
    if not _is_scalar(value, kind):
        plain = isinstance(value, int | float | bool) and kind.kind in ("string", "quantity")
        shown = f"a value of type {type(value).__name__}" if kind.hidden else _shown(value)
        return [f"{path}: {shown} must be {_allowed(kind)}{'; put it in quotes' if plain else ''}"]
    return []


def _json_problems(value: JSONValue, path: str) -> list[str]:
    """What YAML can hold and JSON cannot: dates, sets, names that are no strings, infinities."""
    if isinstance(value, Mapping):
        strange = [
            f"{path}: the name {name!r} must be a string; put it in quotes" for name in value if type(name) is not str
        ]
        return strange + [one for name, inner in value.items() for one in _json_problems(inner, f"{path}.{name}")]
    if isinstance(value, list):
        return [one for at, inner in enumerate(value) for one in _json_problems(inner, f"{path}[{at}]")]
    finite = not isinstance(value, float) or value - value == 0
    if value is None or (isinstance(value, str | int | float) and finite):
        return []
    return [f"{path}: {_shown(value)} is nothing that JSON knows; put it in quotes"]


def _object_problems(value: JSONValue, path: str, kind: Type, root: Type) -> list[str]:
    if not isinstance(value, Mapping):
        return [f"{path}: {_shown(value)} must be {_allowed(kind)}"]
    found = []
    for name, inner in value.items():
        below = f"{path}.{name}" if path else str(name)
        known = kind.fields.get(name) if isinstance(name, str) else None
        found += (
            [_unknown_field(below, name, kind, root)] if known is None else shape_problems(inner, below, known, root)
        )
    missing = [(name, one) for name, one in kind.fields.items() if one.required and name not in value]
    return found + [f"{path}.{name}: is missing; give {_allowed(one)}" for name, one in missing]


def _collection_problems(value: JSONValue, path: str, kind: Type, root: Type) -> list[str]:
    assert kind.item is not None
    if kind.kind == "list" and isinstance(value, list):
        return [
            one for at, inner in enumerate(value) for one in shape_problems(inner, f"{path}[{at}]", kind.item, root)
        ]
    if kind.kind == "list" or not isinstance(value, Mapping):
        return [f"{path}: {_shown(value)} must be {_allowed(kind)}"]
    found = []
    for name, inner in value.items():
        if not isinstance(name, str):
            found.append(f"{path}: the name {name!r} must be a string; put it in quotes")
        else:
            found += shape_problems(inner, f"{path}.{name}", kind.item, root)
    return found


def _is_scalar(value: JSONValue, kind: Type) -> bool:
    if kind.kind == "boolean":
        return isinstance(value, bool)
    if kind.kind == "integer":
        return isinstance(value, int) and not isinstance(value, bool) and kind.low <= value <= kind.high
    if kind.kind == "quantity":
        return _is_whole(value) or (isinstance(value, str) and _QUANTITY_RE.match(value) is not None)
    return isinstance(value, str) and "\0" not in value and (not kind.choices or value in kind.choices)


def _is_whole(value: JSONValue) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _allowed(kind: Type) -> str:
    if kind.choices:
        return " or ".join([", ".join(kind.choices[:-1]), kind.choices[-1]])
    if kind.kind == "integer":
        if kind.low == -INT64:
            return "a whole number"
        return f"a whole number >= {kind.low}" if kind.high >= INT32 else f"a whole number {kind.low} to {kind.high}"
    return _WHAT[kind.kind]


def _shown(value: JSONValue) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _unknown_field(path: str, name: object, kind: Type, root: Type) -> str:
    homes = sorted({home for home in _homes(root, "") if home.split(".")[-1] == name})
    said = unknown(path, name, kind.fields)
    return said if "did you mean" in said or not homes else f"{path}: is not known here; did you mean {homes[0]}?"


def _homes(kind: Type, path: str) -> Iterator[str]:
    """Paths of all fields of a type: ``containers[].image``."""
    for name, inner in kind.fields.items():
        below = f"{path}.{name}" if path else name
        yield below
        while inner.item is not None:
            below += ".{}" if inner.kind == "map" else "[]"
            inner = inner.item
        yield from _homes(inner, below)


def unknown(path: str, name: object, known: Mapping[str, object] | Sequence[str]) -> str:
    """The problem of a field that does not exist, with the nearest one that does."""
    import difflib  # for an error only

    lower = {one.lower(): one for one in known}
    near = difflib.get_close_matches(str(name).lower(), list(lower), 1)
    return f"{path}: is not known; " + (f"did you mean {lower[near[0]]}?" if near else f"known are {', '.join(known)}")


# -- JSON Schema


def json_schema(kind: Type) -> dict[str, JSONValue]:
    """The JSON Schema (draft 2020-12) of a type, without ``$schema``. Its defaults are a run's (`Type.run_default`)."""
    made: dict[str, JSONValue]
    if kind.kind == "object":
        made = {
            "type": "object",
            "additionalProperties": False,
            "properties": {name: json_schema(inner) for name, inner in kind.fields.items()},
        }
        required = [name for name, inner in kind.fields.items() if inner.required]
        if required:
            made["required"] = required
    elif kind.kind in ("map", "list"):
        assert kind.item is not None
        inner = json_schema(kind.item)
        made = (
            {"type": "object", "additionalProperties": inner}
            if kind.kind == "map"
            else {"type": "array", "items": inner}
        )
    elif kind.kind == "any":
        made = {}
    elif kind.kind == "quantity":
        made = {"anyOf": [{"type": "integer"}, {"type": "string", "pattern": f"^{_QUANTITY_PATTERN}$"}]}
    else:
        made = {"type": kind.kind}
        if kind.low > -INT64:
            made["minLength" if kind.kind == "string" else "minimum"] = kind.low
        if kind.high < INT64:
            made["maximum"] = kind.high
        if kind.choices:
            made["enum"] = list(kind.choices)
    if kind.run_default is not None:
        made["default"] = kind.run_default
    if kind.of_run is not None:
        said = "" if kind.run_default is not None else f"Default: {kind.of_run}. "
        made["description"] = f"{said}A Flux Operator has a default of its own: {kind.default}."
    return made


# -- quantities

_SUFFIXES = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = "KMGTPE"


def quantity(value: str | int) -> Fraction:
    """The number that a Kubernetes quantity stands for: ``500m`` -> 1/2, ``4Gi`` -> 4294967296.

    Raises ValueError for what is none.
    """
    from fractions import Fraction  # see above

    text = str(value)
    found = _QUANTITY_RE.match(text)
    if found is None:
        raise ValueError(f"{text!r} is not a quantity")
    suffix = found.group(3) or ""
    number = Fraction(text[: len(text) - len(suffix)])
    if suffix.endswith("i"):
        return number * Fraction(1 << 10 * (_BINARY.index(suffix[0]) + 1))
    power = int(suffix[1:]) if len(suffix) > 1 else _SUFFIXES[suffix]
    scale = int("1" + "0" * abs(power))
    return number * scale if power >= 0 else number / scale
