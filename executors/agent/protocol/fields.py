"""Fields of a request, checked: EngineError (code ``bad-request``) names the field that is missing or wrong. Pure."""

from __future__ import annotations

import base64
from typing import Any, Dict, List, Optional

from ..engine import EngineError
from ..wire import Message


def strings(request: Message, field: str) -> List[str]:
    return _list_of(request, field, str, "strings")


def objects(request: Message, field: str) -> List[Dict[str, Any]]:
    return _list_of(request, field, dict, "objects")


def texts(request: Message, field: str) -> Dict[str, Optional[str]]:
    """An object whose values are strings or null."""
    value = request.get(field)
    if not isinstance(value, dict) or not all(text is None or isinstance(text, str) for text in value.values()):
        raise _wrong(field, "must be an object with strings or null")
    return value


def string(request: Message, field: str) -> str:
    """A string that is not empty and has no null byte."""
    value = request.get(field)
    if not isinstance(value, str) or not value or "\0" in value:
        raise _wrong(field, "must be a string that is not empty")
    return value


def integer(request: Message, field: str, low: int = 0, high: int = 1 << 62, default: Optional[int] = None) -> int:
    """An integer from ``low`` to ``high``; a field without ``default`` must be there."""
    value = request.get(field, default)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise _wrong(field, "%r is not an integer from %d to %d" % (value, low, high))
    return value


def data(request: Message, field: str) -> bytes:
    """Bytes, which travel as base64."""
    try:
        return base64.b64decode(string(request, field) if request.get(field) != "" else "", validate=True)
    except ValueError:
        raise _wrong(field, "is not base64") from None


def _list_of(request: Message, field: str, kind: type, name: str) -> List[Any]:
    value = request.get(field)
    if not isinstance(value, list) or not all(isinstance(item, kind) for item in value):
        raise _wrong(field, "must be a list of %s" % name)
    return value


def _wrong(field: str, problem: str) -> EngineError:
    return EngineError("%s: %s" % (field, problem), "bad-request")
