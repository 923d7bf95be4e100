"""What a pilot tells its agent, and how output comes from there piece by piece. No process, no Flux."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from executors.agent.engine import Follower, OutputPosition, OutputSink
from executors.agent.pilot.messages import Answer
from executors.agent.pilot.output import PieceSink, RemoteFollower
from executors.agent.pilot.telling import Telling
from tests.support.readers import Reader


class Attached:
    def __init__(self) -> None:
        self.said: list[Any] = []
        self.spoke = asyncio.Event()

    def respond(self, payload: Any) -> None:
        self.said.append(payload)
        self.spoke.set()

    def is_ended_by(self, disconnect: Any) -> bool:
        return disconnect is self


def test_an_agent_is_told_in_order_and_the_one_before_it_no_more() -> None:
    async def body() -> None:
        telling = Telling()
        telling.tell("held", [[1, "f1"]])  # nobody listens: the inventory has it
        first, second = Attached(), Attached()
        telling.begin(first, [{"complete": True}])
        telling.tell("held", [[2, "f2"]])
        telling.tell("left", [1])
        telling.tell_now("events", [["x", "start", 1.0, {}]])
        telling.begin(second, [{"inventory": []}, {"complete": True}])
        telling.tell("stay", [1])
        telling.end()
        told = {"held": [[2, "f2"]], "left": [1], "events": [["x", "start", 1.0, {}]]}
        assert first.said == [{"complete": True}, told, {"error": "a later agent has taken over"}]
        assert second.said == [{"inventory": []}, {"complete": True}, {"stay": [1]}, {"ended": True}]

    asyncio.run(body())


def test_what_can_wait_goes_with_the_next_message_and_comes_without_one_too() -> None:
    async def body() -> None:
        telling, agent = Telling(), Attached()
        telling.begin(agent, [])
        telling.tell_within(600, "events", [["x", "start", 1.0, {}]])
        telling.tell_within(600, "events", [["y", "start", 1.0, {}]])
        await asyncio.sleep(0)
        assert agent.said == []
        telling.tell_now("events", [["x", "finish", 2.0, {}]])
        names = [["x", "start"], ["y", "start"], ["x", "finish"]]
        assert [event[:2] for event in agent.said.pop()["events"]] == names
        agent.spoke.clear()
        telling.tell_within(0.001, "events", [["z", "start", 3.0, {}]])
        await asyncio.wait_for(agent.spoke.wait(), 60)
        assert agent.said == [{"events": [["z", "start", 3.0, {}]]}]
        telling.tell_within(600, "events", [["z", "alloc", 3.0, {}]])
        telling.end()
        assert agent.said[1:] == [{"events": [["z", "alloc", 3.0, {}]]}, {"ended": True}]

    asyncio.run(body())


def test_only_the_end_of_the_agent_itself_leaves_a_pilot_without_one() -> None:
    async def body() -> None:
        telling, agent = Telling(), Attached()
        telling.begin(agent, [])
        telling.disconnected(Attached())
        assert telling.has_agent
        telling.disconnected(agent)
        assert not telling.has_agent
        telling.tell_now("left", [1])
        assert agent.said == []

    asyncio.run(body())


class Output(Follower):
    """What a pilot keeps of a task: pieces, and then the end with an error."""

    def __init__(self, sink: OutputSink, position: OutputPosition, pieces: list[bytes], error: str | None) -> None:
        self.sink, self.position, self.pieces, self.error = sink, position, pieces, error

    def stop(self) -> None:
        pass

    def deliver(self) -> None:
        offset = 0
        for piece in self.pieces:
            if offset >= self.position.offset:
                self.sink.data(offset, piece)
            offset += len(piece)
        self.sink.end(offset, self.error)


class Pilots:
    """The way to one pilot, which keeps some output; or, with a reason, to none."""

    def __init__(self, pieces: list[bytes], error: str | None = None, refuses: str = "", lost: str = "") -> None:
        self.pieces, self.error, self.refuses, self.lost = pieces, error, refuses, lost

    def read(
        self, rank: int, position: OutputPosition, answered: Callable[[Answer], None], lost: Callable[[str], None]
    ) -> None:
        if self.lost:
            lost(self.lost)
        elif self.refuses:
            answered({"error": self.refuses})
        else:
            piece = PieceSink(answered)
            output = Output(piece, position, self.pieces, self.error)
            piece.follower = output
            output.deliver()


@pytest.mark.parametrize(
    ("pilots", "offset", "got"),
    [
        (Pilots([b"ab", b"\xff"]), 0, [(0, b"ab"), (2, b"\xff"), (3, None)]),
        (Pilots([b"ab", b"c"], error="cut"), 2, [(2, b"c"), (3, "cut")]),
        (Pilots([], refuses="it is ending"), 5, [(5, "it is ending")]),
        (Pilots([], lost="No route to host"), 5, [(5, "No route to host")]),
    ],
    ids=["all", "from an offset", "refused", "gone"],
)
def test_output_comes_piece_by_piece_and_ends_once(pilots: Pilots, offset: int, got: list[Any]) -> None:
    reader = Reader()
    RemoteFollower(pilots, 3, OutputPosition("p1.1", "stdout", None, offset), reader)
    if pilots.refuses or pilots.lost:
        offset, reason = got[-1]
        got = [(offset, f"the pilot on rank 3, which kept this output, cannot be asked: {reason}")]
    assert reader.got == got
