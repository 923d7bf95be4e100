"""The client across cuts of its stream, with an agent in memory."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from executors.agent.wire import Cursor, JobEvent, JobSummary
from executors.client import Client
from executors.client.calls import TRIES
from executors.errors import AgentError, EndingError, SessionClosedError, TransportError
from tests.support.agents import FakeAgent

LIMIT = 30.0


class Heard:
    """A handler that keeps what it hears."""

    def __init__(self) -> None:
        self.events: list[JobEvent] = []
        self.snapshots: list[list[JobSummary]] = []
        self.lost: list[str] = []
        self.changed = threading.Condition()

    def on_events(self, events: list[JobEvent]) -> None:
        with self.changed:
            self.events += events
            self.changed.notify_all()

    def on_snapshot(self, jobs: list[JobSummary]) -> None:
        with self.changed:
            self.snapshots.append(jobs)
            self.changed.notify_all()

    def on_lost(self, reason: str) -> None:
        with self.changed:
            self.lost.append(reason)
            self.changed.notify_all()

    def wait(self, what: str) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: bool(getattr(self, what)), LIMIT), what


def echo(request: dict[str, Any]) -> Iterable[dict[str, Any]]:
    yield {"re": request["id"], "ok": {"op": request["op"], "jobs": []}}


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def agent() -> FakeAgent:
    return FakeAgent(echo)


@pytest.fixture
def client(agent: FakeAgent, heard: Heard) -> Iterator[Client]:
    client = Client(agent.endpoint, heard, opener=agent.open, patience=LIMIT)
    client.connect()
    yield client
    client.close()


def test_a_request_that_may_be_repeated_is_asked_again_after_a_cut(agent: FakeAgent, client: Client) -> None:
    agent.answers = lambda request: ()
    answer = client.request_later("list", ids=["f1"])
    agent.answers = echo
    agent.cut()
    assert answer.result(LIMIT)["op"] == "list"
    assert [request["ids"] for request in agent.asked("list")] == [["f1"], ["f1"]]
    assert len({request["id"] for request in agent.asked("list")}) == 1


def test_a_request_that_must_not_be_repeated_fails_with_the_cut(agent: FakeAgent, client: Client) -> None:
    agent.answers = lambda request: ()
    answer = client.request_later("kill", ids=["f1"], signal=9)
    agent.cut()
    with pytest.raises(TransportError, match="cut by the test"):
        answer.result(LIMIT)
    agent.answers = echo
    assert client.request("info")["op"] == "info"
    assert len(agent.asked("kill")) == 1


def test_events_go_on_where_they_were(agent: FakeAgent, client: Client, heard: Heard) -> None:
    agent.say({"ev": [[1, "f1", "submit", 0.0, {}], [2, "f1", "alloc", 0.0, {}]]})
    heard.wait("events")
    agent.cursor = Cursor("epoch", 2)
    agent.cut()
    client.request("info")
    assert agent.asked("watch")[-1]["after"] == ["epoch", 2]
    agent.say({"ev": [[2, "f1", "alloc", 0.0, {}], [3, "f1", "start", 0.0, {}]]})
    client.request("info")
    assert [event.cursor.sequence for event in heard.events] == [1, 2, 3]
    assert not heard.snapshots


def test_events_that_are_gone_are_made_up_for_by_a_snapshot(agent: FakeAgent, client: Client, heard: Heard) -> None:
    snapshot: Any = [{"id": "f1"}]
    agent.snapshot = snapshot
    agent.cut()
    heard.wait("snapshots")
    assert heard.snapshots == [snapshot]


def test_output_goes_on_where_it_was(agent: FakeAgent, client: Client) -> None:
    subscriptions = iter((1, 2))

    def answers(request: dict[str, Any]) -> Iterable[dict[str, Any]]:
        if request["op"] == "output":
            yield {"re": request["id"], "ok": {"sub": next(subscriptions)}}
        else:
            yield from echo(request)

    agent.answers = answers
    pieces: list[bytes | BaseException | None] = []
    ended = threading.Event()

    def sink(piece: bytes | BaseException | None) -> None:
        pieces.append(piece)
        if piece is None:
            ended.set()

    client.follow("f1", "stdout", None, 0, sink)
    agent.say({"out": [1, "stdout", 0, "YWJj", False]})
    client.request("info")
    agent.cut()
    client.request("info")
    assert [request["offset"] for request in agent.asked("output")] == [0, 3]
    agent.say({"out": [2, "stdout", 2, "Y2Q=", False]})  # one byte of it is known
    agent.say({"out": [2, "stdout", 4, "", True]})
    assert ended.wait(LIMIT)
    assert pieces == [b"abc", b"d", None]


def test_another_instance_in_the_place_of_the_first_is_the_end(agent: FakeAgent, client: Client, heard: Heard) -> None:
    agent.hello["instance"] = "here-2.2"
    agent.cut()
    heard.wait("lost")
    assert "replaced by another" in heard.lost[0]
    with pytest.raises(SessionClosedError, match="replaced by another"):
        client.request("info")


def test_an_agent_that_has_said_goodbye_is_not_looked_for(agent: FakeAgent, client: Client, heard: Heard) -> None:
    agent.say({"bye": "released"})
    agent.cut()
    heard.wait("lost")
    assert heard.lost == ["the agent ended: released"] and len(agent.streams) == 1


def test_a_request_whose_answers_are_no_messages_is_given_up(agent: FakeAgent, client: Client, heard: Heard) -> None:
    def babble(request: dict[str, Any]) -> Iterable[dict[str, Any]]:
        if request["op"] == "list":
            agent.streams[-1].put(b"<html>\n")
            return ()
        return echo(request)

    agent.answers = babble
    answer = client.request_later("list")
    with pytest.raises(TransportError, match=rf"failed {TRIES} times"):
        answer.result(LIMIT)
    assert client.request("info")["op"] == "info", "the others go on"


def test_an_agent_that_does_not_come_back_is_given_up_after_a_while(agent: FakeAgent, heard: Heard) -> None:
    client = Client(agent.endpoint, heard, opener=agent.open, patience=0.0)
    client.connect()
    agent.away = ConnectionRefusedError("nobody listens")
    agent.cut()
    heard.wait("lost")
    assert "did not come back: nobody listens" in heard.lost[0]


def test_waiting_for_an_answer_on_the_thread_that_brings_it_is_refused(agent: FakeAgent, client: Client) -> None:
    errors: list[BaseException] = []

    def answered(_answer: object) -> None:
        try:
            client.request("info")
        except RuntimeError as err:
            errors.append(err)

    client.request_later("list", answered=answered).result(LIMIT)
    assert len(errors) == 1


def test_an_agent_that_is_ending_says_so(agent: FakeAgent, heard: Heard) -> None:
    class Ending(FakeAgent):
        def take(self, request: dict[str, Any]) -> list[dict[str, Any]]:
            return [{"re": request["id"], "error": {"code": "closing", "message": ""}}]

    ending = Ending()
    with pytest.raises(EndingError):
        Client(ending.endpoint, heard, opener=ending.open).connect()


def test_a_message_that_is_too_long_is_refused_here(client: Client) -> None:
    with pytest.raises(AgentError, match="do not fit into one message"):
        client.request("put", path="x", data="x" * 17_000_000)


def test_what_is_asked_after_the_end_is_refused(client: Client) -> None:
    client.close()
    with pytest.raises(SessionClosedError):
        client.request("info")
