"""Streams over a unix socket and over the pipes of a local process."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
from collections.abc import Iterator

from executors.transport.base import Endpoint, ProcessEndpoint, Stream, UnixEndpoint

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


class _Guard:
    """Closes file descriptors only when no other thread waits on them: a closed number may be somebody else's soon."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._closing = False

    @contextlib.contextmanager
    def using(self) -> Iterator[bool]:
        """Whether the descriptors are still open; they stay so inside."""
        with self._lock:
            usable = not self._closing
            self._users += usable
        try:
            yield usable
        finally:
            if usable:
                with self._lock:
                    self._users -= 1
                    last = self._closing and not self._users
                if last:
                    self.release()

    def close(self) -> None:
        with self._lock:
            first, self._closing = not self._closing, True
            idle = not self._users
        if first:
            self.wake()
            if idle:
                self.release()

    def wake(self) -> None:
        """Make whoever waits return."""

    def release(self) -> None:
        """Close the descriptors."""


def _wait(fd: int, event: int, timeout: float) -> bool:
    # poll, not select: a client with many files open has descriptors over 1023.
    poll = select.poll()
    poll.register(fd, event)
    return bool(poll.poll(max(0, round(timeout * 1000))))


class SocketStream(_Guard):
    """The agent's unix socket."""

    def __init__(self, path: str) -> None:
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
            return self._socket.recv(_PIECE) if _wait(self._socket.fileno(), select.POLLIN, timeout) else None

    def wake(self) -> None:
        with contextlib.suppress(OSError):  # not connected any more
            self._socket.shutdown(socket.SHUT_RDWR)

    def release(self) -> None:
        self._socket.close()


class ProcessStream(_Guard):
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
                if not _wait(self._in.fileno(), select.POLLOUT, _SEND_TIMEOUT):
                    raise TimeoutError("the relay takes no more bytes")
                view = view[os.write(self._in.fileno(), view[: select.PIPE_BUF]) :]

    def receive(self, timeout: float) -> bytes | None:
        with self.using() as usable:
            if not usable:
                return b""
            return os.read(self._out.fileno(), _PIECE) if _wait(self._out.fileno(), select.POLLIN, timeout) else None

    def wake(self) -> None:
        self._process.terminate()

    def release(self) -> None:
        self._process.wait()
        with contextlib.suppress(OSError):  # unsent bytes into a pipe that nobody reads
            self._in.close()
        self._out.close()
