"""One stream to one agent, kept up: a reader thread, and a new stream after each cut.

``request`` may be called from any thread. The reader reads, answers keep-alives, reconnects; handlers and sinks are
called on it and must be quick (the session only queues).
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, Protocol

from executors.agent import wire
from executors.agent.wire import JobEvent, JobSummary
from executors.client.calls import TRIES, Answer, Calls
from executors.client.clock import MONOTONIC, Clock
from executors.client.conversation import (
    Bye,
    Conversation,
    Events,
    Hello,
    Message,
    Output,
    Ping,
    Reply,
    Snapshot,
    ping,
    pong,
)
from executors.client.greeting import greet, unreachable
from executors.client.reconnecting import reopen
from executors.client.subscriptions import OutputSubscription, Sink, Subscriptions
from executors.errors import (
    AgentError,
    EndingError,
    ExecutorsError,
    ProtocolError,
    SessionClosedError,
    TransportError,
)
from executors.transport import Endpoint, Stream, open_stream

log = logging.getLogger(__name__)

#: Ids in one message; more of them are asked for by several.
_IDS = 20_000

#: Seconds of trying again, where an agent that is away so long will not come back.
_PATIENCE = 60.0


class Handler(Protocol):
    """What a client reports, in the order in which it arrived."""

    def on_events(self, events: list[JobEvent]) -> None:
        """Events that were not reported before."""

    def on_snapshot(self, jobs: list[JobSummary]) -> None:
        """The state of every unacknowledged job, where the events in between are lost."""

    def on_lost(self, reason: str) -> None:
        """The agent is gone for good. The last call."""


class Client:
    """One stream to one agent. Use `connect` first; `close` ends it.

    One class, since one lock holds stream, calls and subscriptions together: a request that is added as the stream is
    replaced must be sent once.
    """

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
        clock: Clock = MONOTONIC,
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
        self._clock = clock
        self._lock = threading.Lock()
        self._send_lock = threading.Lock()
        # Under the lock:
        self._stream: Stream | None = None
        self._opening: Stream | None = None
        self._calls = Calls()
        self._subscriptions = Subscriptions(self, self._lock)
        #: Of the stream that is there, or of the last one.
        self._conversation = Conversation(observer=observer, cursor=None)
        self._closing = threading.Event()
        #: The reader waits for others, and will hear of the end before it does anything.
        self._elsewhere = False
        self._lost: str | None = None
        self._bye: str | None = None
        self._reader: threading.Thread | None = None
        self.hello: Hello | None = None

    # -- public

    def connect(self) -> Hello:
        """Open the stream, greet, follow events.

        Raises TransportError (ProtocolError for a version mismatch, EndingError for an agent that is about to end,
        AgentSilentError only where the stream got to the agent's place, and nobody is there).
        """
        try:
            hello = self._open()
        except OSError as err:
            raise unreachable(err) from err
        self.hello = hello
        self._reader = threading.Thread(target=self._read_forever, name="agent-reader", daemon=True)
        self._reader.start()
        return hello

    def request(self, op: str, *, timeout: float | None = 60.0, **fields: Any) -> dict[str, Any]:
        """Ask and wait. Raises AgentError for its refusal, TransportError or SessionClosedError for no answer."""
        if self.on_reader:
            raise RuntimeError(f"{op!r} cannot be waited for here, because this thread would bring the answer")
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

    def tell(
        self,
        op: str,
        ids: Sequence[str],
        answered: Callable[[Sequence[str], Future[dict[str, Any]]], None] | None = None,
        **fields: Any,
    ) -> None:
        """Ask something of jobs, however many, without waiting for an answer: ``cancel``, ``ack`` or ``list``.

        ``answered`` is called with some of the ids and the answer for these.
        """
        for start in range(0, len(ids), _IDS):
            some = list(ids[start : start + _IDS])
            then = None if answered is None else partial(answered, some)
            self.request_later(op, answered=then, ids=some, **fields)

    @property
    def on_reader(self) -> bool:
        """Whether this is the thread that brings what the agent says."""
        return threading.current_thread() is self._reader

    def submit(self, items: list[bytes], environments: list[bytes]) -> Future[dict[str, Any]]:
        """Ask ``submit`` for items and the environments that they name by index, all of them encoded already."""
        body = b'"op":"submit","environments":[%b],"items":[%b]}\n' % (b",".join(environments), b",".join(items))
        return self._ask("submit", body)

    def _ask(self, op: str, rest: bytes, answered: Callable[[Answer], None] | None = None) -> Answer:
        """Send a request whose line is ``{"id":N,`` and ``rest``."""
        answer: Answer = Future()
        if answered is not None:
            # Before it is sent: added later, it might come too late to be called on the reader, in order.
            answer.add_done_callback(answered)
        refused: ExecutorsError | None = None
        with self._lock:
            request_id = self._calls.next_id()
            line = b'{"id":%d,' % request_id + rest
            stream = self._stream
            if self._lost is not None or self._closing.is_set():
                refused = SessionClosedError(self._lost or "the session is closed")
            elif len(line) > wire.MAX_LINE:
                refused = AgentError("bad-request", f"{op}: {len(line)} bytes do not fit into one message")
            else:
                self._calls.add(request_id, op, line, answer)
        if refused is not None:
            answer.set_exception(refused)
        elif stream is not None:
            self._send(stream, line)
        return answer

    def follow(
        self, job: str, stream: str, path: str | None, offset: int, sink: Sink, *, paced: bool = False
    ) -> OutputSubscription:
        """Pass output of a job to ``sink`` (None: its end; an error: the rest cannot be read) as it is written.

        ``path`` is the file that the job's request sent this stream to, None for none. A ``paced`` reader says what it
        has `OutputSubscription.taken`, and gets no more than `WINDOW` bytes ahead of that.
        """
        return self._subscriptions.add(job, stream, path, offset, sink, paced=paced)

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
        self._fail_all(SessionClosedError("the session is closed"))

    @property
    def is_over(self) -> bool:
        """It is closed, or its agent is gone."""
        return self._closing.is_set() or self._lost is not None

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
            conversation = Conversation(observer=self._observer, cursor=self._conversation.cursor)
            first = self.hello is None
            limit = max(self._silence_limit, self._start_limit if first else 0.0)
            instance = None if self.hello is None else self.hello.instance
            greeting = greet(stream, conversation, limit=limit, instance=instance, clock=self._clock)
        except BaseException as err:
            stream.close()
            if isinstance(err, EndingError):
                self._bye = str(err)
            raise
        self._conversation = conversation
        if greeting.snapshot is not None:
            self._handler.on_snapshot(greeting.snapshot)
        with self._lock:
            self._stream, self._opening = stream, None
            if self._closing.is_set():
                stream.close()  # the reader finds it cut, and ends
            lines = self._calls.lines()
            subscribe_again = self._subscriptions.cut()
        for line in lines:
            self._send(stream, line)
        subscribe_again()
        return greeting.hello

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
            except BaseException as err:  # a defect here or in a caller's function: all that wait must hear of it
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
            except Exception as err:  # a defect here or in a library: those that wait must hear of the end
                log.exception("reconnecting failed")
                self._end(f"{reason}; {err!r}")
                return

    def _reopen(self) -> None:
        reopen(self._open, is_gone=self._is_gone, patience=self._patience, closing=self._closing, clock=self._clock)

    def _drop_stream(self) -> None:
        with self._lock:
            stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()

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
        heard = self._clock.now()
        while True:
            while (message := self._conversation.take()) is not None:
                self._deal_with(message, stream)
            data = stream.receive(self._ping_interval)
            now = self._clock.now()
            if data is None:
                if now - heard >= self._silence_limit:
                    raise TimeoutError(f"silence for {self._silence_limit:g} s")
                self._send(stream, ping())
                continue
            if not data:
                return
            heard = now
            self._conversation.feed(data)

    def _deal_with(self, message: Message, stream: Stream) -> None:
        match message:
            case Events(events):
                self._handler.on_events(events)
            case Reply():
                self._reply(message)
            case Output():
                self._subscriptions.take_output(message)
            case Snapshot(jobs):
                self._handler.on_snapshot(jobs)
            case Ping():
                self._send(stream, pong(message))
            case Bye(reason):
                self._bye = reason

    def _reply(self, reply: Reply) -> None:
        with self._lock:
            answer = self._calls.take(reply.request_id)
        if answer is None:
            if reply.error is not None:
                log.warning("the agent complained: %s", reply.error)
        elif reply.error is not None:
            answer.set_exception(reply.error)
        else:
            answer.set_result(reply.ok)

    # -- small parts

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
            answers = self._calls.take_unrepeatable()
        for answer in answers:
            answer.set_exception(TransportError(reason))

    def _fail_unanswerable(self, reason: str) -> None:
        """What was asked several times, and each time brought no message, is not asked once more."""
        with self._lock:
            calls = self._calls.take_unanswerable()
        for op, answer in calls:
            answer.set_exception(TransportError(f"{op!r} failed {TRIES} times: {reason}"))

    def _fail_all(self, error: Exception) -> None:
        with self._lock:
            answers = self._calls.take_all()
        for answer in answers:
            answer.set_exception(error)
        self._subscriptions.fail(error)

    def _end(self, reason: str) -> None:
        with self._lock:
            self._lost = reason
        self._fail_all(SessionClosedError(reason))
        self._handler.on_lost(reason)
