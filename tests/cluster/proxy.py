"""A TCP proxy before the API server, to cut connections and to hold them up. TLS goes through it untouched."""

from __future__ import annotations

import contextlib
import copy
import socket
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import yaml

from tests.cluster.testbed.control_plane import ControlPlane


class Proxy:
    """Listens on a port of 127.0.0.1. A context manager."""

    def __init__(self, bed: ControlPlane) -> None:
        target = urlsplit(bed.server)
        assert target.hostname is not None and target.port is not None
        self._bed = bed
        self._target = (target.hostname, target.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._held: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A side that still has to say goodbye says so directly.
        self._listener.close()
        self.cut()

    def kubeconfig(self, directory: Path, document: dict[str, Any] | None = None) -> Path:
        """The bed's kubeconfig (or another document of it), through this proxy."""
        given = document or yaml.safe_load(Path(self._bed.kubeconfig).read_text())
        return kubeconfig_through(self._listener.getsockname()[1], self._target[0], directory, given)

    def cut(self) -> None:
        """Close every connection that is open now."""
        with self._lock:
            sockets, self._open = self._open, set()
            self._held.clear()
        for one in sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def hold(self) -> None:
        """Forward nothing any more on the connections that are open now, and close none of them."""
        with self._lock:
            self._held |= self._open

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._target)
            except OSError:
                client.close()
                continue
            with self._lock:
                self._open |= {client, server}
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._copy, args=(source, sink), daemon=True).start()

    def _copy(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if source not in self._held:
                    sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._open -= {source, sink}
        source.close()


def kubeconfig_through(port: int, server: str, directory: Path, document: dict[str, Any]) -> Path:
    """A kubeconfig that reaches ``server`` by a port of 127.0.0.1; the rest is the document's."""
    changed = copy.deepcopy(document)
    [cluster] = changed["clusters"]
    cluster["cluster"]["server"] = f"https://127.0.0.1:{port}"
    cluster["cluster"]["tls-server-name"] = server
    path = directory / "through-the-proxy.yaml"
    path.write_text(yaml.safe_dump(changed))
    path.chmod(0o600)
    return path
