"""When output goes to a client, waits for it, or is read again: `Subscriptions` without a stream."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

from executors.agent.engine import Follower, OutputPosition, OutputSink
from executors.agent.protocol.outputs import Subscriptions
from tests.support.hosts import FakeHost

START = OutputPosition("job", "stdout", None, 0)


class Source(FakeHost):
    """Output that a test writes by hand; ``begun`` is where followers began."""

    def __init__(self, costly: bool) -> None:
        super().__init__()
        self.costly = costly
        self.begun: list[int] = []
        self.following: list[Manual] = []

    def follow(self, position: OutputPosition, sink: OutputSink) -> Follower:
        self.begun.append(position.offset)
        self.following.append(Manual(self.costly, sink))
        return self.following[-1]


class Manual(Follower):
    def __init__(self, costly: bool, sink: OutputSink) -> None:
        self.costly = costly
        self.sink = sink
        self.stopped = False

    def stop(self) -> None:
        self.stopped = True


class Client:
    """One client and what it was sent: the text of each piece, and the end as None."""

    def __init__(self, source: FakeHost, taken: int = 0, window: int = 0) -> None:
        self.messages: list[dict[str, Any]] = []
        self.outputs = Subscriptions(source, lambda line: self.messages.append(json.loads(line)))
        self.number = self.outputs.open(START, taken, window)

    @property
    def pieces(self) -> list[str | None]:
        return [None if eof else base64.b64decode(text).decode() for _, _, _, text, eof in self._outs]

    @property
    def _outs(self) -> list[list[Any]]:
        return [message["out"] for message in self.messages]


async def begun(source: Source, **how: int) -> Client:
    client = Client(source, **how)
    assert source.begun == []  # not before the reply
    await asyncio.sleep(0)
    return client


def test_a_reader_that_takes_nothing_gets_no_more_than_its_window() -> None:
    async def run() -> None:
        source = Source(costly=True)
        client = await begun(source, window=4)
        sink = source.following[0].sink
        sink.data(0, b"abcd")
        sink.data(4, b"efg")
        sink.end(7, None)
        assert client.pieces == ["abcd"] and client.outputs.held_bytes > 0
        client.outputs.taken(client.number, 3)
        assert client.pieces == ["abcd", "efg"]  # one piece may pass the window, no piece begins beyond it
        client.outputs.taken(client.number, 7)
        assert client.pieces == ["abcd", "efg", None]
        assert client.outputs.held_bytes == 0 and source.readers == 0

    asyncio.run(run())


def test_a_follower_that_begins_again_for_nothing_is_stopped_instead_of_held() -> None:
    async def run() -> None:
        source = Source(costly=False)
        client = await begun(source)
        client.outputs.pause()
        source.following[0].sink.data(0, b"abc")
        assert source.following[0].stopped
        source.following[0].sink.data(3, b"not wanted any more")
        client.outputs.resume()
        assert source.begun == [0, 3]
        source.following[1].sink.end(3, "the file is gone")
        assert client.pieces == ["abc", None] and client.messages[-1]["error"] == "the file is gone"

    asyncio.run(run())


def test_a_closed_subscription_sends_nothing_and_has_no_reader() -> None:
    async def run() -> None:
        source = Source(costly=True)
        client = await begun(source, window=1)
        sink = source.following[0].sink
        sink.data(0, b"ab")
        sink.data(2, b"cd")
        client.outputs.close_all()
        sink.data(4, b"ef")
        client.outputs.taken(client.number, 4)
        client.outputs.close(client.number)
        assert client.pieces == ["ab"] and source.following[0].stopped
        assert client.outputs.held_bytes == 0 and source.readers == 0

    asyncio.run(run())


def test_output_that_cannot_be_read_ends_with_the_reason() -> None:
    async def run() -> None:
        host = FakeHost()
        client = Client(host)
        await asyncio.sleep(0)
        assert client.messages == [{"out": [client.number, "stdout", 0, "", True], "error": "no output here"}]
        assert host.readers == 0

    asyncio.run(run())
