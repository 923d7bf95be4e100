"""A proxy before the API server that counts the requests by which something is written, and stops at one of them."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import yaml

from tests.cluster.proxy import kubeconfig_through
from tests.cluster.testbed.control_plane import ControlPlane

_PIECE = 65536


class Counting:
    """Ends TLS with the bed's own certificate; who the client is must be in its requests (a token).

    ``stop_at(number, answered, then)``: at the next writing request of that number, from 1, nothing of it is forwarded
    (``answered`` False) or it is forwarded and its answer is kept back (True); ``then`` is called, and no later request
    is let through until the next ``stop_at`` or ``pass_all``. A Lease's requests are none of them. A context manager.
    """

    def __init__(self, bed: ControlPlane) -> None:
        target = urlsplit(bed.server)
        assert target.hostname is not None and target.port is not None
        self._target = (target.hostname, target.port)
        self._towards_server = ssl.create_default_context(cafile=str(bed.pki.certificate))
        self._lock = threading.Lock()
        self._stop_at: tuple[int, bool, Callable[[], None]] | None = None
        self._closed = False
        self.count = 0
        certificate = bed.pki.directory / "server.crt"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, certificate.with_suffix(".key"))
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        # The handshake is its connection's own business, not the listener's.
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self._server.serve_forever)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def kubeconfig(self, directory: Path, given: Path) -> Path:
        """A kubeconfig of the bed, through this proxy."""
        document = yaml.safe_load(given.read_text())
        return kubeconfig_through(self._server.server_address[1], self._target[0], directory, document)

    def stop_at(self, number: int, answered: bool, then: Callable[[], None]) -> None:
        with self._lock:
            self.count, self._closed, self._stop_at = 0, False, (number, answered, then)

    def pass_all(self) -> None:
        with self._lock:
            self.count, self._closed, self._stop_at = 0, False, None

    def _takes(self, method: str, path: str) -> tuple[bool, Callable[[], None] | None]:
        """Whether a request is forwarded, and what is done instead of answering it."""
        with self._lock:
            if self._closed:
                return False, None
            if method == "GET" or "/leases" in path:
                return True, None
            self.count += 1
            if self._stop_at is None or self.count != self._stop_at[0]:
                return True, None
            self._closed = True
            return self._stop_at[1], self._stop_at[2]

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def serve(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                forward, then = proxy._takes(self.command, self.path)
                self.close_connection = True
                # A client or server that is killed in the middle is what this is for.
                with contextlib.suppress(OSError, http.client.HTTPException):
                    if forward:
                        self._forward(body, quiet=then is not None)
                if then is not None:
                    then()

            def _forward(self, body: bytes, quiet: bool) -> None:
                with contextlib.closing(
                    http.client.HTTPSConnection(*proxy._target, context=proxy._towards_server)
                ) as server:
                    headers = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "connection")}
                    server.request(self.command, self.path, body or None, headers)
                    answer = server.getresponse()
                    if quiet:
                        answer.read()
                        return
                    self.send_response(answer.status)
                    for name, value in answer.getheaders():
                        if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                            self.send_header(name, value)
                    self.send_header("Connection", "close")
                    self.send_header("Transfer-Encoding", "chunked")
                    self.end_headers()
                    # A watch's answer has no end: what is there is passed on as it comes.
                    while piece := answer.read1(_PIECE):
                        self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                    self.wfile.write(b"0\r\n\r\n")

            def log_message(self, *_: Any) -> None:
                pass  # the test's own output is enough

            do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = serve

        return Handler
