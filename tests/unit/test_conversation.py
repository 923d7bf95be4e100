"""What is read from a stream: bytes in, messages out."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from executors.agent import wire
from executors.agent.wire import Cursor, JobEvent
from executors.client.conversation import (
    AgentBusyError,
    Bye,
    Conversation,
    Events,
    Greeted,
    Message,
    Output,
    Ping,
    Reply,
    Snapshot,
    Watching,
)
from executors.errors import EndingError, ProtocolError
from tests.support.agents import HELLO


def messages(conversation: Conversation) -> list[Message]:
    taken = []
    while (message := conversation.take()) is not None:
        taken.append(message)
    return taken


def opened(cursor: Cursor | None = None, snapshot: Any = None) -> Conversation:
    conversation = Conversation(observer=False, cursor=cursor)
    conversation.feed(wire.encode({"re": 0, "ok": HELLO}))
    conversation.feed(wire.encode({"re": 0, "ok": {"cursor": ["e", 7], "snapshot": snapshot}}))
    greeted, watching = messages(conversation)
    assert isinstance(greeted, Greeted) and greeted.hello.instance == "here-1.1"
    assert isinstance(watching, Watching)
    return conversation


def event(sequence: int, job: str = "f1", name: str = "start") -> list[Any]:
    return [sequence, job, name, 1.0, {}]


#: Parts of job summaries: nothing here looks into them.
ONE: Any = {"id": "f1"}
TWO: Any = {"id": "f2"}

#: All that can come on an open stream, and what it is.
TALK: list[tuple[dict[str, Any], Message | None]] = [
    ({"ev": [event(7), event(8)]}, Events([JobEvent(Cursor("e", 8), "f1", "start", 1.0, {})])),
    ({"ev": [event(8)]}, None),
    ({"re": 3, "part": [{"id": "f1"}]}, None),
    ({"re": 3, "ok": {"jobs": [{"id": "f2"}]}}, Reply(3, {"jobs": [{"id": "f1"}, {"id": "f2"}]})),
    ({"out": [2, "stdout", 5, base64.b64encode(b"hello\n").decode(), False]}, Output(2, 5, b"hello\n", False, None)),
    ({"out": [2, "stdout", 11, "", True], "error": "gone"}, Output(2, 11, b"", True, "gone")),
    ({"ping": 4}, Ping(4)),
    ({"pong": 0}, None),
    ({"resync_part": [{"id": "f1"}]}, None),
    ({"resync": [{"id": "f2"}], "cursor": ["e", 20]}, Snapshot([ONE, TWO])),
    ({"ev": [event(20), event(21)]}, Events([JobEvent(Cursor("e", 21), "f1", "start", 1.0, {})])),
    ({"bye": "released"}, Bye("released")),
]


@given(st.lists(st.integers(1, 200), max_size=40))
def test_what_arrives_is_the_same_in_whatever_pieces_it_comes(sizes: list[int]) -> None:
    conversation = opened()
    data = b"".join(wire.encode(message) for message, _ in TALK)
    taken: list[Message] = []
    for size in [*sizes, len(data)]:
        conversation.feed(data[:size])
        data = data[size:]
        taken += messages(conversation)
    assert taken == [meaning for _, meaning in TALK if meaning is not None]
    assert conversation.cursor == Cursor("e", 21)


def test_a_stream_goes_on_after_the_last_event_of_the_one_before() -> None:
    first = opened()
    first.feed(wire.encode({"ev": [event(8), event(9)]}))
    messages(first)
    second = Conversation(observer=True, cursor=first.cursor)
    assert wire.decode(second.hello_request())["observer"] is True
    assert wire.decode(second.watch_request()) == {"id": 0, "op": "watch", "after": ["e", 9], "snapshot": True}
    first_of_all = wire.decode(Conversation(observer=False, cursor=None).watch_request())
    assert first_of_all == {"id": 0, "op": "watch", "after": None, "snapshot": False}


def test_a_snapshot_is_for_those_that_missed_events() -> None:
    for cursor, seen in ((None, None), (Cursor("e", 1), [ONE, TWO])):
        conversation = Conversation(observer=False, cursor=cursor)
        conversation.feed(wire.encode({"re": 0, "ok": HELLO}))
        conversation.feed(wire.encode({"re": 0, "part": [{"id": "f1"}]}))
        conversation.feed(wire.encode({"re": 0, "ok": {"cursor": ["f", 1], "snapshot": [{"id": "f2"}]}}))
        assert messages(conversation)[1] == Watching(seen)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ({"re": 0, "error": {"code": "closing", "message": "x"}}, EndingError),
        ({"re": None, "error": {"code": "busy", "message": "its table of open files is full"}}, AgentBusyError),
        ({"re": 0, "error": {"code": "version", "message": "speaks 2"}}, ProtocolError),
        ({"re": 0, "ok": {"instance": "i", "engine": "flux"}}, None),
    ],
)
def test_a_stream_that_is_refused_says_why(answer: dict[str, Any], error: type[Exception] | None) -> None:
    conversation = Conversation(observer=False, cursor=None)
    conversation.feed(wire.encode(answer))
    if error is None:
        assert isinstance(conversation.take(), Greeted)
    else:
        with pytest.raises(error):
            conversation.take()


def test_a_refused_request_is_an_answer_and_ends_nothing() -> None:
    conversation = opened()
    conversation.feed(wire.encode({"re": 4, "error": {"code": "not-found", "message": "no such job"}}))
    reply = conversation.take()
    assert isinstance(reply, Reply) and reply.error is not None and reply.error.code == "not-found"


@pytest.mark.parametrize("line", [b"banner of a proxy\n", b"[1]\n", b"x" * (wire.MAX_LINE + 1) + b"\n"])
def test_what_is_no_message_is_an_error_of_the_protocol(line: bytes) -> None:
    conversation = opened()
    conversation.feed(line)
    with pytest.raises(ProtocolError, match="not a message"):
        conversation.take()


def test_events_before_a_cursor_break_the_protocol() -> None:
    conversation = Conversation(observer=False, cursor=None)
    conversation.feed(wire.encode({"ev": [event(1)]}))
    with pytest.raises(ProtocolError):
        conversation.take()
