"""One client of the agent.

Whatever a client sends or fails to read concerns nobody else: lines and requests in progress are bounded, and events
are pulled from the shared log at the client's own pace, so that a slow one costs no memory. What it reads of jobs'
output has bounds of its own (`outputs`).
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from typing import Any, Awaitable, Callable, List, Optional, Protocol

from .. import process_tree, wire
from ..engine import EngineError
from .jobs import JobTable
from .outputs import OutputSource, Subscriptions

log = logging.getLogger("agent")

#: Requests of one client that may be in progress before the agent stops reading from it.
MAX_REQUESTS = 256
#: Jobs in one message of a list.
JOBS_IN_PART = 1000
#: Events in one message.
EVENT_BATCH = 500
#: Bytes that may wait in a client's socket buffer before events and output pause.
HIGH_WATER = 1024 * 1024
#: Seconds from a connection to its hello. One that says nothing holds a descriptor that others may need.
GREETING_LIMIT = 10.0


#: Answers one request of a connection.
Handler = Callable[["Connection", wire.Message], Awaitable[wire.Answer]]


class Host(OutputSource, Protocol):
    """What a connection asks of the agent that it belongs to."""

    @property
    def table(self) -> JobTable: ...

    @property
    def ending(self) -> bool:
        """Asked to end: nobody may come any more."""

    def has_room(self, transport: asyncio.BaseTransport) -> bool:
        """Whether this new connection leaves enough descriptors free for what the jobs need."""

    def connected(self, connection: Connection) -> None: ...

    def greeted(self, connection: Connection) -> None:
        """It has said hello, and keeps the instance alive from now on."""

    def disconnected(self, connection: Connection) -> None: ...

    def describe(self) -> wire.AgentInfo:
        """The answer to a hello."""

    def handler(self, op: str) -> Optional[Handler]:
        """What answers this request; None for an unknown one."""


class Connection(asyncio.Protocol):
    """One client: its requests in progress, its cursor in the event log, and `outputs`, its subscriptions."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.outputs = Subscriptions(host, self._write)
        self._reader = wire.LineReader()
        self._transport: Optional[asyncio.Transport] = None
        self._greeted = False
        self._requests = 0
        self._watching: Optional[int] = None
        self._paused = False
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
        if not self._host.has_room(transport):
            text = "the agent has no room for another client now: its table of open files is full"
            self.send(wire.error_reply(None, "busy", text))
            transport.close()
            return
        self._peer = _peer(transport)
        self._keepalive = self._loop.call_later(GREETING_LIMIT, self._expect_greeting)
        self._host.connected(self)

    def connection_lost(self, _exc: Optional[Exception]) -> None:
        if self._keepalive is not None:
            self._keepalive.cancel()
        self.outputs.close_all()
        self._transport = None
        self._host.disconnected(self)

    def data_received(self, data: bytes) -> None:
        self._heard = self._loop.time()
        for found in self._reader.feed(data):
            if isinstance(found, wire.WireError):
                self.send(wire.error_reply(None, found.code, str(found)))
                continue
            try:
                message = wire.decode(found)  # type: ignore[arg-type]  # feed returns bytes or WireError
            except wire.WireError as err:
                self.send(wire.error_reply(None, err.code, str(err)))
                continue
            self._handle(message)

    def eof_received(self) -> bool:
        return False  # nothing more can be asked, so nothing more is owed

    def pause_writing(self) -> None:
        self._paused = True
        self.outputs.pause()
        self._adjust_reading()  # who does not read answers may not ask for more

    def resume_writing(self) -> None:
        self._paused = False
        self._adjust_reading()
        self.outputs.resume()
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
        handler = self._host.handler(op)
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
        if self._host.ending:
            self.send(wire.error_reply(request_id, "closing", "the agent is shutting down"))
            return
        self._greeted = True
        # One that only looks does not keep an instance alive.
        if not message.get("observer"):
            self._host.greeted(self)
        self.send(wire.ok_reply(request_id, self._host.describe()))

    async def _run(self, request_id: int, op: str, work: Awaitable[wire.Answer]) -> None:
        try:
            reply = wire.ok_reply(request_id, await work)
        except EngineError as err:
            reply = wire.error_reply(request_id, err.code, str(err))
        except wire.WireError as err:
            reply = wire.error_reply(request_id, err.code, str(err))
        except OSError as err:
            reply = wire.error_reply(request_id, "engine", str(err))
        except Exception as err:  # a defect in one request must not take the other clients' agent down
            log.exception("op %s failed", op)
            reply = wire.error_reply(request_id, "engine", "internal error: %r" % err)
        finally:
            self._requests -= 1
        line = wire.encode(reply)
        if len(line) > wire.MAX_LINE:
            text = "%s: the answer has %d bytes, but one message holds at most %d" % (op, len(line), wire.MAX_LINE)
            line = wire.encode(wire.error_reply(request_id, "too-large", text))
        self._write(line)
        self._adjust_reading()

    def _adjust_reading(self) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if self._paused or self._requests >= MAX_REQUESTS:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    # -- events

    def watch_from(self, sequence: int) -> None:
        self._watching = sequence
        self._loop.call_soon(self.push_events)

    @property
    def has_all_events(self) -> bool:
        """Whether it has been sent all that it wants to hear."""
        return self._watching is None or self._transport is None or self._watching == self._host.table.sequence

    def push_events(self) -> None:
        table = self._host.table
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
            self._send_list({}, "ev", events)

    def send_parts(self, request: wire.Message, jobs: List[wire.JobSummary]) -> List[wire.JobSummary]:
        """Send a long list ahead of its reply, so that no message grows with the number of jobs. Returns the rest."""
        return self._send_in_parts({"re": request["id"]}, "part", jobs)

    def _send_in_parts(self, message: wire.Message, field: str, jobs: List[wire.JobSummary]) -> List[wire.JobSummary]:
        whole = len(jobs) // JOBS_IN_PART * JOBS_IN_PART
        for start in range(0, whole, JOBS_IN_PART):
            self._send_list(message, field, jobs[start : start + JOBS_IN_PART])
        rest = jobs[whole:]
        if len(rest) > 1 and len(wire.encode({field: rest})) > wire.BATCH_BYTES:
            self._send_list(message, field, rest)
            return []
        return rest

    def _send_list(self, message: wire.Message, field: str, items: List[Any]) -> None:
        """In as many messages as it takes to keep each of them short."""
        line = wire.encode(dict(message, **{field: items}))
        if len(line) > wire.BATCH_BYTES and len(items) > 1:
            middle = len(items) // 2
            self._send_list(message, field, items[:middle])
            self._send_list(message, field, items[middle:])
        else:
            self._write(line)

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

    def _expect_greeting(self) -> None:
        if self._greeted:
            self._keep_alive()
        elif self._transport is not None:
            log.info("a connection said nothing for %g s and is cut", GREETING_LIMIT)
            self._transport.abort()

    def _keep_alive(self) -> None:
        if self._is_stopped():  # as by Ctrl-Z: it is silent, and still there
            self._keepalive = self._loop.call_later(wire.PING_INTERVAL, self._keep_alive)
            self._heard = self._loop.time()  # when it goes on, its time begins again
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
