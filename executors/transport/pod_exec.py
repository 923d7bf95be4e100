"""A program in a pod, whose stdin and stdout are the stream: Kubernetes' exec over a websocket.

The websocket protocol is that of the `websockets` library without its I/O: a TLS socket cannot be read and written by
two threads at once, so this module owns the socket and takes a lock for each single read or write of it.
"""

from __future__ import annotations

import contextlib
import logging
import select
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from executors.errors import ExecutorsError
from executors.kube import Api, ApiError, ForbiddenError, UnreachableError, connect
from executors.kube.access import Credentials
from executors.kube.api import end_connection
from executors.kube.errors import parse_error
from executors.kube.exec_frames import SUBPROTOCOLS, Channels, close_stdin_message, resize_message, stdin_message
from executors.kube.patience import Patience
from executors.kube.proxies import ProxyRefusedError
from executors.transport.base import PodExecEndpoint, ProgramEnded
from executors.transport.guard import Guard, wait_for

if TYPE_CHECKING:
    from websockets.client import ClientProtocol

log = logging.getLogger(__name__)

#: Seconds to connect and to be answered.
_OPEN_LIMIT = 30.0
#: Seconds for an API server that refuses or resets the handshake; after a cut the client tries again anyway.
_AGAIN_LIMIT = 20.0
#: Seconds that a send may make no progress at all before the stream counts as cut.
_SEND_LIMIT = 60.0
_PIECE = 256 * 1024
#: Bytes of input in one message; the receiver keeps each whole.
_MESSAGE = 64 * 1024
#: The library writes all headers, the credentials among them, and all frames to its logger.
_SILENT = logging.getLogger("executors.transport.websocket")
_SILENT.disabled = True


class PodExecStream(Guard):
    """See `executors.transport.base.Stream`. Raises OSError when it is cut, with what the program said at its end."""

    def __init__(self, endpoint: PodExecEndpoint, channels: Channels | None = None) -> None:
        super().__init__()
        self._channels = channels or Channels()
        self._received: deque[bytes] = deque()
        self._unsent = bytearray()
        self._reading = threading.Lock()
        self._writing = threading.Lock()
        #: Held for each single read or write of the socket, never while waiting for it.
        self._io = threading.Lock()
        self._socket, self._protocol, early = _open(endpoint)
        self._socket.setblocking(False)
        with self._io:
            # Frames may have come in one packet with the answer to the handshake.
            self._take_events(early)

    def send(self, data: bytes) -> None:
        view = memoryview(data)
        self._send(stdin_message(view[start : start + _MESSAGE]) for start in range(0, len(view), _MESSAGE))

    def _send(self, messages: Iterable[bytes]) -> None:
        with self.using() as usable, self._writing:
            if not usable:
                raise BrokenPipeError("the stream is closed")
            for message in messages:
                with self._io, _closed_is_an_oserror():
                    self._protocol.send_binary(message)
                    self._collect()
                self._flush()

    def receive(self, timeout: float) -> bytes | None:
        deadline = time.monotonic() + timeout
        with self.using() as usable, self._reading:
            if not usable:
                return b""
            while not self._received:
                if self._channels.ended:
                    return self._end()
                wanted = self._read_some()
                self._flush_if_idle()
                left = deadline - time.monotonic()
                idle = wanted and not self._received and not self._channels.ended
                if idle and (left <= 0 or not wait_for(self._socket.fileno(), wanted, left)):
                    return None
            data = b"".join(self._received)
            self._received.clear()
            return data

    def wake(self) -> None:
        # Cut already, or nobody there to hear it.
        with contextlib.suppress(OSError), self._io, _closed_is_an_oserror():
            if self._protocol.subprotocol == SUBPROTOCOLS[0]:
                # The relay sees the end of its input at once; without it, when the connection is found to be gone.
                self._protocol.send_binary(close_stdin_message())
            self._protocol.send_close(1000)
            self._collect()
            self._socket.send(self._unsent)
        end_connection(self._socket)

    def release(self) -> None:
        self._socket.close()

    # -- reading

    def _read_some(self) -> int:
        """Read what is there; the poll event to wait for before reading again, 0 for none."""
        with self._io:
            try:
                data = self._socket.recv(_PIECE)
            except (ssl.SSLWantReadError, BlockingIOError):
                return select.POLLIN
            except ssl.SSLWantWriteError:
                return select.POLLOUT
            if not data:
                self._protocol.receive_eof()
                self._take_events()
                if not self._received and not self._channels.ended:
                    raise ConnectionResetError("the connection to the API server was cut")
                return 0
            self._protocol.receive_data(data)
            self._take_events()
            return 0

    def _take_events(self, early: Sequence[object] = ()) -> None:
        from websockets.frames import Frame, Opcode

        for event in (*early, *self._protocol.events_received()):
            if isinstance(event, Frame) and event.opcode in (Opcode.BINARY, Opcode.TEXT, Opcode.CONT):
                piece = self._channels.feed(bytes(event.data), event.fin)
                if piece:
                    self._received.append(piece)
            elif isinstance(event, Frame) and event.opcode is Opcode.CLOSE and not self._channels.ended:
                log.debug("exec stream: closed by the API server: %r", bytes(event.data))
        self._collect()  # pongs, and the answer to a close

    def _end(self) -> bytes:
        reason = self._channels.failure()
        if reason is not None:
            raise ProgramEnded(reason)
        return b""

    # -- writing; with _io held

    def _collect(self) -> None:
        for data in self._protocol.data_to_send():
            self._unsent += data  # b"" asks for a half-close, which TLS does not know

    # -- writing; with _writing held

    def _flush(self) -> None:
        deadline = time.monotonic() + _SEND_LIMIT
        while True:
            with self._io:
                if not self._unsent:
                    return
                wanted = self._write_some()
            if not wanted:
                deadline = time.monotonic() + _SEND_LIMIT
            elif not wait_for(self._socket.fileno(), wanted, max(0.0, deadline - time.monotonic())):
                # No TimeoutError: that is an agent's silence.
                raise StreamRefused("the API server takes no more bytes")

    def _flush_if_idle(self) -> None:
        """Send pongs, unless a sender is at it, who sends them too."""
        if self._unsent and self._writing.acquire(blocking=False):
            try:
                with self._io:
                    self._write_some()
            finally:
                self._writing.release()

    def _write_some(self) -> int:
        try:
            sent = self._socket.send(self._unsent)
        except (ssl.SSLWantWriteError, BlockingIOError):
            return select.POLLOUT
        except ssl.SSLWantReadError:
            return select.POLLIN
        del self._unsent[:sent]
        return 0


class PodTerminal(PodExecStream):
    """A program that somebody looks at: its stderr goes to ``on_stderr``, and its end is its exit code."""

    def __init__(self, endpoint: PodExecEndpoint, on_stderr: Callable[[bytes], None]) -> None:
        super().__init__(endpoint, Channels(on_stderr))

    def resize(self, columns: int, rows: int) -> None:
        self._send([resize_message(columns, rows)])

    def end_input(self) -> None:
        """What reads stdin sees its end; an API server of before 1.30 has no way to be told so, and it waits."""
        if self._protocol.subprotocol == SUBPROTOCOLS[0]:
            self._send([close_stdin_message()])

    def exit_code(self) -> int:
        """After the end of what `receive` returns. Raises ProgramEnded where it could not be run."""
        code = self._channels.exit_code()
        if code is None:
            raise ProgramEnded(self._channels.failure() or "the stream ended without the program's exit code")
        return code

    def _end(self) -> bytes:
        return b""


@contextlib.contextmanager
def _closed_is_an_oserror() -> Iterator[None]:
    """The library refuses to say anything after a close or the stream's end, with an error of its own."""
    from websockets.exceptions import WebSocketException

    try:
        yield
    except WebSocketException as err:
        raise BrokenPipeError(f"the stream is closed: {err}") from err


class StreamRefused(OSError):
    """The API server, or what comes before it, does not give a stream now. After a cut it may a moment later: a server
    that was just restarted refuses what it allows, and credentials are renewed."""


#: A connection that has shaken hands, the protocol on it, and the events that came with the answer.
_Opened = tuple[socket.socket, "ClientProtocol", Sequence[object]]


def _open(endpoint: PodExecEndpoint) -> _Opened:
    """Connect and shake hands. Raises OSError."""
    try:
        api = connect(endpoint.access)
        try:
            return _patiently(api, endpoint)
        finally:
            api.close()
    except ForbiddenError as err:
        raise StreamRefused(f"{err}; the right 'create' (and 'get') on pods/exec is needed") from err
    except ExecutorsError as err:
        raise StreamRefused(str(err)) from err


def _patiently(api: Api, endpoint: PodExecEndpoint) -> _Opened:
    """As any request: what passes is waited out, and refused credentials are renewed once.

    Raises ExecutorsError or OSError.
    """
    patience = Patience(_AGAIN_LIMIT)
    renewed = False
    while True:
        credentials = api.credentials
        try:
            if credentials.expired:
                credentials, _ = api.renew(credentials)
            return _shake_hands(credentials, endpoint)
        except ApiError as err:
            if err.status != 401 or renewed:
                patience.after(err)
                continue
            renewed = True
        except ProxyRefusedError as err:
            passing = err.status in (502, 503, 504)
            patience.after(UnreachableError(f"exec: {err}", passing=passing))
            continue
        except ssl.SSLCertVerificationError:
            raise
        except (ConnectionError, TimeoutError, ssl.SSLError) as err:
            # Not as it is: the caller would take it for the agent's own end, or its silence.
            patience.after(UnreachableError(f"exec: {credentials.server} does not answer: {err}"))
            continue
        api.renew(credentials)


def _shake_hands(credentials: Credentials, endpoint: PodExecEndpoint) -> _Opened:
    from websockets.client import ClientProtocol
    from websockets.exceptions import WebSocketException
    from websockets.http11 import Response
    from websockets.typing import Subprotocol
    from websockets.uri import parse_uri

    url = _url(credentials.server, endpoint)
    # Masking and fragmenting are the library's; lines are bounded by the wire protocol above.
    protocol = ClientProtocol(
        parse_uri(url), subprotocols=[Subprotocol(name) for name in SUBPROTOCOLS], max_size=None, logger=_SILENT
    )
    connection = _connect(credentials)
    try:
        request = protocol.connect()
        for name, value in credentials.headers():
            request.headers[name] = value  # adds, where the name is there already
        protocol.send_request(request)
        connection.sendall(b"".join(protocol.data_to_send()))
        said = False
        while True:
            events = protocol.events_received()
            if events:
                break
            data = connection.recv(_PIECE)
            if not data:
                protocol.receive_eof()
                if not (said and protocol.handshake_exc):
                    raise ConnectionResetError("it closed the connection during the handshake")
                events = protocol.events_received()
                break
            said = True
            protocol.receive_data(data)
        answer = events[0] if events else None
        if isinstance(answer, Response) and answer.status_code != 101:
            what = f"exec in pod {endpoint.namespace}/{endpoint.pod}"
            wait = answer.headers.get("Retry-After")
            raise parse_error(answer.status_code, bytes(answer.body or b""), what, retry_after=wait)
        if protocol.handshake_exc is not None:
            raise StreamRefused(f"the API server does not speak websockets here: {protocol.handshake_exc}")
        if protocol.subprotocol is None:
            raise StreamRefused("the API server speaks none of " + ", ".join(SUBPROTOCOLS))
        return connection, protocol, events[1:]
    except WebSocketException as err:
        connection.close()
        raise StreamRefused(f"exec: {err}") from err
    except BaseException:
        connection.close()
        raise


def _url(server: str, endpoint: PodExecEndpoint) -> str:
    scheme, rest = server.split("://", 1)
    query = [("command", word) for word in endpoint.argv]
    query += [("container", endpoint.container), ("stdin", "true"), ("stdout", "true")]
    query.append(("tty" if endpoint.tty else "stderr", "true"))
    path = f"/api/v1/namespaces/{quote(endpoint.namespace)}/pods/{quote(endpoint.pod)}/exec"
    return f"{'wss' if scheme == 'https' else 'ws'}://{rest}{path}?{urlencode(query)}"


def _connect(credentials: Credentials) -> socket.socket:
    """A socket to the API server, through a proxy where there is one, in TLS where the server wants it."""
    plain = credentials.open_connection(_OPEN_LIMIT)
    try:
        context = credentials.tls()
        if context is None:
            return plain
        plain.getpeername()  # raises for one that was reset, which the next line would leave open (CPython 3.11)
        return context.wrap_socket(plain, server_hostname=credentials.server_name)
    except BaseException:
        plain.close()
        raise
