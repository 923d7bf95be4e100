"""Documents that are described by dataclasses: their types (`executors.schema.Type`), and how they are read. Pure.

A field of a class stands for the document's field of the same name in camel case. Its annotation is its type: a scalar,
another such class, a mapping of names or a tuple of these, or ``Annotated[..., Type]`` where that does not say enough.
A field without a default is required. The module of such a class has no ``from __future__ import annotations``.
What must not live here: any document (`executors.spec`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field, fields, is_dataclass, replace
from functools import cache
from typing import Annotated, Any, NamedTuple, TypeVar, get_args, get_origin

from executors.schema import FLUX_DECIDES, JSONValue, Type, list_of, map_of, object_of

_Part = TypeVar("_Part")
_SCALARS = {str: "string", bool: "boolean"}
_RUN_DEFAULT: Any = object()


def upstream(default: JSONValue, *, of_run: JSONValue = None, empty: Any = _RUN_DEFAULT) -> Any:
    """A field with a default of upstream's CRD, and another in a run (``of_run``, see `Type`).

    The typed part has the run's, or ``empty``, by which it can be seen that nothing was given.
    """
    ours = default if of_run is None else None if of_run == FLUX_DECIDES else of_run
    said = {"default": default, "of_run": of_run}
    return field(default=ours if empty is _RUN_DEFAULT else empty, metadata={"type": said})


def at(path: str, default: Any = "") -> Any:
    """A field that stands elsewhere than its name says: ``bursting.hostlist``."""
    return field(default=default, metadata={"path": path})


def read_by(read: Callable[[Any], Any], default_factory: Callable[[], Any]) -> Any:
    """A field whose value in the typed part has another form than the document's."""
    return field(default_factory=default_factory, metadata={"read": read})


def beside(**more: Any) -> Any:
    """A field of the typed part that is not in the document; ``more`` is for `dataclasses.field`."""
    return field(metadata={"path": None}, **more)


class Described(NamedTuple):
    """One field: its name in the class, where it stands in the document, its type there, and what reads it."""

    name: str
    path: tuple[str, ...]
    type: Type
    read: Callable[[Any], Any]


def described(part: Any) -> list[Described]:
    """Every field of a class that is in the document."""
    found: list[Described] = _described(part)
    return found


@cache
def _described(part: Any) -> list[Described]:
    found = []
    for one in fields(part):
        path = one.metadata.get("path", _camel_case(one.name))
        if path is not None:
            required = one.default is one.default_factory  # both are MISSING
            kind = replace(_type(one.type), required=required, **one.metadata.get("type", {}))
            read = one.metadata.get("read") or _reader(one.type)
            found.append(Described(one.name, tuple(path.split(".")), kind, read))
    return found


def _camel_case(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def document_type(part: Any) -> Type:
    """The type of the documents that a class describes, its fields in the order of their names."""
    return _nested({one.path: one.type for one in described(part)})


def _nested(kinds: Mapping[tuple[str, ...], Type]) -> Type:
    found: dict[str, Type] = {}
    for name in sorted({path[0] for path in kinds}):
        below = {path[1:]: kind for path, kind in kinds.items() if path[0] == name}
        found[name] = below[()] if () in below else _nested(below)
    return object_of(**found)


def _type(annotation: Any) -> Type:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        found: Type = arguments[1]
        return found
    if origin is tuple:
        return list_of(_type(arguments[0]))
    if origin is Mapping:
        return map_of(_type(arguments[1]))
    if arguments:  # a type, or None
        return _type(arguments[0])
    return document_type(annotation) if is_dataclass(annotation) else Type(kind=_SCALARS[annotation])


def _reader(annotation: Any) -> Callable[[Any], Any]:
    if get_origin(annotation) is tuple:
        item = _reader(get_args(annotation)[0])
        return lambda given: tuple(map(item, given))
    if isinstance(annotation, type) and is_dataclass(annotation):
        return getattr(annotation, "read", lambda given: read_part(annotation, given))
    return lambda given: given


def read_part(part: type[_Part], given: Mapping[str, JSONValue], **more: Any) -> _Part:
    """Returns a typed part of a document that has the right shape; what is not given has the part's own default."""
    values: dict[str, Any] = dict(more)
    for one in described(part):
        found: JSONValue = given
        for name in one.path:
            found = found.get(name) if found is not None else None
        if found is not None and one.name not in more:
            values[one.name] = one.read(found)
    return part(**values)
