"""What is said on one stream, from its greeting to its end: bytes in, messages out. No I/O, no threads.

A stream begins with ``hello`` and ``watch``, asked and answered one after the other; what follows may come in any order
(docs/protocol.md). After a cut a new conversation goes on from the cursor of the one before.
"""

from __future__ import annotations

import base64
from collections import deque
from dataclasses import dataclass
from typing import Any

from executors.agent import wire
from executors.agent.wire import Cursor, JobEvent, JobSummary
from executors.errors import AgentError, EndingError, ProtocolError

#: The id of the two requests that open a stream; all others are larger.
_OPENING = 0


@dataclass(frozen=True)
class Hello:
    """What an agent says of itself."""

    instance: str
    engine: str
    engine_version: str
    run: str
    host: str
    #: It runs in a Flux instance that somebody else started.
    attached: bool
    active: int
    #: FLUX_URI of the instance, as seen from its own host; empty for the embedded engine.
    uri: str
    #: Seconds.
    idle_timeout: float

    @classmethod
    def from_wire(cls, reply: dict[str, Any]) -> Hello:
        return cls(
            instance=str(reply["instance"]),
            engine=str(reply["engine"]),
            engine_version=str(reply.get("engine_version", "")),
            run=str(reply.get("run", "")),
            host=str(reply.get("host", "")),
            attached=bool(reply.get("guest", False)),
            active=int(reply.get("active", 0)),
            uri=str(reply.get("uri", "")),
            idle_timeout=float(reply.get("idle_timeout", 0)),
        )


@dataclass(frozen=True)
class Greeted:
    """The first answer: who is there. `Conversation.watch_request` is to be sent next."""

    hello: Hello


@dataclass(frozen=True)
class Watching:
    """The second answer: events follow. ``snapshot``: every unacknowledged job, if events after the cursor are lost."""

    snapshot: list[JobSummary] | None


@dataclass(frozen=True)
class Reply:
    """The answer to a request: ``ok``, or ``error``. ``request_id`` is None where the agent could not read whose."""

    request_id: int | None
    ok: dict[str, Any]
    error: AgentError | None = None


@dataclass(frozen=True)
class Events:
    """Events that were not reported before, oldest first."""

    events: list[JobEvent]


@dataclass(frozen=True)
class Snapshot:
    """The state of every unacknowledged job: this client was too slow for the events."""

    jobs: list[JobSummary]


@dataclass(frozen=True)
class Output:
    """A piece of output at a byte offset. ``error``: why the last piece is not the end of the output."""

    subscription: int
    offset: int
    data: bytes
    is_last: bool
    error: str | None


@dataclass(frozen=True)
class Ping:
    """To be answered by `pong`."""

    number: Any


@dataclass(frozen=True)
class Bye:
    """The agent ends, and why."""

    reason: str


Message = Greeted | Watching | Reply | Events | Snapshot | Output | Ping | Bye


class AgentBusyError(OSError):
    """The agent takes no further client now; it may a moment later."""


class Conversation:
    """Not thread-safe. ``cursor``: after which event this stream goes on; None: it is the first."""

    def __init__(self, *, observer: bool, cursor: Cursor | None) -> None:
        self._observer = observer
        self.cursor = cursor
        self._resumes = cursor is not None
        self._greeted = False
        self._is_open = False
        self._lines = wire.LineReader()
        self._waiting: deque[object] = deque()
        #: What came of long answers ahead of the answers themselves.
        self._parts: dict[int, list[JobSummary]] = {}
        self._snapshot_parts: list[JobSummary] = []

    def hello_request(self) -> bytes:
        return wire.encode({"id": _OPENING, "op": "hello", "versions": [wire.VERSION], "observer": self._observer})

    def watch_request(self) -> bytes:
        after = None if self.cursor is None else list(self.cursor)
        return wire.encode({"id": _OPENING, "op": "watch", "after": after, "snapshot": self._resumes})

    def feed(self, data: bytes) -> None:
        """Bytes have arrived."""
        self._waiting.extend(self._lines.feed(data))

    def take(self) -> Message | None:
        """The next message that is whole; None: more bytes are needed.

        Raises ProtocolError for what is no message. While the stream is being opened a refusal raises EndingError,
        AgentBusyError or ProtocolError.
        """
        while self._waiting:
            message = self._read(self._decode(self._waiting.popleft()))
            if message is not None:
                return message
        return None

    def _decode(self, line: object) -> dict[str, Any]:
        if not isinstance(line, bytes):
            raise ProtocolError(f"the agent sent something that is not a message: {line}")
        try:
            return wire.decode(line)
        except wire.WireError as err:
            raise ProtocolError(f"the agent sent something that is not a message: {err}") from None

    def _read(self, message: dict[str, Any]) -> Message | None:
        """None: what has to wait for its other parts, or has an unknown kind."""
        if "ev" in message:
            return self._events(message["ev"])
        if "re" in message:
            return self._reply(message)
        if "out" in message:
            subscription, _stream, offset, data, is_last = message["out"]
            error = str(message["error"]) if "error" in message else None
            return Output(subscription, offset, base64.b64decode(data), bool(is_last), error)
        if "ping" in message:
            return Ping(message["ping"])
        if "resync_part" in message:
            self._snapshot_parts += message["resync_part"]
        elif "resync" in message:
            self.cursor = wire.parse_cursor(message["cursor"])
            jobs, self._snapshot_parts = self._snapshot_parts + message["resync"], []
            return Snapshot(jobs)
        elif "bye" in message:
            return Bye(str(message["bye"]))
        return None

    def _events(self, entries: list[list[Any]]) -> Events | None:
        if self.cursor is None:
            raise ProtocolError("the agent sent events before it said after which")
        epoch, last = self.cursor
        events = [
            JobEvent(Cursor(epoch, sequence), job, name, timestamp, context)
            for sequence, job, name, timestamp, context in entries
            if sequence > last
        ]
        if not events:
            return None
        self.cursor = events[-1].cursor
        return Events(events)

    def _reply(self, message: dict[str, Any]) -> Message | None:
        request_id = message["re"] if isinstance(message["re"], int) else None
        if "part" in message:
            if request_id is not None:
                self._parts.setdefault(request_id, []).extend(message["part"])
            return None
        parts = self._parts.pop(request_id, []) if request_id is not None else []
        if "error" in message:
            error = AgentError(str(message["error"].get("code")), str(message["error"].get("message")))
            if not self._is_open:
                raise _refusal(error)
            return Reply(request_id, {}, error)
        ok: dict[str, Any] = message["ok"]
        if not self._is_open:
            return self._opened(ok, parts) if request_id == _OPENING else None
        if parts:
            ok["jobs"] = parts + ok["jobs"]
        return Reply(request_id, ok)

    def _opened(self, ok: dict[str, Any], parts: list[JobSummary]) -> Message:
        if not self._greeted:
            self._greeted = True
            return Greeted(Hello.from_wire(ok))
        self._is_open = True
        cursor = wire.parse_cursor(ok["cursor"])
        if cursor is None:
            raise ProtocolError("the agent did not say after which event it goes on")
        self.cursor = cursor
        snapshot = ok.get("snapshot")
        return Watching(parts + snapshot if self._resumes and snapshot is not None else None)


def pong(ping: Ping) -> bytes:
    return wire.encode({"pong": ping.number})


def ping() -> bytes:
    return wire.encode({"ping": 0})


def _refusal(error: AgentError) -> Exception:
    """What a refusal of the opening requests means."""
    if error.code == "closing":
        return EndingError("the agent is ending")
    if error.code == "busy":
        return AgentBusyError(str(error))
    return ProtocolError(f"the agent refused the session: {error}")
