"""A pilot's side of its holders, over a real socket: those that die, and what is said twice."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from executors.agent.pilot.holders import Held, Holders
from executors.agent.pilot.shape import Shape

HELLO = json.dumps({"job": "f7", "shape": [2, 1], "cpus": [0, 1], "gpus": "0"}).encode() + b"\n"


class Pilot:
    """What a pilot hears."""

    def __init__(self, directory: Path) -> None:
        self.path = str(directory / "holders")
        self.said: list[tuple[str, int]] = []
        self._files: list[int] = []
        self.holders = Holders(self.path, "mark", self._came, self._told_to_end, self._died)
        self.holders.listen()

    def _came(self, held: Held) -> None:
        assert (held.shape, held.cpus, held.gpus) == (Shape(2, 1), [0, 1], "0")
        self.said.append(("came", held.number))

    def _told_to_end(self, held: Held) -> None:
        self.said.append(("end", held.number))
        self.holders.let_go(held.number)

    def _died(self, held: Held) -> None:
        self.said.append(("died", held.number))
        self.holders.let_go(held.number)

    def holder(self, *said: bytes) -> tuple[socket.socket, int]:
        """One that has connected, given away a file, and said so much; and the other end of that file."""
        stream = socket.socket(socket.AF_UNIX)
        stream.connect(self.path)
        read, write = os.pipe()
        socket.send_fds(stream, [b"".join(said)], [write])
        os.close(write)
        self._files.append(read)
        return stream, read

    def close(self) -> None:
        self.holders.close()
        for file in self._files:
            os.close(file)

    async def has_said(self, *said: tuple[str, int]) -> None:
        for _ in range(200):
            if len(self.said) >= len(said):
                break
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.02)
        assert self.said == [*said]


Run = Callable[[Callable[[Pilot], Awaitable[None]]], None]


@pytest.fixture
def pilot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)  # paths of sockets are short

    def run(body: Callable[[Pilot], Awaitable[None]]) -> None:
        async def on_loop() -> None:
            failures: list[object] = []
            asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
            one = Pilot(Path())
            await body(one)
            assert not one.holders.by_number
            one.close()
            assert not failures

        asyncio.run(on_loop())

    return run


def test_a_holder_that_dies_at_once_gives_its_job_back(pilot: Run) -> None:
    async def body(one: Pilot) -> None:
        stream, file = one.holder(HELLO)
        stream.close()
        await one.has_said(("came", 1), ("died", 1))
        assert os.read(file, 1) == b"", "its stdout is closed, for which Flux waits"

    pilot(body)


def test_one_that_dies_before_it_has_said_what_it_is_was_never_there(pilot: Run) -> None:
    async def body(one: Pilot) -> None:
        stream, file = one.holder(HELLO[:9])
        await one.has_said()
        stream.close()
        await one.has_said()
        assert os.read(file, 1) == b""

    pilot(body)


def test_what_it_says_twice_is_heard_once(pilot: Run) -> None:
    async def body(one: Pilot) -> None:
        stream, file = one.holder(HELLO, b"end\n", b"end\n")
        await one.has_said(("came", 1), ("end", 1))
        assert (stream.recv(100), os.read(file, 1)) == (b"mark\ngo\n", b"")
        stream.close()

    pilot(body)
