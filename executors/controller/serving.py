"""``/healthz`` and ``/readyz`` over HTTP, for the kubelet's probes. They say nothing that has to be protected."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class HealthServer:
    """Answers 200 where ``checks`` of the path hold, else 503."""

    def __init__(self, port: int, checks: dict[str, Callable[[], bool]]) -> None:
        class Handler(BaseHTTPRequestHandler):
            timeout = 10  # of a client that says nothing

            def do_GET(self) -> None:
                check = checks.get(self.path)
                status = 404 if check is None else (200 if check() else 503)
                body = b"ok\n" if status == 200 else b"no\n"
                self.send_response(status)
                self.send_header("Content-Type", "text/plain")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Probes are no news."""

        self._server = ThreadingHTTPServer(("", port), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, name="health", daemon=True).start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
