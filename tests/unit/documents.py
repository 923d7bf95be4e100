"""Specs out of the schema's own table, for property tests."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from executors.schema import Type
from executors.spec import SPEC

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
QUANTITIES = st.one_of(
    st.integers(0, 64), st.builds("{}{}".format, st.integers(0, 64), st.sampled_from(["", "m", "Mi", "G", "e2"]))
)


def of_type(kind: Type) -> st.SearchStrategy[Any]:
    """Values that the table allows."""
    if kind.kind == "object":
        needed = {name: of_type(one) for name, one in kind.fields.items() if one.required}
        more = {name: _later(one) for name, one in kind.fields.items() if not one.required}
        # A few of many fields: all of them at once would be a document of thousands of values.
        few = st.lists(st.sampled_from(sorted(more)), max_size=4, unique=True) if more else st.just([])
        return few.flatmap(lambda names: st.fixed_dictionaries(needed | {name: more[name] for name in names}))
    if kind.kind in ("map", "list"):
        assert kind.item is not None
        item = of_type(kind.item)
        return st.dictionaries(TEXT, item, max_size=2) if kind.kind == "map" else st.lists(item, max_size=2)
    if kind.kind == "integer":
        return st.integers(kind.low, kind.high)
    if kind.kind == "boolean":
        return st.booleans()
    if kind.kind == "quantity":
        return QUANTITIES
    return st.sampled_from(list(kind.choices)) if kind.choices else TEXT


def _later(kind: Type) -> st.SearchStrategy[Any]:
    return st.deferred(lambda: of_type(kind))


DOCUMENTS = of_type(SPEC)
#: Anything that YAML can hold.
ANYTHING = st.recursive(
    # (JSON Schema takes 1.0 for an integer.)
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False).filter(lambda x: x % 1) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


def paths(value: Any) -> list[tuple[Any, ...]]:
    """Where each value of a document stands."""
    found: list[tuple[Any, ...]] = [()]
    if isinstance(value, dict):
        found += [(name, *path) for name, inner in value.items() for path in paths(inner)]
    elif isinstance(value, list):
        found += [(at, *path) for at, inner in enumerate(value) for path in paths(inner)]
    return found


def with_value(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """A copy of a document with one value replaced."""
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = with_value(copy[path[0]], path[1:], new)
    return copy
