"""Messages between agent and client: JSON lines, and the words in them. No I/O.

One message is one JSON object on one line, UTF-8, ended by a newline. Three kinds travel:

* a request   ``{"id": 7, "op": "submit", ...}``                   client to agent
* a reply     ``{"re": 7, "ok": {...}}`` or ``{"re": 7, "error": {"code": ..., "message": ...}}``
* a push      ``{"ev": [[seq, id, name, timestamp, context], ...]}`` or ``{"out": [sub, stream, offset, base64, eof]}``

The first request of a stream is ``hello`` with the versions that the client speaks; unknown fields are ignored, so
a version only changes when the meaning of a field does. Event names and job states are those of Flux RFC 21.
"""

from __future__ import annotations

import json
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, TypedDict, Union

VERSION = 1

#: Longest line either side accepts, in bytes. A longer one is skipped up to its newline and answered by an error.
MAX_LINE = 16 * 1024 * 1024
#: What a sender keeps a batch below, in bytes, so that one message never holds up a keep-alive for long.
BATCH_BYTES = 1024 * 1024
#: Largest piece of a file or of output in one message, in bytes (before base64).
CHUNK_BYTES = 256 * 1024
#: Characters of a note (of a cancellation, say) that are kept, and of a job's name that are taken: so an event, or a
#: job in a list, is never longer than a line.
MAX_NOTE = 10_000
MAX_NAME = 65_536
#: Seconds between keep-alives, and the silence after which a peer counts as gone.
PING_INTERVAL = 20.0
SILENCE_LIMIT = 60.0
#: How a relay's own words at its end begin (`executors.agent.protocol.relay`).
RELAY_SAYS = "agent relay: "
#: What it says where there is no agent yet.
NOT_YET = "the agent has not started yet"

#: Marks the processes of an instance in their environment, by epochs with colons between; how leftovers are found.
EPOCH_VARIABLE = "FXO_EPOCH"
#: In the environment of a measured job: a file to which a program of the job's may add a line (job id, CPU seconds,
#: peak memory in KiB, "+") for what others have done for it, outside of the job.
USAGE_VARIABLE = "FXO_USAGE"

#: What one event of a job's main eventlog does to its state (RFC 21).
_STATE_AFTER = {
    "submit": "DEPEND",
    "depend": "PRIORITY",
    "priority": "SCHED",
    "alloc": "RUN",
    "finish": "CLEANUP",
    "clean": "INACTIVE",
}

ERROR_CODES = (
    "bad-message",  # not JSON, not an object, a line that is too long
    "bad-request",  # a field is missing or wrong
    "unknown-op",
    "version",  # no common protocol version
    "no-hello",
    "not-found",
    "not-possible",  # the engine or the mode of operation does not offer it
    "closing",  # the agent is shutting down
    "busy",  # no room for another client now
    "too-large",  # the answer is longer than a message may be
    "engine",  # Flux (or the embedded engine) said no; the message is its own
)

Message = Dict[str, Any]
#: What follows ``ok`` in a reply.
Answer = Mapping[str, Any]


class TimesSummary(TypedDict):
    """Seconds since the epoch by the clock of the instance."""

    submit: Optional[float]
    start: Optional[float]
    finish: Optional[float]


class ExceptionSummary(TypedDict):
    """The first fatal exception of a job (RFC 21)."""

    type: str
    note: str


class UsageSummary(TypedDict):
    """CPU seconds, and bytes of the largest process's peak memory."""

    cpu: float
    max_rss: Optional[int]


class ResultSummary(TypedDict):
    """How a job ended, in the context of its ``clean`` event and in a `JobSummary`."""

    outcome: str
    returncode: Optional[int]
    signal: Optional[int]
    exception: Optional[ExceptionSummary]
    node: str
    usage: Optional[UsageSummary]
    times: TimesSummary


class JobSummary(TypedDict):
    """What ``list`` and snapshots show of a job."""

    id: str
    key: Optional[str]
    digest: str
    name: str
    state: str
    node: str
    acked: bool
    place: Optional[str]
    result: Optional[ResultSummary]
    times: TimesSummary


class _Node(TypedDict):
    rank: int
    host: str
    cores: int
    gpus: int
    memory: Optional[int]
    up: bool
    drained: bool


class NodeSummary(_Node, total=False):
    """What ``resources`` shows of a node. ``memory`` in bytes."""

    #: Of Flux alone.
    drain_reason: str
    busy: bool


class Resources(TypedDict):
    """The answer to ``resources``."""

    nodes: List[NodeSummary]


class AgentInfo(TypedDict):
    """The answer to ``hello`` and ``info``. Times in seconds."""

    version: int
    engine: str
    engine_version: str
    #: This life of the agent.
    instance: str
    run: str
    cursor: List[Union[str, int]]
    host: str
    pid: int
    #: The Flux instance was started by somebody else.
    guest: bool
    #: Jobs that have not ended.
    active: int
    clients: int
    #: For how long there is no client, and for how long neither a client nor a job.
    lonely: float
    quiet: float
    idle_timeout: float
    orphan_timeout: float
    #: FLUX_URI on the agent's host; "" for the embedded engine.
    uri: str


class SubmitAnswer(TypedDict, total=False):
    """The answer to one item of ``submit``: ``error``, or the other three."""

    error: str
    id: str
    #: A job with this key had been submitted before.
    known: bool
    digest: str


def epoch_chain(epoch: str, environ: Mapping[str, str]) -> str:
    """The value of `EPOCH_VARIABLE` for an instance started in ``environ``: outer instances can end all inside them."""
    outer = environ.get(EPOCH_VARIABLE, "")
    return outer + ":" + epoch if outer else epoch


class Cursor(NamedTuple):
    """A place in the event stream of one agent process: never a clock, since clocks step back.

    ``epoch`` names one life of the agent, ``sequence`` counts its events from 1; 0 stands before the first.
    """

    epoch: str
    sequence: int


class JobEvent(NamedTuple):
    """One event of one job (RFC 18 entry: name, timestamp in seconds since the epoch, context)."""

    cursor: Cursor
    id: str
    name: str
    timestamp: float
    context: Dict[str, Any]


class WireError(ValueError):
    """A line that is not a message. ``code`` is one of ERROR_CODES."""

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        super().__init__(message)


def encode(message: Message) -> bytes:
    """The line for a message, newline included. Newlines inside strings are escaped by JSON itself."""
    return json.dumps(message, separators=(",", ":"), ensure_ascii=True).encode("ascii") + b"\n"


def decode(line: bytes) -> Message:
    """The message of one line. Raises WireError for anything that is not a JSON object."""
    try:
        message = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as err:
        raise WireError("bad-message", "not a JSON line: %s" % err) from None
    if not isinstance(message, dict):
        raise WireError("bad-message", "a message is a JSON object, this is a %s" % type(message).__name__)
    return message


class LineReader:
    """Cuts a byte stream into lines, whatever the pieces it comes in; memory stays below ``limit`` + one piece.

    A line over the limit is dropped up to its newline and reported once, as a WireError in the result list, so
    that one bad line costs its sender an error and nobody else anything.
    """

    def __init__(self, limit: int = MAX_LINE) -> None:
        self._limit = limit
        self._parts: List[bytes] = []
        self._size = 0
        self._skipping = False

    def feed(self, data: bytes) -> List[object]:
        """Complete lines (bytes, without newline) and WireErrors, in order. Empty lines are ignored."""
        found: List[object] = []
        start = 0
        while True:
            end = data.find(b"\n", start)
            if end < 0:
                break
            piece = data[start:end]
            start = end + 1
            if self._skipping:
                self._skipping = False
                continue
            if self._size + len(piece) > self._limit:
                found.append(self._too_long())
            else:
                self._parts.append(piece)
                line = b"".join(self._parts)
                if line.strip():
                    found.append(line)
            self._parts = []
            self._size = 0
        rest = data[start:]
        if rest and not self._skipping:
            if self._size + len(rest) > self._limit:
                found.append(self._too_long())
                self._parts = []
                self._size = 0
                self._skipping = True
            else:
                self._parts.append(rest)
                self._size += len(rest)
        return found

    @property
    def pending(self) -> int:
        """Bytes of the line that has not ended yet."""
        return self._size

    def _too_long(self) -> WireError:
        return WireError("bad-message", "a line is longer than %d bytes" % self._limit)


def error_reply(request_id: Any, code: str, message: str) -> Message:
    return {"re": request_id, "error": {"code": code, "message": message}}


def ok_reply(request_id: Any, value: Answer) -> Message:
    return {"re": request_id, "ok": value}


def parse_cursor(value: Any) -> Optional[Cursor]:
    """A cursor from its JSON form ``[epoch, sequence]``; None for null. Raises WireError otherwise."""
    if value is None:
        return None
    if isinstance(value, (list, tuple)) and len(value) == 2:
        epoch, sequence = value
        if isinstance(epoch, str) and isinstance(sequence, int) and not isinstance(sequence, bool) and sequence >= 0:
            return Cursor(epoch, sequence)
    raise WireError("bad-request", "after: %r is not a cursor [epoch, sequence]" % (value,))


def state_after(event: str, context: Mapping[str, Any]) -> Optional[str]:
    """The state of a job after an event of its main eventlog (RFC 21); None: the event leaves it as it is."""
    if event == "exception":
        return "CLEANUP" if context.get("severity") == 0 else None
    return _STATE_AFTER.get(event)


def is_text(word: str) -> bool:
    """Whether a word can be sent: Python has surrogates for bytes that are not UTF-8, which no message can hold."""
    try:
        word.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
