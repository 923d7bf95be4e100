"""A pilot's side of its holders: it listens for them, hears when one is to end, and lets them go."""

from __future__ import annotations

import array
import asyncio
import json
import os
import socket
from typing import Callable, Dict, List

from .shape import NOTHING, Shape

#: Bytes of what a holder says of itself.
_LONGEST = 1 << 16


class Held:
    """One holder that is here: its connection, its stdout, which keeps its job alive, and what it said of itself."""

    __slots__ = ("buffer", "cpus", "files", "gpus", "is_there", "job", "number", "shape", "stream")

    def __init__(self, number: int, stream: socket.socket) -> None:
        self.number = number
        self.stream = stream
        self.files: List[int] = []
        self.buffer = b""
        #: Its id in Flux, as its environment has it; "" before it has said so.
        self.job = ""
        self.shape = NOTHING
        self.cpus: List[int] = []
        #: Those that it sees, as CUDA names them.
        self.gpus = ""
        #: Its process lives.
        self.is_there = True


class Holders:
    """``came`` and ``told_to_end`` are called with holders; ``died`` with one whose process has gone without leave."""

    def __init__(
        self,
        path: str,
        mark: str,
        came: Callable[[Held], None],
        told_to_end: Callable[[Held], None],
        died: Callable[[Held], None],
    ) -> None:
        self._loop = asyncio.get_event_loop()
        self._path = path
        self._mark = mark
        self._came = came
        self._told_to_end = told_to_end
        self._died = died
        self._count = 0
        #: By the numbers that they have here.
        self.by_number: Dict[int, Held] = {}
        self._listener = socket.socket(socket.AF_UNIX)

    def listen(self) -> None:
        """Raises OSError."""
        try:
            os.unlink(self._path)  # of a pilot that was killed
        except FileNotFoundError:
            pass
        old = os.umask(0o177)
        try:
            self._listener.bind(self._path)
        finally:
            os.umask(old)
        self._listener.listen(512)
        self._listener.setblocking(False)
        self._loop.add_reader(self._listener.fileno(), self._accept)

    def let_go(self, number: int) -> None:
        """No task runs on this holder any more: it may end."""
        held = self.by_number.pop(number, None)
        if held is None:
            return
        if held.is_there:
            try:
                held.stream.send(b"go\n")
            except OSError:
                pass  # it has just died, and its core goes with its stdout
            self._loop.remove_reader(held.stream.fileno())
        held.stream.close()
        for fd in held.files:
            os.close(fd)

    def all(self) -> List[Held]:
        """Those that have said what they are."""
        return [held for held in self.by_number.values() if held.job]

    def close(self) -> None:
        """Let all go, and listen no more."""
        self._loop.remove_reader(self._listener.fileno())
        self._listener.close()
        for number in list(self.by_number):
            self.let_go(number)
        try:
            os.unlink(self._path)
        except FileNotFoundError:
            pass  # the broker has tidied up

    def _accept(self) -> None:
        try:
            stream, _ = self._listener.accept()
        except OSError:  # it has gone again, or no file can be opened now: it stays in the line
            return
        stream.setblocking(False)
        self._count += 1
        held = self.by_number[self._count] = Held(self._count, stream)
        self._loop.add_reader(stream.fileno(), self._readable, held)

    def _readable(self, held: Held) -> None:
        space = socket.CMSG_SPACE(16 * array.array("i").itemsize)
        try:
            data, ancillary, _, _ = held.stream.recvmsg(_LONGEST, space, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return
        except OSError:
            data, ancillary = b"", []
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                files = array.array("i")
                files.frombytes(content[: len(content) - len(content) % files.itemsize])
                held.files += files
        if not data:
            self._gone(held)
            return
        held.buffer += data
        while b"\n" in held.buffer and held.number in self.by_number:
            line, _, held.buffer = held.buffer.partition(b"\n")
            if held.job:
                self._told_to_end(held)
            else:
                about = json.loads(line)
                held.job, held.cpus = str(about["job"]) or "?", [int(cpu) for cpu in about["cpus"]]
                held.shape, held.gpus = Shape(*about["shape"]), str(about["gpus"])
                try:
                    held.stream.send(self._mark.encode("ascii") + b"\n")
                except OSError:
                    pass  # it has just died, which is read next
                self._came(held)

    def _gone(self, held: Held) -> None:
        self._loop.remove_reader(held.stream.fileno())
        held.is_there = False
        if held.job:
            self._died(held)
        else:
            self.let_go(held.number)
