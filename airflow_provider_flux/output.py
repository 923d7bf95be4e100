"""A job's output on its way into a task's log: bytes -> lines, each logged once, and the one that becomes the XCom.

Pure. A *place* is how far somebody has read; it is kept with the job (`Session.mark`), so that whoever goes on after a
restart logs no line twice and none is missing.
"""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass, field

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
    """The line that becomes the XCom. ``length`` in bytes is more than ``text`` has where the line is too long."""

    text: str
    length: int


class OutputLog:
    """Takes what a job writes; gives lines to log.

    ``limit``: bytes of the result's line that are kept. ``marker``: where set, what follows it in a line of stdout is
    the result, and is not logged; else the last line of stdout that is not blank.
    """

    def __init__(self, limit: int, marker: str = "", place: str | None = None) -> None:
        self._limit = limit
        self._marker = marker.encode()
        self._streams = {name: _Stream() for name in STREAMS}
        self._result: Result | None = None
        self._result_at = 0
        #: The last piece of stdout ended in the middle of a line.
        self._open = False
        self._tail: deque[str] = deque(maxlen=_TAIL)
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
        return list(self._tail)

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
        """Take what continues the current line; gives what is too long to be kept."""
        at.rest += more
        most = max(MAX_LOGGED, self._limit + len(self._marker))
        if len(at.rest) <= most:
            return []
        if stream == "stdout" and self._marker and self._marker in at.rest[:most]:
            at.dropped += len(at.rest) - most
            del at.rest[most:]
            return []
        return self._complete(stream, at, is_open=True)

    def _complete(self, stream: str, at: _Stream, is_open: bool) -> list[str]:
        """Log the current line (``is_open``: what there is of it) and begin the next."""
        line, dropped = bytes(at.rest), at.dropped
        at.rest, at.dropped = bytearray(), 0
        length = len(line) + dropped + (0 if is_open else 1)
        shown: bytes | None = line
        if stream == "stdout":
            shown = self._consider(line, dropped, at.start, is_open)
        fresh = at.start + length > at.logged
        at.start += length
        if shown is None or not fresh:
            return []
        text = shown.rstrip(b"\r").decode("utf-8", "replace").replace("\0", "\ufffd")
        self._tail.append(text[:500])
        return [text[i : i + MAX_LOGGED] for i in range(0, len(text), MAX_LOGGED)] or [""]

    def _consider(self, line: bytes, dropped: int, start: int, is_open: bool) -> bytes | None:
        """What of a line of stdout is for the log (None: nothing); remembers what may be the result."""
        continues, self._open = self._open, is_open
        if continues:
            if self._result is not None and not self._marker:
                self._result = Result(self._result.text, self._result.length + len(line))
            return line
        shown, value = line, line
        if self._marker:
            shown, found, value = line.partition(self._marker)
            if not found:
                return line
        elif not line.strip():
            return line
        # Databases do not take null characters.
        kept = value[: self._limit].strip().decode("utf-8", "replace").replace("\0", "\ufffd")
        self._result, self._result_at = Result(kept, len(value) + dropped), start
        return shown if shown or not self._marker else None


class OutputError(ValueError):
    """The output is not what the task was to give as its XCom."""


def xcom_of(result: Result | None, kind: str, limit: int) -> object:
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
    if kind == "last_line":
        return result.text
    try:
        return json.loads(result.text)
    except ValueError as err:
        raise OutputError(f"result: the last line of stdout is not JSON ({err}): {result.text[:200]!r}") from None
