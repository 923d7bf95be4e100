"""An agent as its connections see it, without engine and requests."""

from __future__ import annotations

import asyncio
from typing import Any

from executors.agent.engine import EngineError, Follower, OutputPosition, OutputSink
from executors.agent.protocol.connection import Connection, Handler
from executors.agent.protocol.jobs import JobTable


class FakeHost:
    """`Host` that has room, knows no request and no output, and says nothing of itself."""

    def __init__(self, table: JobTable | None = None) -> None:
        self.table = table or JobTable("epoch")
        self.ending = False
        self.clients: list[Connection] = []
        #: Readers of output that have come and not gone.
        self.readers = 0

    def has_room(self, transport: asyncio.BaseTransport) -> bool:
        return True

    def connected(self, connection: Connection) -> None:
        self.clients.append(connection)

    def greeted(self, connection: Connection) -> None:
        pass

    def disconnected(self, connection: Connection) -> None:
        pass

    def describe(self) -> Any:
        return {}

    def handler(self, op: str) -> Handler | None:
        return None

    def follow(self, position: OutputPosition, sink: OutputSink) -> Follower:
        raise EngineError("no output here", "not-found")

    def followed(self, job_id: str) -> None:
        self.readers += 1

    def unfollowed(self, job_id: str) -> None:
        self.readers -= 1
