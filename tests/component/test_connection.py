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

from executors.agent import wire
from executors.agent.engine import Follower, OutputPosition, OutputSink
from executors.agent.protocol import outputs
from executors.agent.protocol.connection import Connection, Handler
from tests.support.hosts import FakeHost

OUTPUT = bytes(range(256)) * 4096 * 24
PIECE = 64 * 1024


class Chatty(FakeHost):
    """Returns output as Flux does: all that there is, no matter who reads it."""

    def __init__(self) -> None:
        super().__init__()
        #: Most bytes that have waited for the client.
        self.most = 0

    def handler(self, op: str) -> Handler | None:
        async def follow(client: Connection, request: dict[str, Any]) -> dict[str, Any]:
            return {"sub": client.outputs.open(OutputPosition("job", "stdout", None, 0), 0, 0)}

        return follow

    def follow(self, position: OutputPosition, sink: OutputSink) -> Follower:
        def most() -> None:
            self.most = max(self.most, self.clients[0].outputs.held_bytes)

        return Everything(position.offset, sink, most)


class Everything(Follower):
    """Returns all at once, no matter who takes it."""

    costly = True

    def __init__(self, offset: int, sink: OutputSink, given: Callable[[], None]) -> None:
        self.stopped = False

        def give(offset: int) -> None:
            data = OUTPUT[offset : offset + PIECE]
            if self.stopped:
                return
            if data:
                sink.data(offset, data)
            else:
                sink.end(offset, None)
            given()

        for start in [*range(offset, len(OUTPUT), PIECE), len(OUTPUT)]:
            asyncio.get_running_loop().call_soon(give, start)

    def stop(self) -> None:
        self.stopped = True


def test_output_that_a_client_does_not_read_does_not_fill_the_agents_memory_and_is_not_lost() -> None:
    ours, theirs = socket.socketpair()
    host = Chatty()
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
        client, _ = await loop.connect_accepted_socket(lambda: Connection(host), theirs)
        try:
            return await loop.run_in_executor(None, read)
        finally:
            client.close()

    assert asyncio.run(serve()) == OUTPUT
    assert 0 < host.most < outputs.MAX_HELD + 2 * PIECE


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
        _, made = await loop.create_connection(lambda: Connection(FakeHost()), sock=ours)
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
