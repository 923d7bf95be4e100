"""What clients may ask of the agent: a method for each request, and `OPS`, the table of them."""

from __future__ import annotations

import asyncio
from typing import Awaitable, Callable, Dict, Optional, Protocol

from .. import wire
from ..engine import Engine, EngineError, OutputPosition
from . import fields
from .acklog import AckLog
from .connection import Connection, Handler
from .files import Files
from .jobs import JobTable
from .kept_output import KeptOutput
from .nodes import Nodes
from .submissions import Submissions

#: Characters of the read offset that is kept for a job.
MAX_READ_OFFSET = 500


class Agent(Protocol):
    """The life of the agent, as far as requests ask about it and end it."""

    @property
    def refusal(self) -> Optional[str]:
        """Why no job may be submitted any more; None while one may."""

    def describe(self) -> wire.AgentInfo:
        """The answer to `info`."""

    def has_other_clients(self, connection: Connection) -> bool: ...

    def leaves(self, connection: Connection) -> None:
        """This client is about to go, and does not keep the instance alive any more."""

    def end_soon(self, reason: str) -> None:
        """Take no jobs from now on, and end once this request is answered."""


class Requests:
    """See `OPS`. Each method answers one request, of one connection; EngineError, WireError and OSError refuse it."""

    def __init__(
        self,
        agent: Agent,
        engine: Engine,
        table: JobTable,
        submissions: Submissions,
        kept_output: KeptOutput,
        acklog: AckLog,
        files: Files,
        nodes: Nodes,
    ) -> None:
        self._agent = agent
        self._engine = engine
        self._table = table
        self._submissions = submissions
        self._kept_output = kept_output
        self._acklog = acklog
        self._files = files
        self._nodes = nodes

    def handler(self, op: str) -> Optional[Handler]:
        """What answers a request of this name; None for an unknown one."""
        method = OPS.get(op)
        if method is None:
            return None
        return lambda connection, request: method(self, connection, request)

    # -- jobs

    async def submit(self, _connection: Connection, request: wire.Message) -> wire.Answer:
        items = fields.objects(request, "items")
        refusal = self._agent.refusal
        if refusal is not None:
            raise EngineError(refusal, "closing")
        environments = fields.objects(request, "environments") if "environments" in request else []
        return {"items": await self._submissions.submit(items, environments)}

    async def cancel(self, _connection: Connection, request: wire.Message) -> wire.Answer:
        note = str(request.get("note") or "cancelled")[: wire.MAX_NOTE]
        return await self._each(request, lambda job_id: self._engine.cancel(job_id, note))

    async def kill(self, _connection: Connection, request: wire.Message) -> wire.Answer:
        signum = fields.integer(request, "signal", 1, 64)
        return await self._each(request, lambda job_id: self._engine.kill(job_id, signum), must_run=True)

    async def _each(
        self, request: wire.Message, call: Callable[[str], Awaitable[None]], must_run: bool = False
    ) -> wire.Answer:
        """Apply ``call`` to all jobs at once; {"errors": {id: message}} names those that it failed for."""
        errors: Dict[str, str] = {}
        waits = []
        for job_id in fields.strings(request, "ids"):
            job = self._table.jobs.get(job_id)
            if job is None:
                errors[job_id] = "no such job"
            elif job.ended:
                if must_run:
                    errors[job_id] = "the job has ended"
            else:
                waits.append((job_id, asyncio.ensure_future(call(job_id))))
        for job_id, wait in waits:
            try:
                await wait
            except EngineError as err:
                errors[job_id] = str(err)
        return {"errors": errors}

    async def list_jobs(self, connection: Connection, request: wire.Message) -> wire.Answer:
        ids = fields.strings(request, "ids") if "ids" in request else None
        keys = fields.strings(request, "keys") if "keys" in request else None
        jobs = connection.send_parts(request, self._table.select(ids, keys))
        return {"jobs": jobs, "cursor": list(self._table.cursor())}

    async def watch(self, connection: Connection, request: wire.Message) -> wire.Answer:
        """Send events from now on, and before them those after a cursor, or else the state of every job."""
        cursor = wire.parse_cursor(request.get("after"))
        if cursor is not None and self._table.holds(cursor):
            connection.watch_from(cursor.sequence)
            return {"cursor": list(cursor), "snapshot": None}
        connection.watch_from(self._table.sequence)
        cursor = self._table.cursor()
        if request.get("snapshot") is False:  # who has just come knows of no job that it could have missed
            return {"cursor": list(cursor), "snapshot": None}
        return {"cursor": list(cursor), "snapshot": connection.send_parts(request, self._table.snapshot())}

    async def acknowledge(self, _connection: Connection, request: wire.Message) -> wire.Answer:
        self._acklog.add([job_id for job_id in fields.strings(request, "ids") if self._table.acknowledge(job_id)])
        for job_id in self._table.take_dropped():
            self._kept_output.release(job_id)
        return {}

    # -- output

    async def open_output(self, connection: Connection, request: wire.Message) -> wire.Answer:
        job_id = fields.string(request, "job")
        stream = request.get("stream", "stdout")
        if stream not in ("stdout", "stderr"):
            raise EngineError("stream: %r is neither stdout nor stderr" % (stream,), "bad-request")
        if job_id not in self._table.jobs:
            raise EngineError("no such job: %s" % job_id, "not-found")
        path = fields.string(request, "path") if request.get("path") else None
        offset = fields.integer(request, "offset", default=0)
        taken = fields.integer(request, "taken", default=offset)
        window = fields.integer(request, "window", default=0)
        return {"sub": connection.outputs.open(OutputPosition(job_id, stream, path, offset), taken, window)}

    async def take_output(self, connection: Connection, request: wire.Message) -> wire.Answer:
        connection.outputs.taken(fields.integer(request, "sub"), fields.integer(request, "offset"))
        return {}

    async def close_output(self, connection: Connection, request: wire.Message) -> wire.Answer:
        connection.outputs.close(fields.integer(request, "sub"))
        return {}

    async def save_read_offset(self, _connection: Connection, request: wire.Message) -> wire.Answer:
        """Keep how far a reader is in a job's output, for the next reader; it is lost with this agent."""
        offset = fields.string(request, "place")
        job = self._table.jobs.get(fields.string(request, "job"))
        if job is None:
            raise EngineError("no such job: %s" % request["job"], "not-found")
        if len(offset) > MAX_READ_OFFSET:
            raise EngineError("place: is longer than %d characters" % MAX_READ_OFFSET, "bad-request")
        job.read_offset = offset
        return {}

    # -- files and nodes

    async def put(self, _connection: Connection, request: wire.Message) -> wire.Answer:
        return self._files.put(request)

    async def get(self, _connection: Connection, request: wire.Message) -> wire.Answer:
        return self._files.get(request)

    async def stat(self, _connection: Connection, request: wire.Message) -> wire.Answer:
        return self._files.describe(request)

    async def resources(self, _connection: Connection, _request: wire.Message) -> wire.Answer:
        return await self._nodes.resources()

    async def drain(self, _connection: Connection, request: wire.Message) -> wire.Answer:
        await self._nodes.drain(request)
        return {}

    async def vacate(self, _connection: Connection, request: wire.Message) -> wire.Answer:
        return {"busy": await self._nodes.vacate(request)}

    async def start_helper(self, _connection: Connection, request: wire.Message) -> wire.Message:
        """Have a program run beside the jobs, once on every node, in the environment that a job would have."""
        if self._agent.refusal is not None:
            raise EngineError(self._agent.refusal, "closing")
        command = fields.strings(request, "command")
        if not command:
            raise EngineError("command: must have at least one word", "bad-request")
        env = self._submissions.environment(fields.texts(request, "env"))
        await self._engine.start_helper(fields.string(request, "name"), command, env)
        return {}

    # -- the agent itself

    async def info(self, _connection: Connection, _request: wire.Message) -> wire.Answer:
        return self._agent.describe()

    async def shutdown(self, connection: Connection, request: wire.Message) -> wire.Answer:
        """End the agent (and the instance that it belongs to). ``only_if_last``: not while others are connected;
        ``only_if_unused``: nor while there are jobs, and the one that asks stays as it is.
        """
        others = self._agent.has_other_clients(connection)
        if request.get("only_if_unused") and (others or self._table.active or self._submissions.in_progress):
            return {"stopping": False}
        if request.get("only_if_last") and others:
            # A client that asks so is leaving; the end of its stream may take a while to get here.
            self._agent.leaves(connection)
            return {"stopping": False}
        self._agent.end_soon(str(request.get("reason") or "asked to shut down"))
        return {"stopping": True}


#: Every request but ``hello``, which `Connection` answers itself; docs/protocol.md describes them.
OPS: Dict[str, Callable[[Requests, Connection, wire.Message], Awaitable[wire.Answer]]] = {
    "submit": Requests.submit,
    "cancel": Requests.cancel,
    "kill": Requests.kill,
    "list": Requests.list_jobs,
    "info": Requests.info,
    "watch": Requests.watch,
    "ack": Requests.acknowledge,
    "output": Requests.open_output,
    "taken": Requests.take_output,
    "unfollow": Requests.close_output,
    "mark": Requests.save_read_offset,
    "put": Requests.put,
    "get": Requests.get,
    "stat": Requests.stat,
    "resources": Requests.resources,
    "drain": Requests.drain,
    "vacate": Requests.vacate,
    "helper": Requests.start_helper,
    "shutdown": Requests.shutdown,
}
