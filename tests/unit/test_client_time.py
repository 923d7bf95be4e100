"""What a client does as time goes by: greeting, keeping a stream up, opening it again. On a clock that nothing moves
but the client's own waiting."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from executors.agent import wire
from executors.agent.wire import Cursor, JobEvent, JobSummary
from executors.client import Client
from executors.client.conversation import Conversation
from executors.client.greeting import ReplacedError, greet
from executors.client.reconnecting import reopen
from executors.errors import EndingError, TransportError
from executors.transport import Stream, UnixEndpoint
from executors.transport.base import Endpoint
from tests.support.agents import HELLO
from tests.support.clock import ClientClock
from tests.support.waiting import LIMIT

#: (seconds until it comes, what comes), or silence for ever.
Script = list[tuple[float, bytes | OSError]]


class ScriptedStream:
    """Waiting for what comes on it moves the clock."""

    def __init__(self, clock: ClientClock, script: Script) -> None:
        self._clock = clock
        self._script = script
        self.sent: list[dict[str, Any]] = []
        self.is_closed = False

    def send(self, data: bytes) -> None:
        self.sent += [wire.decode(line) for line in data.splitlines()]

    def receive(self, timeout: float) -> bytes | None:
        if not self._script or self._script[0][0] > timeout:
            self._clock.time += timeout
            if self._script:
                left, what = self._script[0]
                self._script[0] = (left - timeout, what)
            return None
        seconds, what = self._script.pop(0)
        self._clock.time += seconds
        if isinstance(what, OSError):
            raise what
        return what

    def close(self) -> None:
        self.is_closed = True


def answer(**ok: Any) -> bytes:
    """To ``hello`` or ``watch``, which have the same id."""
    return wire.encode({"re": 0, "ok": ok})


def greeting(**changed: str) -> Script:
    return [(0.0, answer(**{**HELLO, **changed})), (0.0, answer(cursor=["epoch", 0], snapshot=None))]


def greeted(script: Script, clock: ClientClock, instance: str | None = None) -> ScriptedStream:
    stream = ScriptedStream(clock, script)
    greet(stream, Conversation(observer=False, cursor=None), limit=60.0, instance=instance, clock=clock)
    return stream


# -- greeting


def test_a_greeting_is_hello_and_watch() -> None:
    assert [request["op"] for request in greeted(greeting(), ClientClock()).sent] == ["hello", "watch"]


@pytest.mark.parametrize(
    ("script", "seconds"),
    [
        ([], 60.0),
        # Bytes that are no whole answer do not make the limit longer.
        ([(25.0, b"{"), (25.0, b'"re"'), (25.0, b":1")], 60.0),
        ([(50.0, answer(**HELLO))], 110.0),
    ],
)
def test_an_agent_has_its_time_for_each_answer_and_no_longer(script: Script, seconds: float) -> None:
    clock = ClientClock()
    with pytest.raises(TimeoutError, match="did not answer within 60 s"):
        greeted(script, clock)
    assert clock.time == 1000.0 + seconds


def test_an_agent_that_ends_says_so_before_it_answers() -> None:
    with pytest.raises(EndingError, match="idle time-out"):
        greeted([(1.0, wire.encode({"bye": "idle time-out"}))], ClientClock())


def test_a_stream_that_ends_before_the_answer_may_come_again() -> None:
    with pytest.raises(ConnectionError, match="closed the stream"):
        greeted([(1.0, b"")], ClientClock())


def test_another_instance_is_not_greeted_for_the_first() -> None:
    with pytest.raises(ReplacedError):
        greeted(greeting(instance="other-1.1"), ClientClock(), instance=str(HELLO["instance"]))


# -- opening it again


def reopened(
    clock: ClientClock,
    attempts: Iterator[Exception | None],
    *,
    gone: Callable[[], str | None] = lambda: None,
    closing: threading.Event | None = None,
) -> None:
    """With an attempt that fails so, one after the other; None: it succeeds."""

    def attempt() -> None:
        error = next(attempts)
        if error is not None:
            raise error

    reopen(attempt, is_gone=gone, patience=60.0, closing=closing or threading.Event(), clock=clock)


def refused() -> Iterator[Exception | None]:
    while True:
        yield ConnectionRefusedError("nobody listens")


def test_a_stream_is_opened_again_at_once_and_then_with_growing_pauses() -> None:
    clock = ClientClock()
    reopened(clock, iter([None]))
    assert clock.pauses == []
    reopened(clock, iter([ConnectionRefusedError()] * 8 + [None]))
    assert len(clock.pauses) == 8 and clock.pauses[0] <= 0.1
    assert all(later >= 1.3 * pause for pause, later in zip(clock.pauses[1:5], clock.pauses[2:6], strict=True))
    assert max(clock.pauses) <= 2.05


def test_an_agent_that_does_not_come_back_is_given_up_when_patience_is_over() -> None:
    clock = ClientClock()
    with pytest.raises(TransportError, match="did not come back: nobody listens"):
        reopened(clock, refused())
    assert 1060.0 < clock.time <= 1060.0 + 2.05


def test_an_agent_that_is_gone_is_not_waited_for() -> None:
    clock = ClientClock()
    with pytest.raises(TransportError, match="the pod was deleted"):
        reopened(clock, refused(), gone=lambda: "the pod was deleted" if clock.time > 1005.0 else None)
    assert clock.time < 1010.0


@pytest.mark.parametrize("error", [ReplacedError("replaced"), EndingError("it ends")])
def test_what_does_not_pass_is_not_tried_again(error: Exception) -> None:
    clock = ClientClock()
    with pytest.raises(TransportError):
        reopened(clock, iter([error]))
    assert clock.pauses == []


def test_a_client_that_closes_ends_its_attempts() -> None:
    clock, closing = ClientClock(), threading.Event()

    def attempts() -> Iterator[Exception | None]:
        yield ConnectionRefusedError()
        closing.set()
        yield ConnectionRefusedError()

    with pytest.raises(TransportError):
        reopened(clock, attempts(), closing=closing)
    assert len(clock.pauses) == 1


# -- keeping it up


class Heard:
    def __init__(self) -> None:
        self.events: list[JobEvent] = []
        self.reason = ""
        self.lost = threading.Event()

    def on_events(self, events: list[JobEvent]) -> None:
        self.events += events

    def on_snapshot(self, jobs: list[JobSummary]) -> None:
        pass

    def on_lost(self, reason: str) -> None:
        self.reason = reason
        self.lost.set()


def lived(clock: ClientClock, *scripts: Script) -> tuple[Heard, list[ScriptedStream]]:
    """A client, until it has lost its agent: of a stream for each script, after which nothing can be opened."""
    heard, streams = Heard(), [ScriptedStream(clock, script) for script in scripts]
    coming = iter(streams)

    def opener(_: Endpoint) -> Stream:
        stream = next(coming, None)
        if stream is None:
            raise ConnectionRefusedError("nobody listens")
        return stream

    client = Client(UnixEndpoint("/nowhere"), heard, opener=opener, patience=30.0, clock=clock)
    client.connect()
    assert heard.lost.wait(LIMIT)
    client.close()
    return heard, streams


def pings(stream: ScriptedStream) -> int:
    return sum("ping" in message for message in stream.sent)


def test_a_silent_agent_is_asked_and_then_left() -> None:
    clock = ClientClock()
    heard, [stream] = lived(clock, greeting())
    assert "silence for 60 s" in heard.reason and "did not come back" in heard.reason
    assert pings(stream) == 2 and stream.is_closed
    assert clock.time > 1000.0 + wire.SILENCE_LIMIT + 30.0


def test_an_agent_that_answers_is_kept_however_little_it_has_to_say() -> None:
    clock = ClientClock()
    pongs: Script = [(25.0, wire.encode({"pong": 0}))] * 40
    _, [stream] = lived(clock, [*greeting(), *pongs, (0.0, b"")])
    assert clock.time > 1000.0 + 40 * 25.0 and pings(stream) == 40


def test_events_of_the_next_stream_follow_those_of_the_last() -> None:
    def event(sequence: int) -> bytes:
        return wire.encode({"ev": [[sequence, "f1", "start", 0.0, {}]]})

    clock = ClientClock()
    heard, [_, second] = lived(
        clock, [*greeting(), (5.0, event(1)), (300.0, event(2))], [*greeting(), (5.0, event(2)), (0.0, b"")]
    )
    assert [one.cursor for one in heard.events] == [Cursor("epoch", 1), Cursor("epoch", 2)]
    assert second.sent[1]["after"] == ["epoch", 1]
