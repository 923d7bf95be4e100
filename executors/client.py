"""Requests, replies and events over one stream to an agent; survives cuts of the stream and restarts of the agent.

Threads: one *reader* belongs to a client; it reads, answers keep-alives, reconnects. ``request`` may be called from
any thread. The handlers are called on the reader and must be quick (the session only queues).
"""

from __future__ import annotations

import base64
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from executors.agent import wire
from executors.agent.wire import Cursor, JobEvent
from executors.errors import (
    AgentError,
    AgentSilentError,
    AgentStartingError,
    EndingError,
    ExecutorsError,
    ProtocolError,
    SessionClosedError,
    TransportError,
)
from executors.transport import Endpoint, ProgramEnded, Stream, open_stream

if TYPE_CHECKING:
    from tenacity import RetryCallState

log = logging.getLogger(__name__)

#: Requests that may be sent a second time after a cut: doing them twice is doing them once. (A submission is one
#: because every item has a key.)
_REPEATABLE = frozenset(
    ["submit", "cancel", "list", "info", "ack", "resources", "get", "put", "stat", "shutdown", "drain", "mark"]
)

#: Times that a request is sent, where each time the answer was no message of this protocol.
_TRIES = 3
#: Ids in one message; more of them are asked for by several.
_IDS = 20_000
#: Bytes of output that the agent may send ahead of a paced reader, which tells it after each half of them.
WINDOW = 4 * 1024 * 1024

#: Seconds of trying again, where an agent that is away so long will not come back.
_PATIENCE = 60.0

#: Takes pieces of output, then None, or the error that ended it.
Sink = Callable[[bytes | BaseException | None], None]


class Handler(Protocol):
    """What a client reports, in the order in which it arrived."""

    def on_events(self, events: list[JobEvent]) -> None:
        """Events that were not reported before."""

    def on_snapshot(self, jobs: list[dict[str, Any]]) -> None:
        """The state of every unacknowledged job, where the events in between are no longer to be had."""

    def on_lost(self, reason: str) -> None:
        """The agent is gone for good. The last call."""


@dataclass(frozen=True)
class Hello:
    """What an agent says of itself."""

    instance: str
    engine: str
    engine_version: str
    run: str
    host: str
    guest: bool
    active: int
    #: FLUX_URI of the instance, as seen from its own host; empty for the embedded engine.
    uri: str
    #: Seconds.
    idle_timeout: float

    @classmethod
    def of(cls, reply: dict[str, Any]) -> Hello:
        return cls(
            instance=str(reply["instance"]),
            engine=str(reply["engine"]),
            engine_version=str(reply.get("engine_version", "")),
            run=str(reply.get("run", "")),
            host=str(reply.get("host", "")),
            guest=bool(reply.get("guest", False)),
            active=int(reply.get("active", 0)),
            uri=str(reply.get("uri", "")),
            idle_timeout=float(reply.get("idle_timeout", 0)),
        )


class Following:
    """A reader's place in a job's output. Called, it stops."""

    def __init__(self, stop: Callable[[], None], taken: Callable[[int], None]) -> None:
        self._stop = stop
        self._taken = taken

    def __call__(self) -> None:
        self._stop()

    def taken(self, size: int) -> None:
        """Of a paced reader: so many bytes more were dealt with."""
        self._taken(size)


class _Pending:
    __slots__ = ("future", "line", "op", "parts", "repeatable", "tries")

    def __init__(self, future: Future[dict[str, Any]], line: bytes, op: str) -> None:
        self.future = future
        self.op = op
        #: How often what came instead of its answer was no message.
        self.tries = 0
        self.line = line
        self.repeatable = op in _REPEATABLE
        #: What came ahead of the reply.
        self.parts: list[dict[str, Any]] = []


class _Output:
    __slots__ = ("job", "offset", "paced", "path", "sink", "stopped", "stream", "sub", "taken", "told")

    def __init__(self, job: str, stream: str, path: str | None, offset: int, sink: Sink, paced: bool) -> None:
        self.job = job
        self.paced = paced
        #: The agent's number for it; None until it has one, and after a cut.
        self.sub: int | None = None
        #: How far the reader is, and how far the agent knows that it is.
        self.taken = offset
        self.told = offset
        self.stream = stream
        self.path = path
        self.offset = offset
        self.sink = sink
        self.stopped = False


class Client:
    """One stream to one agent. Use `connect` first; `close` ends it."""

    def __init__(
        self,
        endpoint: Endpoint,
        handler: Handler,
        *,
        gone: Callable[[], str | None] = lambda: None,
        patience: float = _PATIENCE,
        ping_interval: float = wire.PING_INTERVAL,
        silence_limit: float = wire.SILENCE_LIMIT,
        opener: Callable[[Endpoint], Stream] = open_stream,
        observer: bool = False,
        start_limit: float = 0.0,
    ) -> None:
        """``gone`` tells why the agent can never come back (None: it may); ``patience``: seconds of trying again;
        ``start_limit``: seconds for the first answer, should the agent be starting.

        An ``observer`` does not count as a client: the agent's time-outs go on as if it were not there.
        """
        self._endpoint = endpoint
        self._handler = handler
        self._gone = gone
        self._patience = patience
        self._ping_interval = ping_interval
        self._silence_limit = silence_limit
        self._opener = opener
        self._observer = observer
        self._start_limit = start_limit
        self._lock = threading.Lock()
        self._send_lock = threading.Lock()
        self._stream: Stream | None = None
        self._opening: Stream | None = None
        self._pending: dict[int, _Pending] = {}
        self._outputs: dict[int, _Output] = {}
        self._next_id = 1
        self._cursor: Cursor | None = None
        self._closing = threading.Event()
        #: The reader waits for others, and will hear of the end before it does anything.
        self._elsewhere = False
        self._lost: str | None = None
        self._bye: str | None = None
        self._reader: threading.Thread | None = None
        self._lines = wire.LineReader()
        self._queued: deque[object] = deque()
        self._resync: list[dict[str, Any]] = []
        self.hello: Hello | None = None

    # -- public

    def connect(self) -> Hello:
        """Open the stream, greet, follow events.

        Raises TransportError (ProtocolError for a version mismatch, EndingError for an agent that is about to end,
        AgentSilentError only where the stream got to the agent's place, and nobody is there).
        """
        try:
            hello = self._open()
        except ConnectionError as err:  # its socket was there a moment ago
            raise EndingError(f"the agent is ending: {err}") from err
        except (ProgramEnded, TimeoutError) as err:
            if wire.NOT_YET in str(err):
                raise AgentStartingError(str(err)) from err
            if isinstance(err, ProgramEnded) and wire.RELAY_SAYS not in str(err):
                # Of a relay that never ran, or was killed: that says nothing of the agent.
                raise TransportError(f"the agent cannot be reached: {err}") from err
            raise AgentSilentError(f"the agent does not answer: {err}") from err
        except OSError as err:
            raise TransportError(f"the agent cannot be reached: {err}") from err
        self.hello = hello
        self._reader = threading.Thread(target=self._read_forever, name="agent-reader", daemon=True)
        self._reader.start()
        return hello

    def request(self, op: str, *, timeout: float | None = 60.0, **fields: Any) -> dict[str, Any]:
        """Ask and wait. Raises AgentError for its refusal, TransportError or SessionClosedError for no answer."""
        if self.on_reader:
            raise RuntimeError(f"{op!r} cannot be waited for here: this thread brings the answer")
        future = self.request_later(op, **fields)
        try:
            return future.result(timeout)
        except TimeoutError:
            raise TransportError(f"the agent did not answer {op!r} within {timeout:g} s") from None

    def request_later(
        self, op: str, *, answered: Callable[[Future[dict[str, Any]]], None] | None = None, **fields: Any
    ) -> Future[dict[str, Any]]:
        """Ask without waiting. ``answered`` is called before anything that arrives after the reply is dealt with."""
        body = wire.encode({"op": op, **fields})
        return self._ask(op, body[1:], answered)

    def tell(self, op: str, ids: Sequence[str], **fields: Any) -> None:
        """Ask something of jobs, however many, without waiting for an answer: ``cancel`` or ``ack``."""
        for start in range(0, len(ids), _IDS):
            self.request_later(op, ids=list(ids[start : start + _IDS]), **fields)

    @property
    def on_reader(self) -> bool:
        """Whether this is the thread that brings what the agent says."""
        return threading.current_thread() is self._reader

    def submit(self, items: list[bytes], environments: list[bytes]) -> Future[dict[str, Any]]:
        """Ask ``submit`` for items and the environments that they name by index, all of them encoded already."""
        body = b'"op":"submit","environments":[%b],"items":[%b]}\n' % (b",".join(environments), b",".join(items))
        return self._ask("submit", body)

    def _ask(
        self, op: str, rest: bytes, answered: Callable[[Future[dict[str, Any]]], None] | None = None
    ) -> Future[dict[str, Any]]:
        """Send a request whose line is ``{"id":N,`` and ``rest``."""
        future: Future[dict[str, Any]] = Future()
        if answered is not None:
            # Before it is sent: added later, it might come too late to be called on the reader, in order.
            future.add_done_callback(answered)
        refused: ExecutorsError | None = None
        with self._lock:
            request_id = self._take_id()
            line = b'{"id":%d,' % request_id + rest
            stream = self._stream
            if self._lost is not None or self._closing.is_set():
                refused = SessionClosedError(self._lost or "the session is closed")
            elif len(line) > wire.MAX_LINE:
                refused = AgentError("bad-request", f"{op}: {len(line)} bytes are more than one message holds")
            else:
                self._pending[request_id] = _Pending(future, line, op)
        if refused is not None:
            future.set_exception(refused)
        elif stream is not None:
            self._send(stream, line)
        return future

    def follow(
        self, job: str, stream: str, path: str | None, offset: int, sink: Sink, *, paced: bool = False
    ) -> Following:
        """Pass output of a job to ``sink`` (None: its end; an error: there is no more to be had) as it is written.

        Gives what stops it when called. ``path`` is the file that the job's request sent this stream to, None for none.
        A ``paced`` reader says what it has `Following.taken`, and gets no more than `WINDOW` bytes ahead of that.
        """
        output = _Output(job, stream, path, offset, sink, paced)
        self._subscribe(output)

        def stop() -> None:
            with self._lock:
                output.stopped = True
                sub, output.sub = output.sub, None
                if sub is not None:
                    self._outputs.pop(sub, None)
            if sub is not None:
                self.request_later("unfollow", sub=sub)

        def taken(size: int) -> None:
            with self._lock:
                output.taken += size
                sub = output.sub
                tell = sub is not None and output.taken - output.told >= WINDOW // 2
                if tell:
                    output.told = output.taken
            if tell:
                self.request_later("taken", sub=sub, offset=output.taken)

        return Following(stop, taken)

    def close(self) -> None:
        """End the stream; requests without an answer fail. The agent itself is not ended."""
        with self._lock:
            self._closing.set()
            streams = [self._stream, self._opening]
            elsewhere = self._elsewhere
        for stream in streams:
            if stream is not None:
                stream.close()
        # One that waits for an API server that is away may do so for a minute.
        if self._reader is not None and self._reader is not threading.current_thread() and not elsewhere:
            self._reader.join()
        self._fail_pending(SessionClosedError("the session is closed"))

    @property
    def ended(self) -> bool:
        """Whether the agent has said that it ends."""
        return self._bye is not None

    # -- opening

    def _open(self) -> Hello:
        """Open a stream and greet on it, synchronously; then resume. Raises OSError or ProtocolError."""
        with self._waiting_for_others():
            stream = self._opener(self._endpoint)
        with self._lock:
            self._opening = stream
            closed = self._closing.is_set()
        try:
            if closed:
                raise ConnectionError("the session is closed")
            self._lines = wire.LineReader()
            self._queued = deque()
            self._resync = []
            hello_request = {"id": 0, "op": "hello", "versions": [wire.VERSION], "observer": self._observer}
            stream.send(wire.encode(hello_request))
            reply = self._await_reply(stream, 0)
            hello = Hello.of(reply)
            if self.hello is not None and hello.instance != self.hello.instance:
                raise _Replaced("the Flux instance was replaced by another one; its jobs are unknown there")
            after = list(self._cursor) if self._cursor is not None else None
            stream.send(wire.encode({"id": 0, "op": "watch", "after": after, "snapshot": after is not None}))
            watch = self._await_reply(stream, 0)
        except BaseException:
            stream.close()
            raise
        resumed = self._cursor is not None
        cursor = wire.parse_cursor(watch["cursor"])
        assert cursor is not None
        self._cursor = cursor
        if resumed and watch.get("snapshot") is not None:
            self._handler.on_snapshot(watch["snapshot"])
        with self._lock:
            self._stream, self._opening = stream, None
            if self._closing.is_set():
                stream.close()  # the reader finds it cut, and ends
            for pending in self._pending.values():
                pending.parts.clear()
            for output in self._outputs.values():
                output.sub = None
            again = [pending.line for pending in self._pending.values()]
            outputs = list(self._outputs.values())
            self._outputs.clear()
        for line in again:
            self._send(stream, line)
        for output in outputs:
            self._subscribe(output)
        return hello

    def _await_reply(self, stream: Stream, request_id: int) -> dict[str, Any]:
        limit = max(self._silence_limit, self._start_limit if self.hello is None else 0.0)
        deadline = time.monotonic() + limit
        parts: list[dict[str, Any]] = []
        while True:
            while self._queued:
                message = self._decode(self._queued.popleft())
                if message.get("re") == request_id and "part" in message:
                    parts += message["part"]
                if message.get("re") == request_id and "ok" in message:
                    ok: dict[str, Any] = message["ok"]
                    if ok.get("snapshot") is not None:
                        ok["snapshot"] = parts + ok["snapshot"]
                    return ok
                if "error" in message:
                    error = message["error"]
                    if error.get("code") == "closing":
                        raise EndingError("the agent is ending")
                    if error.get("code") == "busy":
                        raise _Busy(str(error.get("message")))
                    raise ProtocolError(f"the agent refused the session: {error.get('message')}")
                if "bye" in message:
                    self._bye = str(message["bye"])
            data = stream.receive(max(0.0, deadline - time.monotonic()))
            if data is None:
                raise TimeoutError(f"the agent did not answer within {limit:g} s")
            if not data:
                raise ConnectionError("the agent closed the stream")
            self._queued.extend(self._lines.feed(data))

    def _decode(self, found: object) -> dict[str, Any]:
        if not isinstance(found, bytes):
            raise ProtocolError(f"the agent sent something that is no message: {found}")
        try:
            return wire.decode(found)
        except wire.WireError as err:
            raise ProtocolError(f"the agent sent something that is no message: {err}") from None

    # -- the reader

    def _read_forever(self) -> None:
        reason = ""
        while True:
            try:
                self._read_until_cut()
                reason = "the agent closed the stream"
            except OSError as err:
                reason = f"the stream to the agent was cut: {err}"
            except ProtocolError as err:
                reason = f"the stream to the agent was cut: {err}"
                self._fail_unanswerable(str(err))
            except BaseException as err:  # of ours, or of a caller's function: whoever waits must hear of the end
                log.exception("reading what the agent says failed")
                self._drop_stream()
                self._end(f"reading what the agent says failed: {err!r}")
                return
            self._drop_stream()
            if self._closing.is_set():
                return
            self._fail_unrepeatable(reason)
            if self._bye is not None:
                self._end(f"the agent ended: {self._bye}")
                return
            log.log(logging.INFO if self._patience > _PATIENCE else logging.DEBUG, "%s; trying again", reason)
            try:
                self._reopen()
            except (OSError, TransportError) as err:
                if self._closing.is_set():
                    return
                self._end(f"{reason}; {err}" if str(err) not in reason else reason)
                return
            except Exception as err:  # a bug of ours, or of a library's: whoever waits must hear of the end
                log.exception("reconnecting failed")
                self._end(f"{reason}; {err!r}")
                return

    def _drop_stream(self) -> None:
        with self._lock:
            stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()

    def _reopen(self) -> None:
        import tenacity  # imported after a cut only: it costs a tenth of the package's import

        def may_retry(state: RetryCallState) -> bool:
            error = state.outcome.exception() if state.outcome is not None else None
            return isinstance(error, OSError) and not isinstance(error, _Replaced) and not self._closing.is_set()

        why: str | None = None

        def stop(state: RetryCallState) -> bool:
            nonlocal why
            why = self._is_gone()
            return why is not None or (state.seconds_since_start or 0.0) > self._patience

        retrying = tenacity.Retrying(
            retry=may_retry,
            stop=stop,
            wait=tenacity.wait_exponential_jitter(multiplier=0.05, max=2.0, jitter=0.05),
            sleep=tenacity.sleep_using_event(self._closing),
            reraise=True,
        )
        try:
            retrying(self._open)
        except OSError as err:
            raise TransportError(why or self._is_gone() or f"it did not come back: {err}") from err

    def _is_gone(self) -> str | None:
        with self._waiting_for_others():
            return self._gone()

    @contextlib.contextmanager
    def _waiting_for_others(self) -> Iterator[None]:
        """Around what may take long, and of which nothing comes that `close` has to wait for.

        Raises ConnectionError where the session is closed by then.
        """
        with self._lock:
            if self._closing.is_set():
                raise ConnectionError("the session is closed")
            self._elsewhere = True
        try:
            yield
        finally:
            with self._lock:
                self._elsewhere = False

    def _read_until_cut(self) -> None:
        stream = self._stream
        assert stream is not None
        heard = time.monotonic()
        while True:
            while self._queued:
                self._dispatch(stream, self._decode(self._queued.popleft()))
            data = stream.receive(self._ping_interval)
            now = time.monotonic()
            if data is None:
                if now - heard >= self._silence_limit:
                    raise TimeoutError(f"silence for {self._silence_limit:g} s")
                self._send(stream, wire.encode({"ping": 0}))
                continue
            if not data:
                return
            heard = now
            self._queued.extend(self._lines.feed(data))

    def _dispatch(self, stream: Stream, message: dict[str, Any]) -> None:
        if "ev" in message:
            self._events(message["ev"])
        elif "re" in message:
            self._reply(message)
        elif "out" in message:
            self._output(message)
        elif "ping" in message:
            self._send(stream, wire.encode({"pong": message["ping"]}))
        elif "resync_part" in message:
            self._resync += message["resync_part"]
        elif "resync" in message:
            self._cursor = wire.parse_cursor(message["cursor"])
            jobs, self._resync = self._resync + message["resync"], []
            self._handler.on_snapshot(jobs)
        elif "bye" in message:
            self._bye = str(message["bye"])

    def _events(self, entries: list[list[Any]]) -> None:
        assert self._cursor is not None
        epoch, last = self._cursor
        events = [
            JobEvent(Cursor(epoch, sequence), job, name, timestamp, context)
            for sequence, job, name, timestamp, context in entries
            if sequence > last
        ]
        if events:
            self._cursor = events[-1].cursor
            self._handler.on_events(events)

    def _reply(self, message: dict[str, Any]) -> None:
        with self._lock:
            if "part" in message:
                if message["re"] in self._pending:
                    self._pending[message["re"]].parts += message["part"]
                return
            pending = self._pending.pop(message["re"], None) if isinstance(message["re"], int) else None
        if pending is None:
            if "error" in message:
                log.warning("the agent complained: %s", message["error"].get("message"))
            return
        if "error" in message:
            error = message["error"]
            pending.future.set_exception(AgentError(str(error.get("code")), str(error.get("message"))))
        else:
            ok = message["ok"]
            if pending.parts:
                ok["jobs"] = pending.parts + ok["jobs"]
            pending.future.set_result(ok)

    # -- output

    def _subscribe(self, output: _Output) -> None:
        def subscribed(done: Future[dict[str, Any]]) -> None:
            error = done.exception()
            if error is None:
                sub = done.result()["sub"]
                with self._lock:
                    stopped = output.stopped
                    if not stopped:
                        self._outputs[sub] = output
                        output.sub = sub
                if stopped:
                    self.request_later("unfollow", sub=sub)
            elif output.stopped:
                pass
            elif isinstance(error, TransportError) and not self._closing.is_set() and self._lost is None:
                self._subscribe(output)  # the cut came before the answer
            else:
                self._give(output, error)

        with self._lock:
            output.told = taken = output.taken if output.paced else output.offset
        self.request_later(
            "output", answered=subscribed, job=output.job, stream=output.stream, path=output.path,
            offset=output.offset, taken=taken, window=WINDOW if output.paced else 0,
        )  # fmt: skip

    def _output(self, message: dict[str, Any]) -> None:
        sub, _stream, offset, data, eof = message["out"]
        with self._lock:
            output = self._outputs.get(sub)
            if eof and output is not None:
                del self._outputs[sub]
                output.sub = None
        if output is None:
            return
        piece = base64.b64decode(data)
        piece = piece[max(0, output.offset - offset) :]
        if piece:
            output.offset += len(piece)
            self._give(output, piece)
        if eof:
            self._give(output, AgentError("engine", str(message["error"])) if "error" in message else None)

    def _give(self, output: _Output, what: bytes | BaseException | None) -> None:
        try:
            output.sink(what)
        except BaseException:  # a caller's function, SystemExit included, must not end the thread of all
            log.exception("a reader of the output of job %s failed", output.job)

    # -- small parts

    def _take_id(self) -> int:
        self._next_id += 1
        return self._next_id

    def _send(self, stream: Stream, line: bytes) -> None:
        try:
            with self._send_lock:
                stream.send(line)
        except OSError:
            # The reader finds the same cut; closing wakes it. What could be asked again is asked again then.
            with contextlib.suppress(OSError):
                stream.close()

    def _fail_unrepeatable(self, reason: str) -> None:
        with self._lock:
            failed = [(i, p) for i, p in self._pending.items() if not p.repeatable]
            for request_id, _ in failed:
                del self._pending[request_id]
        for _, pending in failed:
            pending.future.set_exception(TransportError(reason))

    def _fail_unanswerable(self, reason: str) -> None:
        """What was asked several times, and each time brought no message, is not asked once more."""
        failed = []
        with self._lock:
            for request_id, pending in list(self._pending.items()):
                pending.tries += 1
                if pending.tries >= _TRIES:
                    failed.append(self._pending.pop(request_id))
        for pending in failed:
            pending.future.set_exception(TransportError(f"{pending.op!r} was asked {_TRIES} times: {reason}"))

    def _fail_pending(self, error: Exception) -> None:
        with self._lock:
            failed = list(self._pending.values())
            self._pending.clear()
            outputs = list(self._outputs.values())
            self._outputs.clear()
        for pending in failed:
            pending.future.set_exception(error)
        for output in outputs:
            self._give(output, error)

    def _end(self, reason: str) -> None:
        with self._lock:
            self._lost = reason
        self._fail_pending(SessionClosedError(reason))
        self._handler.on_lost(reason)


class _Busy(OSError):
    """The agent takes no further client now; it may a moment later."""


class _Replaced(ConnectionError):
    """Another instance answers where ours was."""
