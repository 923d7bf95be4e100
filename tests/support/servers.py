"""Small servers on loopback, each a context manager: an API server with prepared answers, and forward proxies."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from executors.config import RunConfig, RunSection
from tests.conftest import require

#: What a server does with a request besides answering it.
RESET = "reset"
LOSE = "do it, and reset"


@dataclass
class Answer:
    status: int
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Asked:
    method: str
    path: str
    headers: list[tuple[str, str]]
    body: Any


def refusal(status: int, reason: str = "", message: str = "", **headers: str) -> Answer:
    body = {"kind": "Status", "status": "Failure", "code": status, "reason": reason, "message": message}
    return Answer(status, body, {name.replace("_", "-"): value for name, value in headers.items()})


class ApiServer:
    """Answers by ``answer``, after the prepared ones of ``first`` (an Answer, RESET or LOSE) are used up."""

    def __init__(self, answer: Callable[[Asked], Answer] | None = None, tls: ssl.SSLContext | None = None) -> None:
        self.asked: list[Asked] = []
        self.first: list[Answer | str] = []
        self._answer = answer or (lambda _: Answer(200, {"items": []}))
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                outer._handle(self)

            do_GET = do_POST = do_PATCH = do_DELETE = handle_any

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]  # resets are wanted here
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def __enter__(self) -> ApiServer:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _handle(self, request: BaseHTTPRequestHandler) -> None:
        length = int(request.headers.get("Content-Length") or 0)
        text = request.rfile.read(length)
        asked = Asked(request.command, request.path, request.headers.items(), json.loads(text) if text else None)
        self.asked.append(asked)
        prepared = self.first.pop(0) if self.first else None
        if prepared in (RESET, LOSE):
            if prepared == LOSE:
                self._answer(asked)
            request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            request.close_connection = True
            request.connection.close()
            return
        answer = prepared if isinstance(prepared, Answer) else self._answer(asked)
        data = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        request.send_response(answer.status)
        for name, value in {"Content-Type": "application/json", **answer.headers}.items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data)


def kubeconfig(directory: Path, server: str, user: Any = None, **cluster: Any) -> Path:
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "one",
        "contexts": [{"name": "one", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": server, **cluster}}],
        "users": [{"name": "u", "user": {"token": "sesame"} if user is None else user}],
    }
    path = directory / "kubeconfig"
    path.write_text(yaml.safe_dump(document))
    return path


class Proxy:
    """Forwards to where it is asked to: ``http`` (CONNECT) or ``socks5``; ``tls`` is what its own clients speak."""

    def __init__(
        self, kind: str = "http", credentials: tuple[str, str] | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        self._kind, self._credentials, self._tls = kind, credentials, tls
        self._door = socket.create_server(("127.0.0.1", 0))
        self.port = self._door.getsockname()[1]
        #: Where it was asked to, and the Proxy-Authorization or user that came with it.
        self.targets: list[str] = []
        self.said: list[str] = []

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._door.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._door.accept()
                threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        # IndexError: a client that left.
        with contextlib.suppress(OSError, IndexError), contextlib.ExitStack() as stack:
            if self._tls is not None:
                near = self._tls.wrap_socket(near, server_side=True)
            stack.enter_context(near)
            host, port = self._http(near) if self._kind == "http" else self._socks(near)
            self.targets.append(f"{host}:{port}")
            far = stack.enter_context(socket.create_connection((host, port)))
            near.sendall(b"HTTP/1.1 200 OK\r\n\r\n" if self._kind == "http" else b"\x05\x00\x00\x01" + bytes(6))
            _pump(near, far)

    def _http(self, near: socket.socket) -> tuple[str, int]:
        head = b""
        while b"\r\n\r\n" not in head:
            head += near.recv(1) or _closed()
        lines = head.decode().split("\r\n")
        sent = next((one.partition(": ")[2] for one in lines if one.startswith("Proxy-Authorization: ")), "")
        self.said.append(sent)
        if self._credentials is not None and not sent:
            near.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            _closed()
        host, _, port = lines[0].split()[1].rpartition(":")
        return host.strip("[]"), int(port)

    def _socks(self, near: socket.socket) -> tuple[str, int]:
        methods = near.recv(near.recv(2)[1])
        method = 2 if self._credentials is not None else 0
        near.sendall(bytes((5, method if method in methods else 255)))
        if method:
            user = near.recv(near.recv(2)[1]).decode()
            password = near.recv(near.recv(1)[0]).decode()
            self.said.append(f"{user}:{password}")
            near.sendall(bytes((1, (user, password) != self._credentials)))
        kind = near.recv(4)[3]
        if kind == 3:
            host = near.recv(near.recv(1)[0]).decode()
        else:
            host = socket.inet_ntop(socket.AF_INET if kind == 1 else socket.AF_INET6, near.recv(4 if kind == 1 else 16))
        return host, int.from_bytes(near.recv(2), "big")


def _closed() -> bytes:
    raise ConnectionResetError


def _pump(near: socket.socket, far: socket.socket) -> None:
    """TLS sockets take no two threads at once, so each way has a short turn."""
    near.settimeout(0.02)
    far.settimeout(0.02)
    while True:
        for source, sink in ((near, far), (far, near)):
            with contextlib.suppress(TimeoutError):
                sink.sendall(source.recv(65536) or _closed())


@dataclass(frozen=True)
class Pki:
    """A certificate authority and a server's certificate for 127.0.0.1, as files."""

    ca: Path
    server: ssl.SSLContext


def make_pki(directory: Path, *, key_identifiers: bool = True) -> Pki:
    """``key_identifiers``: as RFC 5280 wants them; some distributions' clusters have none."""
    require("openssl")
    none = "" if key_identifiers else "subjectKeyIdentifier=none\nauthorityKeyIdentifier=none\n"
    (directory / "ca.cnf").write_text(
        "[req]\ndistinguished_name=dn\nx509_extensions=ca\n[dn]\n[ca]\nbasicConstraints=critical,CA:TRUE\n"
        f"keyUsage=critical,digitalSignature,keyCertSign\n{none}"
    )
    (directory / "server.cnf").write_text(f"subjectAltName=IP:127.0.0.1,DNS:kubernetes.example\n{none}")

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=directory, check=True, capture_output=True)

    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *new, "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=authority", "-config", "ca.cnf")
    openssl("req", *new, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=server")
    openssl(
        *("x509", "-req", "-in", "server.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial"),
        *("-out", "server.crt", "-extfile", "server.cnf"),
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "server.crt", directory / "server.key")
    return Pki(directory / "ca.crt", context)


@contextlib.contextmanager
def closed_port() -> Iterator[int]:
    """A port on which nobody listens."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        yield one.getsockname()[1]


def config_of(directory: Path, server: ApiServer) -> RunConfig:
    path = str(kubeconfig(directory, server.url))
    return RunConfig(replace(RunSection(), kubeconfig=path, namespace="ns", start_timeout=1))
