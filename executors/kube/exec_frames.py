"""The channels of an exec stream (``v5.channel.k8s.io``, ``v4.channel.k8s.io``), cut out of websocket frames. No I/O.

Every message is binary; its first byte names the channel: 0 stdin, 1 stdout, 2 stderr, 3 the status that ends the
stream (a JSON ``Status``), 4 the size of its terminal (JSON), 255 (v5 only) the closing of the channel that the next
byte names.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

SUBPROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")

STDIN, STDOUT, STDERR, STATUS, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255
#: Bytes of stderr to keep for the error message of a stream that ends badly.
_KEEP_STDERR = 4096


def stdin_message(data: bytes | memoryview) -> bytes:
    """The message that brings bytes to the program's standard input."""
    return b"\0" + data


def resize_message(columns: int, rows: int) -> bytes:
    """The message that tells the size of the terminal that somebody looks at."""
    return bytes((RESIZE,)) + json.dumps({"Width": columns, "Height": rows}).encode()


def close_stdin_message() -> bytes:
    """The message that ends the program's standard input; v5 only, v4 has no way to say so."""
    return bytes((CLOSE, STDIN))


@dataclass
class Channels:
    """Collects what arrived. ``feed`` takes one piece of a message; a message may come in many pieces.

    ``on_stderr`` is given what came on stderr.
    """

    on_stderr: Callable[[bytes], None] = lambda _piece: None
    stderr: bytearray = field(default_factory=bytearray)
    _status: bytearray = field(default_factory=bytearray)
    _channel: int | None = None
    #: The status has arrived whole: the program has ended.
    ended: bool = False

    def feed(self, piece: bytes, final: bool) -> bytes:
        """What this piece adds to stdout."""
        out = b""
        if piece:
            if self._channel is None:
                self._channel, piece = piece[0], piece[1:]
            if self._channel == STDOUT:
                out = piece
            elif self._channel == STDERR:
                self.on_stderr(piece)
                self.stderr += piece
                del self.stderr[:-_KEEP_STDERR]
            elif self._channel == STATUS:
                self._status += piece
        if final:
            self.ended = self.ended or self._channel == STATUS
            self._channel = None
        return out

    def failure(self) -> str | None:
        """Why the program ended, in one line; None where it ended well, or was not said to have ended."""
        status = self._end()
        said = bytes(self.stderr).decode("utf-8", "replace").strip()
        if status.get("status") != "Failure":
            return said or None
        message = str(status.get("message") or "the program failed")
        return f"{message}: {said}" if said else message

    def exit_code(self) -> int | None:
        """The program's, where it has ended by itself; None where it was not started, say (`failure` tells why)."""
        status = self._end()
        if status.get("status") == "Success":
            return 0
        causes = (status.get("details") or {}).get("causes") or []
        codes = [cause.get("message") for cause in causes if cause.get("reason") == "ExitCode"]
        return int(codes[0]) if codes and str(codes[0]).isdecimal() else None

    def _end(self) -> dict[str, Any]:
        try:
            status = json.loads(bytes(self._status) or b"{}")
        except ValueError:
            return {"status": "Failure", "message": bytes(self._status).decode("utf-8", "replace")}
        return status if isinstance(status, dict) else {}
