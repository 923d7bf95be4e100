"""Opening a stream to an endpoint; streams over a unix socket."""

from __future__ import annotations

import contextlib
import select

from executors.transport.base import Endpoint, PodExecEndpoint, Stream, UnixEndpoint
from executors.transport.guard import Guard, wait_for

_PIECE = 256 * 1024
#: Seconds that a send may make no progress at all before the stream counts as cut.
_SEND_TIMEOUT = 60.0


def open_stream(endpoint: Endpoint) -> Stream:
    """Open a stream. Raises OSError when there is nobody."""
    match endpoint:
        case UnixEndpoint(path):
            return SocketStream(path)
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
