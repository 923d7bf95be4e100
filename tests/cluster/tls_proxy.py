"""A proxy before the API server that reads what passes: it ends TLS, with a certificate of the bed's authority.

Who the client is must be in its requests (a token): the API server does not see the client's certificate.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from tests.cluster.proxy import kubeconfig_through
from tests.cluster.testbed.control_plane import ControlPlane

_PIECE = 65536
_END_OF_HEAD = b"\r\n\r\n"


class OlderServer:
    """The API server as one that does not know ``v5.channel.k8s.io``: it never sees the client offer that.

    Listens on a port of 127.0.0.1. A context manager.
    """

    def __init__(self, bed: ControlPlane) -> None:
        target = urlsplit(bed.server)
        assert target.hostname is not None and target.port is not None
        self._bed = bed
        self._target = (target.hostname, target.port)
        self._towards_server = ssl.create_default_context(cafile=str(bed.pki.certificate))
        self._towards_client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate = bed.pki.directory / "server.crt"
        self._towards_client.load_cert_chain(certificate, certificate.with_suffix(".key"))
        #: Protocols of exec streams that the API server chose.
        self.chosen: list[str] = []
        self._open: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> Self:
        self._thread.start()
        serving = asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._towards_client)
        self._server = asyncio.run_coroutine_threadsafe(serving, self._loop).result()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def kubeconfig(self, directory: Path, document: dict[str, Any]) -> Path:
        """A kubeconfig of the bed, through this proxy."""
        return kubeconfig_through(self._server.sockets[0].getsockname()[1], self._target[0], directory, document)

    def cut(self) -> None:
        """Close every connection that is open now."""
        asyncio.run_coroutine_threadsafe(self._cut(), self._loop).result()

    async def _cut(self) -> None:
        for one in self._open:
            one.transport.abort()

    async def _stop(self) -> None:
        self._server.close()
        await self._cut()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError, asyncio.IncompleteReadError):
            self._note(stack, to_client)
            head = await from_client.readuntil(_END_OF_HEAD)
            from_server, to_server = await asyncio.open_connection(*self._target, ssl=self._towards_server)
            self._note(stack, to_server)
            to_server.write(head.replace(b"v5.channel.k8s.io, ", b""))
            # A request's body comes before its answer.
            await asyncio.gather(self._copy(from_client, to_server), self._answer(from_server, to_client))

    async def _answer(self, from_server: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        head = await from_server.readuntil(_END_OF_HEAD)
        for line in head.splitlines():
            if line.lower().startswith(b"sec-websocket-protocol:"):
                self.chosen.append(line.partition(b":")[2].strip().decode())
        to_client.write(head)
        await self._copy(from_server, to_client)

    def _note(self, stack: contextlib.ExitStack, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        stack.callback(self._open.discard, writer)
        stack.callback(writer.transport.abort)

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_PIECE):
                writer.write(data)
                await writer.drain()
        writer.close()
