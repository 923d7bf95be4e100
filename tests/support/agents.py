"""An agent as a client's stream sees it, without a process."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable
from typing import Any

from executors.agent import wire
from executors.transport import UnixEndpoint
from executors.transport.base import Endpoint, Stream

Answers = Callable[[dict[str, Any]], Iterable[dict[str, Any]]]

HELLO = {"version": 1, "instance": "here-1.1", "engine": "embedded", "run": "run-1234"}


class FakeAgent:
    """Opens streams (`open`), answers ``hello`` and ``watch`` on them, and other requests by ``answers``.

    ``answers`` returns the messages that follow a request, none by default. ``requests`` has what was asked.
    """

    def __init__(self, answers: Answers = lambda request: ()) -> None:
        self.answers = answers
        self.requests: list[dict[str, Any]] = []
        self.hello: dict[str, Any] = dict(HELLO)
        self.snapshot: list[dict[str, Any]] | None = None
        self.cursor = wire.Cursor("epoch", 0)
        #: Why it cannot be reached; None: it can.
        self.away: OSError | None = None
        self.streams: list[FakeStream] = []
        self.endpoint = UnixEndpoint("/nowhere")

    def open(self, endpoint: Endpoint) -> Stream:
        if self.away is not None:
            raise self.away
        self.streams.append(FakeStream(self))
        return self.streams[-1]

    def say(self, message: dict[str, Any]) -> None:
        """Send a message on the last stream."""
        self.streams[-1].put(wire.encode(message))

    def cut(self) -> None:
        """Cut the last stream."""
        self.streams[-1].put(ConnectionResetError("cut by the test"))

    def asked(self, op: str) -> list[dict[str, Any]]:
        return [request for request in self.requests if request.get("op") == op]

    def take(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        self.requests.append(request)
        if request.get("op") == "hello":
            return [{"re": request["id"], "ok": self.hello}]
        if request.get("op") == "watch":
            return [{"re": request["id"], "ok": {"cursor": list(self.cursor), "snapshot": self.snapshot}}]
        return list(self.answers(request))


class FakeStream:
    """A stream in memory."""

    def __init__(self, agent: FakeAgent) -> None:
        self._agent = agent
        self._reader = wire.LineReader()
        self._arrived: queue.SimpleQueue[bytes | OSError] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self.closed = False

    def put(self, what: bytes | OSError) -> None:
        self._arrived.put(what)

    def send(self, data: bytes) -> None:
        with self._lock:
            if self.closed:
                raise BrokenPipeError("the stream is closed")
            for line in self._reader.feed(data):
                assert isinstance(line, bytes)
                for message in self._agent.take(wire.decode(line)):
                    self.put(wire.encode(message))

    def receive(self, timeout: float) -> bytes | None:
        try:
            arrived = self._arrived.get(timeout=timeout)
        except queue.Empty:
            return None
        if isinstance(arrived, OSError):
            raise arrived
        return arrived

    def close(self) -> None:
        self.closed = True
        self._arrived.put(b"")
