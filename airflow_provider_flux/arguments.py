"""What a task was given -> numbers, words and mappings that a JobRequest takes. Pure.

Arguments may have been templates: what a template has not found is an empty text or ``None``, which is no value.
Each function adds to ``problems`` what is wrong: field, value, cure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import timedelta

_SHELL = ("/bin/sh", "-c")


def absent(value: object) -> bool:
    return value is None or (isinstance(value, str) and value.strip() in ("", "None"))


def number(name: str, value: object, problems: list[str]) -> int | None:
    """A whole number, or its text; None where there is no value."""
    if absent(value):
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            pass
    problems.append(f"{name}: {value!r} is not a whole number")
    return None


def text(name: str, value: object, problems: list[str]) -> str | None:
    if absent(value):
        return None
    if isinstance(value, str):
        return value
    problems.append(f"{name}: {value!r} is not a string")
    return None


def seconds(name: str, value: object, problems: list[str]) -> float | None:
    """Seconds of a number, its text, or a timedelta."""
    if absent(value):
        return None
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            found = float(value)
        except ValueError:
            found = math.nan
        if math.isfinite(found):
            return found
    problems.append(f"{name}: {value!r} is neither a number of seconds nor a timedelta")
    return None


def variables(name: str, value: object, problems: list[str]) -> dict[str, str | None]:
    """Names and texts; None as a value removes a variable."""
    if absent(value):
        return {}
    if not isinstance(value, Mapping):
        problems.append(f"{name}: {type(value).__name__} is not a mapping of names to texts")
        return {}
    return {str(key): None if one is None else str(one) for key, one in value.items()}


def argv(command: object, problems: list[str]) -> list[str]:
    """A string is for the shell; a list is a program and its arguments."""
    if isinstance(command, str) and command.strip():
        return [*_SHELL, command]
    if isinstance(command, Sequence) and command and not isinstance(command, str | bytes):
        words = [word for word in command if not isinstance(word, str | int | float) or isinstance(word, bool)]
        if not words:
            return [str(word) for word in command]
        problems.append(f"command: {words[0]!r} is not a word; give strings")
    else:
        problems.append(f"command: {command!r} is neither a string for the shell nor a list of words")
    return ["false"]


def exit_codes(given: object) -> tuple[int, ...]:
    """Raises ValueError."""
    if given is None:
        return ()
    codes = [given] if isinstance(given, int | str) else given
    problems: list[str] = []
    if not isinstance(codes, Sequence | set | frozenset):
        raise ValueError(f"skip_on_exit_code: {given!r} is neither an exit code nor a list of them")
    found = [number("skip_on_exit_code", code, problems) for code in codes]
    if problems:
        raise ValueError(problems[0])
    return tuple(code for code in found if code is not None)
