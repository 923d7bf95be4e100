"""What the agent keeps of a job's output for a client that does not read it."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable
from typing import Any

from executors.agent import connection, wire
from executors.agent.connection import Connection
from executors.agent.engine import Follower
from executors.agent.jobs import JobTable

OUTPUT = bytes(range(256)) * 4096 * 24
PIECE = 64 * 1024


class Server:
    """Gives output as Flux does: all that there is, whoever reads it."""

    table = JobTable("epoch")
    ending = False

    def __init__(self) -> None:
        self.most = 0
        self.readers = 0
        self.client: Connection | None = None

    def connected(self, client: Connection) -> None:
        self.client = client

    greeted = disconnected = connected

    def describe(self) -> dict[str, Any]:
        return {}

    def has_room(self, transport: object) -> bool:
        return True

    def followed(self, job: str) -> None:
        self.readers += 1

    def unfollowed(self, job: str) -> None:
        self.readers -= 1

    def handler(self, op: str) -> Any:
        async def follow(client: Connection, request: dict[str, Any]) -> dict[str, Any]:
            return {"sub": client.follow("job", "stdout", None, 0, 0, 0)}

        return follow

    def follow(self, job: str, stream: str, path: str | None, offset: int, sink: Callable[..., None]) -> Follower:
        def most() -> None:
            assert self.client is not None
            self.most = max(self.most, self.client._held_bytes)

        return Everything(stream, offset, sink, most)


class Everything(Follower):
    """Gives all at once, whoever takes it."""

    costly = True

    def __init__(self, stream: str, offset: int, sink: Callable[..., None], given: Callable[[], None]) -> None:
        self.stopped = False

        def give(place: int) -> None:
            data = OUTPUT[place : place + PIECE]
            if not self.stopped:
                sink(stream, place, data, not data, None)
                given()

        for place in [*range(offset, len(OUTPUT), PIECE), len(OUTPUT)]:
            asyncio.get_running_loop().call_soon(give, place)

    def stop(self) -> None:
        self.stopped = True


def test_output_that_a_client_does_not_read_does_not_fill_the_agents_memory_and_is_not_lost() -> None:
    ours, theirs = socket.socketpair()
    server = Server()
    ours.settimeout(60)

    def read() -> bytes:
        ours.sendall(b'{"id":1,"op":"hello","versions":[1]}\n{"id":2,"op":"follow"}\n')
        found = bytearray()
        with ours, ours.makefile("rb") as lines:
            for line in lines:
                message = json.loads(line)
                if "out" in message:
                    _, _, place, text, eof = message["out"]
                    assert place == len(found), "a piece is missing, or there twice"
                    if eof:
                        return bytes(found)
                    found += base64.b64decode(text)
        raise AssertionError("no end")

    async def serve() -> bytes:
        loop = asyncio.get_running_loop()
        client, _ = await loop.connect_accepted_socket(lambda: Connection(server), theirs)  # type: ignore[arg-type]
        try:
            return await loop.run_in_executor(None, read)
        finally:
            client.close()

    assert asyncio.run(serve()) == OUTPUT
    assert 0 < server.most < connection.MAX_HELD + 2 * PIECE


def _stop(client: subprocess.Popen[bytes]) -> None:
    client.send_signal(signal.SIGSTOP)
    os.waitpid(client.pid, os.WUNTRACED)


def _go_on(client: subprocess.Popen[bytes]) -> None:
    client.send_signal(signal.SIGCONT)
    os.waitpid(client.pid, os.WCONTINUED)


def test_a_stopped_client_is_not_taken_for_gone() -> None:
    async def serve(client: subprocess.Popen[bytes]) -> None:
        ours, theirs = socket.socketpair()
        loop = asyncio.get_running_loop()
        _, made = await loop.create_connection(lambda: Connection(Server()), sock=ours)  # type: ignore[arg-type]
        assert made._transport is not None
        made._peer = client.pid  # that of a pair is this process
        _stop(client)
        made._heard = loop.time() - 10 * wire.SILENCE_LIMIT
        made._keep_alive()
        assert not made._transport.is_closing()
        # It goes on, and has its time to say something; then it is silent indeed.
        _go_on(client)
        made._keep_alive()
        assert not made._transport.is_closing()
        made._heard = loop.time() - 10 * wire.SILENCE_LIMIT
        made._keep_alive()
        assert made._transport.is_closing()
        theirs.close()

    with subprocess.Popen(["sleep", "600"]) as client:
        try:
            asyncio.run(serve(client))
        finally:
            client.kill()
