"""One client of the agent.

Whatever a client sends or fails to read concerns nobody else: lines and requests in progress are bounded, and events
are pulled from the shared log at the client's own pace, so that a slow one costs no memory.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import socket
import sys
from typing import TYPE_CHECKING, Any, Awaitable, Callable, Dict, List, Optional

from . import process_tree, wire
from .engine import EngineError

if TYPE_CHECKING:
    from .server import Server

log = logging.getLogger("agent")

#: Requests of one client that may be in progress before the agent stops reading from it.
MAX_REQUESTS = 256
#: Jobs in one message of a list.
JOBS_IN_PART = 1000
#: Events in one message.
EVENT_BATCH = 500
#: Bytes that may wait in a client's socket buffer before events and output pause.
HIGH_WATER = 1024 * 1024
#: Bytes of output that wait here while it does not read. Beyond them a follower is stopped, and begins again where it
#: was when the client reads: what Flux keeps of a job's output comes without regard to who can take it.
MAX_HELD = 4 * 1024 * 1024


class Connection(asyncio.Protocol):
    """One client: its requests in progress, its place in the event log, its output subscriptions."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._reader = wire.LineReader()
        self._transport: Optional[asyncio.Transport] = None
        self._greeted = False
        self._requests = 0
        self._watching: Optional[int] = None
        self._paused = False
        self._followers: Dict[int, Callable[[], None]] = {}
        self._held_output: List[bytes] = []
        self._held_bytes = 0
        #: What begins a stopped follower again.
        self._halted: Dict[int, Callable[[], None]] = {}
        self._next_sub = 1
        self._heard = 0.0
        self._peer = 0
        self._keepalive: Optional[asyncio.TimerHandle] = None

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=HIGH_WATER)
        self._loop = asyncio.get_event_loop()
        self._heard = self._loop.time()
        self._peer = _peer(transport)
        self._keepalive = self._loop.call_later(wire.PING_INTERVAL, self._keep_alive)
        self._server.connected(self)

    def connection_lost(self, _exc: Optional[Exception]) -> None:
        if self._keepalive is not None:
            self._keepalive.cancel()
        for stop in self._followers.values():
            stop()
        self._followers.clear()
        self._transport = None
        self._server.disconnected(self)

    def data_received(self, data: bytes) -> None:
        self._heard = self._loop.time()
        for found in self._reader.feed(data):
            if isinstance(found, wire.WireError):
                self.send(wire.error_reply(None, found.code, str(found)))
                continue
            try:
                message = wire.decode(found)  # type: ignore[arg-type]  # feed gives bytes or WireError
            except wire.WireError as err:
                self.send(wire.error_reply(None, err.code, str(err)))
                continue
            self._handle(message)

    def eof_received(self) -> bool:
        return False  # nothing more can be asked, so nothing more is owed

    def pause_writing(self) -> None:
        self._paused = True
        self._adjust_reading()  # who does not read answers may not ask for more

    def resume_writing(self) -> None:
        self._paused = False
        self._adjust_reading()
        held, self._held_output, self._held_bytes = self._held_output, [], 0
        for line in held:
            self._write(line)
        halted, self._halted = self._halted, {}
        for begin in halted.values():
            self._loop.call_soon(begin)
        self.push_events()

    # -- requests

    def _handle(self, message: wire.Message) -> None:
        if "ping" in message:
            self.send({"pong": message["ping"]})
            return
        if "pong" in message:
            return
        request_id = message.get("id")
        op = message.get("op")
        if not isinstance(request_id, int) or not isinstance(op, str):
            self.send(wire.error_reply(None, "bad-message", "a request has an integer id and a string op"))
            return
        if op == "hello":
            self._hello(request_id, message)
            return
        if not self._greeted:
            self.send(wire.error_reply(request_id, "no-hello", "the first request is hello"))
            return
        handler = self._server.handler(op)
        if handler is None:
            self.send(wire.error_reply(request_id, "unknown-op", "op: %r is not known here" % op[:50]))
            return
        self._requests += 1
        self._adjust_reading()
        asyncio.ensure_future(self._run(request_id, op, handler(self, message)))

    def _hello(self, request_id: int, message: wire.Message) -> None:
        versions = message.get("versions")
        if not isinstance(versions, list) or wire.VERSION not in versions:
            text = "this agent speaks version %d, the client %s" % (wire.VERSION, versions)
            self.send(wire.error_reply(request_id, "version", text))
            return
        if self._server.ending:
            self.send(wire.error_reply(request_id, "closing", "the agent is shutting down"))
            return
        self._greeted = True
        # One that only looks does not keep an instance alive.
        if not message.get("observer"):
            self._server.greeted(self)
        self.send(wire.ok_reply(request_id, self._server.describe()))

    async def _run(self, request_id: int, op: str, work: Awaitable[Dict[str, Any]]) -> None:
        try:
            reply = wire.ok_reply(request_id, await work)
        except EngineError as err:
            reply = wire.error_reply(request_id, err.code, str(err))
        except wire.WireError as err:
            reply = wire.error_reply(request_id, err.code, str(err))
        except OSError as err:
            reply = wire.error_reply(request_id, "engine", str(err))
        except Exception as err:  # a bug of ours in one request must not take the other clients' agent down
            log.exception("op %s failed", op)
            reply = wire.error_reply(request_id, "engine", "internal error: %r" % err)
        finally:
            self._requests -= 1
        self.send(reply)
        self._adjust_reading()

    def _adjust_reading(self) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if self._paused or self._requests >= MAX_REQUESTS:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    # -- events and output

    def watch_from(self, sequence: int) -> None:
        self._watching = sequence
        self._loop.call_soon(self.push_events)

    def push_events(self) -> None:
        table = self._server.table
        while self._watching is not None and not self._paused and self._transport is not None:
            try:
                events = table.after(self._watching, EVENT_BATCH)
            except LookupError:
                # It read too slowly: its place is no longer kept. It gets the state of every job and goes on.
                self._watching = table.sequence
                jobs = self._send_in_parts({}, "resync_part", table.snapshot())
                self.send({"resync": jobs, "cursor": list(table.cursor())})
                return
            if not events:
                return
            self._watching = events[-1][0]
            self.send({"ev": events})

    def send_parts(self, request: wire.Message, jobs: List[Dict[str, Any]]) -> List[Dict[str, Any]]:
        """Send a long list ahead of its reply, so that no message grows with the number of jobs; gives the rest."""
        return self._send_in_parts({"re": request["id"]}, "part", jobs)

    def _send_in_parts(self, message: wire.Message, field: str, jobs: List[Dict[str, Any]]) -> List[Dict[str, Any]]:
        whole = len(jobs) // JOBS_IN_PART * JOBS_IN_PART
        for start in range(0, whole, JOBS_IN_PART):
            self.send(dict(message, **{field: jobs[start : start + JOBS_IN_PART]}))
        return jobs[whole:]

    def follow(self, job_id: str, stream: str, path: Optional[str], offset: int) -> int:
        sub = self._next_sub
        self._next_sub += 1

        def sink(name: str, position: int, data: bytes, eof: bool) -> None:
            if sub not in self._followers or sub in self._halted:
                return
            text = base64.b64encode(data).decode("ascii")
            line = wire.encode({"out": [sub, name, position, text, eof]})
            if self._paused:
                self._held_output.append(line)
                self._held_bytes += len(line)
                if self._held_bytes > MAX_HELD and not eof:
                    self._followers[sub]()
                    self._halted[sub] = lambda: self._begin_follow(
                        sub, job_id, stream, path, position + len(data), sink
                    )
            else:
                self._write(line)
            if eof:
                del self._followers[sub]

        self._followers[sub] = lambda: None
        # After the reply, which carries the number that the first piece refers to.
        self._loop.call_soon(self._begin_follow, sub, job_id, stream, path, offset, sink)
        return sub

    def _begin_follow(self, sub: int, job_id: str, stream: str, path: Optional[str], offset: int, sink: Any) -> None:
        if sub not in self._followers:
            return
        try:
            self._followers[sub] = self._server.follow(job_id, stream, path, offset, sink, lambda: not self._paused)
        except EngineError as err:
            del self._followers[sub]
            self.send({"out": [sub, stream, offset, "", True], "error": str(err)})

    def unfollow(self, sub: int) -> None:
        self._halted.pop(sub, None)
        stop = self._followers.pop(sub, None)
        if stop is not None:
            stop()

    # -- sending

    def send(self, message: wire.Message) -> None:
        self._write(wire.encode(message))

    def _write(self, line: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(line)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _is_stopped(self) -> bool:
        """Whether the process that has connected is stopped, or held by a debugger."""
        if self._transport is None or self._loop.time() - self._heard < wire.PING_INTERVAL:
            return False
        peer = process_tree.read(self._peer)
        return peer is not None and peer.state in ("T", "t")

    def _keep_alive(self) -> None:
        if self._is_stopped():  # as by Ctrl-Z: it is silent, and still there
            self._keepalive = self._loop.call_later(wire.PING_INTERVAL, self._keep_alive)
            self._heard = self._loop.time()  # when it goes on, its time begins anew
            return
        if self._loop.time() - self._heard > wire.SILENCE_LIMIT:
            log.info("a client was silent for %g s and is cut", wire.SILENCE_LIMIT)
            if self._transport is not None:
                self._transport.abort()
            return
        self.send({"ping": 0})
        self._keepalive = self._loop.call_later(wire.PING_INTERVAL, self._keep_alive)


def _peer(transport: asyncio.Transport) -> int:
    """The pid of the process that has connected; 0 where this one cannot see it."""
    sock = transport.get_extra_info("socket")
    ucred = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)  # pid, uid, gid
    return int.from_bytes(ucred[:4], sys.byteorder)
