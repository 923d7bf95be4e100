"""A stream over the pipes of a child process, for the agent's relay without Kubernetes."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess

from executors.transport.guard import Guard, wait_for
from tests.support.waiting import LIMIT

_PIECE = 256 * 1024


class ProcessStream(Guard):
    """The stdin and stdout of a child process."""

    def __init__(self, argv: tuple[str, ...]) -> None:
        super().__init__()
        # Its own session: a Ctrl-C in the terminal is for the client, which then still needs the stream.
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, start_new_session=True
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._in = self._process.stdin
        self._out = self._process.stdout

    def send(self, data: bytes) -> None:
        view = memoryview(data)
        with self.using() as usable:
            if not usable:
                raise BrokenPipeError("the stream is closed")
            while view:
                if not wait_for(self._in.fileno(), select.POLLOUT, LIMIT):
                    raise TimeoutError("the relay takes no more bytes")
                view = view[os.write(self._in.fileno(), view[: select.PIPE_BUF]) :]

    def receive(self, timeout: float) -> bytes | None:
        with self.using() as usable:
            if not usable:
                return b""
            return os.read(self._out.fileno(), _PIECE) if wait_for(self._out.fileno(), select.POLLIN, timeout) else None

    def wake(self) -> None:
        self._process.terminate()

    def release(self) -> None:
        self._process.wait()
        with contextlib.suppress(OSError):  # unsent bytes into a pipe that nobody reads
            self._in.close()
        self._out.close()
