"""A job's output on its way into a task's log: bytes -> lines, each logged once, and the one that becomes the XCom.

Pure. A *place* is how far somebody has read; it is kept with the job (`Session.save_bookmark`), so that the reader
that goes on after a restart logs no line twice and none is missing.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from airflow_provider_flux.masking import Masker

STREAMS = ("stdout", "stderr")
#: Longer lines are logged in pieces.
MAX_LOGGED = 64 * 1024
#: Lines of each stream that are kept for an error message.
_TAIL = 10


@dataclass
class _Stream:
    #: Bytes before this were logged already.
    logged: int = 0
    #: Offset of ``rest`` in the stream.
    start: int = 0
    rest: bytearray = field(default_factory=bytearray)
    #: Bytes of this line that were too many to be kept, after ``rest``.
    dropped: int = 0


@dataclass(frozen=True)
class Result:
    """The line that becomes the XCom. ``length`` in bytes is more than ``text`` has where the line is too long.

    ``masked``: it holds a secret, which is not in ``text``.
    """

    text: str
    length: int
    masked: bool = False


class OutputLog:
    """Takes what a job writes, and returns lines to log.

    ``limit``: bytes of the result's line that are kept. ``marker``: where set, what follows it in a line of stdout is
    the result, and is not logged; else the last line of stdout that is not blank. ``masker``: for all that leaves here.
    """

    def __init__(self, limit: int, marker: str = "", place: str | None = None, masker: Masker | None = None) -> None:
        self._limit = limit
        self._masker = masker or Masker()
        self._marker = marker.encode()
        self._streams = {name: _Stream() for name in STREAMS}
        self._result: Result | None = None
        self._result_at = 0
        #: The last piece of stdout ended in the middle of a line.
        self._open = False
        self._tails: dict[str, deque[str]] = {name: deque(maxlen=_TAIL) for name in STREAMS}
        if place is not None:
            stdout_logged, stdout_from, stderr_logged = (int(part) for part in place.split(","))
            self._streams["stdout"] = _Stream(logged=stdout_logged, start=stdout_from)
            self._streams["stderr"] = _Stream(logged=stderr_logged, start=stderr_logged)
            self._result_at = stdout_from

    def offset(self, stream: str) -> int:
        """From where on to read a stream."""
        at = self._streams[stream]
        return at.start + len(at.rest) + at.dropped

    @property
    def place(self) -> str:
        """What a successor needs: logged stdout, where the result's line begins, logged stderr; bytes."""
        stdout, stderr = (self._streams[name] for name in STREAMS)
        begin = self._result_at if self._result is not None else stdout.start
        return f"{max(stdout.logged, stdout.start)},{begin},{max(stderr.logged, stderr.start)}"

    @property
    def tail(self) -> list[str]:
        """The last lines of each stream."""
        return [line for name in STREAMS for line in self._tails[name]]

    @property
    def result(self) -> Result | None:
        """Complete only after `end`."""
        return self._result

    def feed(self, stream: str, piece: bytes) -> list[str]:
        """The lines that this piece completes, and that were not logged before."""
        at = self._streams[stream]
        head, *more = piece.split(b"\n")
        found = self._extend(stream, at, head)
        for line in more:
            found += self._complete(stream, at, is_open=False)
            found += self._extend(stream, at, line)
        return found

    def end(self) -> list[str]:
        """What is left: last lines without a line break."""
        found: list[str] = []
        for name, at in self._streams.items():
            if at.rest:
                found += self._complete(name, at, is_open=True)
        return found

    def _extend(self, stream: str, at: _Stream, more: bytes) -> list[str]:
        """Take what continues the current line. Returns what is too long to be kept."""
        at.rest += more
        most = max(MAX_LOGGED, self._limit + len(self._marker))
        found = []
        while len(at.rest) > most:
            begin = at.rest.find(self._marker) if stream == "stdout" and self._marker else -1
            if 0 <= begin < most:
                at.dropped += len(at.rest) - most
                del at.rest[most:]
                break
            until = begin if begin > 0 else self._masker.cut(bytes(at.rest), most)
            found += self._complete(stream, at, is_open=True, until=until)
        return found

    def _complete(self, stream: str, at: _Stream, is_open: bool, until: int | None = None) -> list[str]:
        """Log the current line (``is_open``: what there is of it, ``until`` a place in it) and begin the next."""
        line, dropped = bytes(at.rest[:until]), at.dropped
        at.rest, at.dropped = bytearray() if until is None else at.rest[until:], 0
        length = len(line) + dropped + (0 if is_open else 1)
        shown: bytes | None = line
        if stream == "stdout":
            shown = self._consider(line, dropped, at.start, is_open)
        fresh = at.start + length > at.logged
        at.start += length
        if shown is None or not fresh:
            return []
        text = _text(self._masker.line(shown.rstrip(b"\r")))
        self._tails[stream].append(text[:500])
        return [text[i : i + MAX_LOGGED] for i in range(0, len(text), MAX_LOGGED)] or [""]

    def _consider(self, line: bytes, dropped: int, start: int, is_open: bool) -> bytes | None:
        """What of a line of stdout is for the log (None: nothing); remembers what may be the result."""
        continues, self._open = self._open, is_open
        if continues and not (self._marker and self._marker in line):
            if self._result is not None and not self._marker:
                # Only too long a line comes in pieces: there is no value of it.
                self._result = replace(self._result, length=self._result.length + len(line))
            return line
        shown, value = line, line
        if self._marker:
            shown, found, value = line.partition(self._marker)
            if not found:
                return line
        elif not line.strip():
            return line
        value = value.strip()
        kept = self._masker.line(value)
        length = len(value) + dropped
        self._result, self._result_at = Result(_text(kept[: self._limit]), length, kept != value), start
        return shown if shown or not self._marker else None


def _text(line: bytes) -> str:
    # Databases do not take null characters.
    return line.decode("utf-8", "replace").replace("\0", "\ufffd")


class OutputError(ValueError):
    """The output is not what the task was to give as its XCom."""


def to_xcom(result: Result | None, kind: str, limit: int) -> object:
    """What a task returns: ``none``; ``last_line`` as text (None where there is none); ``json``, parsed.

    Raises OutputError.
    """
    if kind == "none":
        return None
    if result is None:
        if kind == "json":
            raise OutputError("result: the job wrote no line to stdout that could be read as JSON")
        return None
    if result.length > limit:
        raise OutputError(
            f"result: the line has {result.length} bytes, more than the {limit} of [flux] max_xcom_bytes; "
            "write it to a file or an object store and give its path, or set result='none'"
        )
    if result.masked:
        # Not handed on masked: whatever works with it would take the mask for the value.
        raise OutputError(
            "result: the last line of stdout holds a value of secret_env, and XComs are stored in clear; let the "
            f"command write another last line, or set result='none'. The line, masked: {result.text[:200]!r}"
        )
    if kind == "last_line":
        return result.text
    try:
        value = json.loads(result.text)
    except (ValueError, RecursionError) as err:
        raise OutputError(f"result: the last line of stdout is not JSON ({err}): {result.text[:200]!r}") from None
    for problem in _unstorable(value, "$", 0):
        raise OutputError(f"result: Airflow cannot store this JSON: {problem}: {result.text[:200]!r}")
    return value


#: Lists and mappings within each other.
_DEEPEST = 50
#: Airflow's processes hand integers to each other in 64 bits.
_INTEGERS = range(-(1 << 63), 1 << 64)
#: Keys by which Airflow tells its own objects from plain mappings.
_RESERVED = frozenset({"__classname__", "__version__", "__data__", "__type", "__var", "__id__"})


def _unstorable(value: object, path: str, depth: int) -> Iterator[str]:
    """What of a value that JSON can write has no place in an XCom: path, value, cure."""
    if depth > _DEEPEST:
        yield f"it is nested more than {_DEEPEST} deep"
    elif isinstance(value, float) and not math.isfinite(value):
        yield f"{path} is {value}, which is not in JSON; write null or a string"
    elif isinstance(value, int) and value not in _INTEGERS:
        yield f"{path} is an integer of more than 64 bits; write it as a string"
    elif isinstance(value, str):
        yield from _unwritable(value, path)
    elif isinstance(value, list):
        for index, one in enumerate(value):
            yield from _unstorable(one, f"{path}[{index}]", depth + 1)
    elif isinstance(value, dict):
        for key, one in value.items():
            yield from _unwritable(key, f"a key of {path}")
            if key in _RESERVED:
                yield f"{path} has the key {key!r}, which Airflow reserves; give it another name"
            yield from _unstorable(one, f"{path}.{key}", depth + 1)


def _unwritable(text: str, path: str) -> Iterator[str]:
    if any("\ud800" <= char <= "\udfff" for char in text):
        yield f"{path} holds half of a surrogate pair, which is not a character; write UTF-8"
    if "\0" in text:
        yield f"{path} holds a null character, which databases do not accept"
