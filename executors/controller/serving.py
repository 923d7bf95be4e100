"""``/healthz`` and ``/readyz`` over HTTP, for the kubelet's probes. They say nothing that has to be protected.

And what all servers of the controller have in common.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer

#: For a client that says nothing.
SECONDS = 10


class Answering(BaseHTTPRequestHandler):
    """One request, whose answer is whole."""

    timeout = SECONDS

    def answer(self, status: int, body: bytes, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Probes and scrapes are no news."""


class Server(ThreadingHTTPServer):
    """Takes IPv6 as well as IPv4, since a cluster's pods may have no other."""

    address_family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        TCPServer.server_bind(self)  # not HTTPServer's, which asks the DNS for a name that nobody needs


class Serving:
    """A server in a thread of its own, on ``port`` (0: any) of all addresses."""

    def __init__(
        self,
        name: str,
        port: int,
        handler: type[BaseHTTPRequestHandler],
        kind: type[Server] = Server,
    ) -> None:
        self._server = kind(("", port), handler)
        threading.Thread(target=self._server.serve_forever, name=name, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class HealthServer(Serving):
    """Answers 200 where ``checks`` of the path hold, else 503."""

    def __init__(self, port: int, checks: dict[str, Callable[[], bool]]) -> None:
        class Handler(Answering):
            def do_GET(self) -> None:
                check = checks.get(self.path)
                status = 404 if check is None else (200 if check() else 503)
                self.answer(status, b"ok\n" if status == 200 else b"no\n", "text/plain")

        super().__init__("health", port, Handler)
