"""Streams over a unix socket and over the pipes of a local process."""

from __future__ import annotations

import contextlib
import os
import select

from executors.transport.base import Endpoint, PodExecEndpoint, ProcessEndpoint, Stream, UnixEndpoint
from executors.transport.guard import Guard, wait_for

_PIECE = 256 * 1024
#: Seconds that a send may make no progress at all before the stream counts as cut.
_SEND_TIMEOUT = 60.0


def open_stream(endpoint: Endpoint) -> Stream:
    """Open a stream. Raises OSError when there is nobody."""
    match endpoint:
        case UnixEndpoint(path):
            return SocketStream(path)
        case ProcessEndpoint(argv):
            return ProcessStream(argv)
        case PodExecEndpoint():
            from executors.transport.pod_exec import PodExecStream  # what a run on this machine never needs

            return PodExecStream(endpoint)


class SocketStream(Guard):
    """The agent's unix socket."""

    def __init__(self, path: str) -> None:
        import socket  # here, since not everybody who imports this package opens a stream

        super().__init__()
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.connect(path)
        except OSError:
            self._socket.close()
            raise
        self._socket.settimeout(_SEND_TIMEOUT)

    def send(self, data: bytes) -> None:
        with self.using() as usable:
            if not usable:
                raise BrokenPipeError("the stream is closed")
            self._socket.sendall(data)

    def receive(self, timeout: float) -> bytes | None:
        with self.using() as usable:
            if not usable:
                return b""
            return self._socket.recv(_PIECE) if wait_for(self._socket.fileno(), select.POLLIN, timeout) else None

    def wake(self) -> None:
        import socket  # see above

        with contextlib.suppress(OSError):  # not connected any more
            self._socket.shutdown(socket.SHUT_RDWR)

    def release(self) -> None:
        self._socket.close()


class ProcessStream(Guard):
    """The pipes of a process of ours."""

    def __init__(self, argv: tuple[str, ...]) -> None:
        import subprocess  # most streams are sockets

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
                if not wait_for(self._in.fileno(), select.POLLOUT, _SEND_TIMEOUT):
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
