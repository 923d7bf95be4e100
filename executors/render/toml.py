"""TOML text (v1.0) of a document: tables as sections, everything below a list inline."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Mapping
from typing import Any

TOMLValue = Any  # str, int, float, bool, a date or time, a list or a mapping of them

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+\Z")


def toml_text(document: Mapping[str, TOMLValue]) -> str:
    """The document as TOML. Raises TypeError for what TOML cannot hold (None, bytes)."""
    return "\n".join(_section(document, ()))


def _section(table: Mapping[str, TOMLValue], path: tuple[str, ...]) -> list[str]:
    values = {name: value for name, value in table.items() if not isinstance(value, Mapping)}
    lines = []
    if path and (values or not table):
        lines.append(f"[{'.'.join(map(_key, path))}]")
    lines += [f"{_key(name)} = {_value(value)}" for name, value in values.items()]
    if lines:
        lines.append("")
    for name, value in table.items():
        if isinstance(value, Mapping):
            lines += _section(value, (*path, name))
    return lines


def _value(value: TOMLValue) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(name)} = {_value(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, datetime.date | datetime.time):  # a datetime is a date
        return value.isoformat()
    raise TypeError(f"{value!r} has no form in TOML")


def _key(name: str) -> str:
    return name if _BARE_KEY.match(name) else _string(name)


def _string(text: str) -> str:
    # JSON's escapes are TOML's, but for DEL, which JSON leaves as it is.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
