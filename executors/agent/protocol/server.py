"""The agent's life: it listens, hears what the engine reports, and ends. One asyncio loop owns it all."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import time
from typing import Callable, Dict, List, Optional, Set

from .. import wire
from ..engine import (
    ACTIVE,
    MAY_WAIT,
    WAITED_FOR,
    EndReason,
    Engine,
    Entry,
    Follower,
    OutputPosition,
    OutputSink,
    RecoveredJob,
)
from ..file_follower import FileFollower
from ..instance.exit_codes import JOBS_LEFT
from .acklog import AckLog
from .connection import Connection, Handler
from .files import Files
from .followers import Followers
from .jobs import Job, JobTable
from .kept_output import KeptOutput
from .nodes import Nodes
from .requests import Requests
from .submissions import Submissions
from .watchdog import Watchdog

log = logging.getLogger("agent")

#: A file in the agent's directory: a client has been here.
SERVED = "served"
#: Descriptors that no client gets: starting a job, and looking for the processes of one that is to end, take some.
RESERVED_FILES = 24
#: Seconds in which clients get the last output of jobs that end with the agent, and then all events, and the rest.
LAST_OUTPUT, LAST_WORDS = 1.0, 5.0


class AgentSettings:
    """How an agent behaves; times are seconds, 0 or less turns a watchdog off."""

    def __init__(
        self,
        run: str,
        directory: str,
        idle_timeout: float = 300.0,
        orphan_timeout: float = 3600.0,
        attached: bool = False,
        environment: Optional[Dict[str, str]] = None,
    ) -> None:
        self.run = run
        #: Private (0700) directory of this run: socket, state, acknowledged jobs.
        self.directory = directory
        self.idle_timeout = idle_timeout
        self.orphan_timeout = orphan_timeout
        #: Attached to an instance that somebody else created: never drain it.
        self.attached = attached
        #: What every job's environment is laid over, where the client's own is of no use.
        self.environment = environment or {}


class Server:
    """The agent: `Host` of its connections, and `Agent` of their requests. All methods run on the loop."""

    def __init__(self, engine: Engine, settings: AgentSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self.engine = engine
        self.settings = settings
        self.table = JobTable(os.urandom(8).hex())
        self.instance = ""
        self.connections: Set[Connection] = set()
        #: Those that have greeted and keep the instance alive: neither liveness probes nor observers.
        self.clients: Set[Connection] = set()
        self.closing: Optional[str] = None
        #: Asked to end: nobody may come, nothing may be submitted any more.
        self.ending = False
        self.done = asyncio.Event()
        self.exit_code = 0
        self._watchdog = Watchdog(clock, settings.idle_timeout, settings.orphan_timeout)
        self._loop = asyncio.get_event_loop()
        self._submissions = Submissions(engine.submit, self.table, self.settings.environment)
        self._acklog = AckLog(os.path.join(settings.directory, "acknowledged"))
        self._kept_output = KeptOutput(engine.forget)
        self._followers = Followers()
        self._nodes = Nodes(engine, settings.attached)
        self._requests = Requests(
            self,
            engine,
            self.table,
            self._submissions,
            self._kept_output,
            self._acklog,
            Files(os.path.join(settings.directory, "files")),
            self._nodes,
        )
        self._server: Optional[asyncio.AbstractServer] = None
        #: Events are told in this turn of the loop, or a little later.
        self._events_due = False
        self._pushed_within: Optional[asyncio.TimerHandle] = None
        self._served = False
        self._watch_timer: Optional[asyncio.TimerHandle] = None

    # -- life

    async def start(self, socket_path: str) -> None:
        """Start the engine and listen. Raises EngineError when the engine cannot work here, OSError for the socket."""
        self.instance = await self.engine.start(self.on_entries, self.on_recovered)
        for job_id in self._acklog.read():
            self.table.acknowledge(job_id)
        temporary = socket_path + ".new"
        _unlink(temporary)
        old = os.umask(0o177)
        try:
            self._server = await self._loop.create_unix_server(lambda: Connection(self), temporary)
        finally:
            os.umask(old)
        # Renamed into place, so that a client that finds the socket finds an agent that listens.
        os.rename(temporary, socket_path)
        # The start was nobody's idle time, however long it took.
        self._watchdog.client_is_here()
        self._watch()

    async def stop(self, note: str, reason: EndReason = EndReason.REQUESTED) -> None:
        """End jobs, tell the clients, close. Idempotent. ``note`` says why, for clients; ``done`` is set at the end.

        Where the engine is lost, jobs are left alone, and the exit code has the supervisor start a new agent.
        """
        if self.closing is not None:
            return
        self.closing = note
        self.ending = True
        goes_for_good = reason is not EndReason.ENGINE_LOST
        self.exit_code = 0 if goes_for_good else 1
        log.info("stopping: %s", note)
        if self._server is not None:
            self._server.close()
        try:
            if not await self.engine.stop(reason) and goes_for_good:
                self.exit_code = JOBS_LEFT
            deadline = self._loop.time() + 5.0
            while self._submissions.in_progress and self._loop.time() < deadline:  # noqa: ASYNC110
                await asyncio.sleep(0.01)  # a few turns of the loop: who has submitted learns the ids first
            self._push_events()
            if self._watch_timer is not None:
                self._watch_timer.cancel()
            if goes_for_good:
                # What a slow client has not been sent by now is pushed as it reads. Its jobs' ends are told before that
                # of the agent, and so is the end of output that somebody follows.
                await self._until(lambda: all(one.has_all_events for one in self.connections), LAST_WORDS)
                await self._until(lambda: not any(one.outputs.is_open for one in self.connections), LAST_OUTPUT)
            for connection in list(self.connections):
                if goes_for_good:  # else the supervisor starts another agent, and clients shall come back to it
                    connection.send({"bye": note})
                connection.close()
            # The process ends with the loop, and what its sockets have not taken then is lost.
            await self._until(lambda: not self.connections, LAST_WORDS)
            self._acklog.close()
        except Exception:  # whatever fails on the way, an agent that is told to end has to end, and say what it was
            log.exception("stopping failed")
            self.exit_code = self.exit_code or JOBS_LEFT
        finally:
            self.done.set()

    async def _until(self, condition: Callable[[], bool], limit: float) -> None:
        """For a few turns of the loop, or for as many seconds as a client does not read."""
        deadline = self._loop.time() + limit
        while not condition() and self._loop.time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    def lost(self, note: str) -> None:
        """The engine is gone: end with an error, so that the supervisor starts a new agent if the instance lives."""
        asyncio.ensure_future(self.stop(note, EndReason.ENGINE_LOST))

    # -- watchdog

    def _watch(self) -> None:
        """Tell the watchdog who is here; end, or look again when a limit can be reached."""
        if self.closing is not None:
            return
        if self.clients or self._submissions.in_progress:
            self._watchdog.client_is_here()
        elif self.table.active:
            self._watchdog.job_is_here()
        end, look_again = self._watchdog.decide()
        if self._watch_timer is not None:
            self._watch_timer.cancel()
        if end is not None:
            asyncio.ensure_future(self.stop(end))
        elif look_again is not None:
            self._watch_timer = self._loop.call_later(look_again, self._watch)

    def unwanted(self) -> None:
        """Who has started this instance did not live to see it: end it, unless somebody else comes to use it."""
        self._watchdog.nobody_comes()
        self._watch()

    def has_room(self, transport: asyncio.BaseTransport) -> bool:
        """Whether this new connection leaves enough descriptors free for what the jobs need."""
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        # The kernel gives the lowest number that is free.
        number = int(transport.get_extra_info("socket").fileno())
        return limit == resource.RLIM_INFINITY or number < max(limit - RESERVED_FILES, limit // 2)

    def connected(self, connection: Connection) -> None:
        self.connections.add(connection)

    def greeted(self, connection: Connection) -> None:
        self.clients.add(connection)
        if not self._served:
            self._served = True
            _note_served(self.settings.directory)

    def disconnected(self, connection: Connection) -> None:
        self.connections.discard(connection)
        self.leaves(connection)

    def leaves(self, connection: Connection) -> None:
        if connection not in self.clients:
            return
        self.clients.discard(connection)
        if not self.clients:
            self._watchdog.client_is_here()
            self._watch()

    # -- what the engine reports

    def on_recovered(self, job: RecoveredJob) -> None:
        self.table.add(Job(job.id, job.key, job.digest, job.name))

    def on_entries(self, entries: List[Entry]) -> None:
        before = self.table.active
        for job_id, name, timestamp, context in entries:
            if name == "submit" and job_id not in self.table.jobs:
                self.table.add(Job(job_id))
            self.table.apply(job_id, name, timestamp, context)
            if self.table.progress(job_id) != ACTIVE:
                self._followers.job_ended(job_id)
        self._nodes.saw(entries)
        if before and not self.table.active:
            self._watchdog.job_is_here()
            if not self.clients:
                self._watch()
        self._push_soon(any(name in WAITED_FOR for _, name, _, _ in entries))

    def _push_soon(self, is_waited_for: bool) -> None:
        if self._events_due:
            return
        if is_waited_for:
            self._events_due = True
            self._loop.call_soon(self._push_events)
        elif self._pushed_within is None:
            self._pushed_within = self._loop.call_later(MAY_WAIT, self._push_events)

    def _push_events(self) -> None:
        self._events_due = False
        if self._pushed_within is not None:
            self._pushed_within.cancel()
            self._pushed_within = None
        for connection in list(self.connections):
            connection.push_events()

    # -- what connections and requests ask for

    def handler(self, op: str) -> Optional[Handler]:
        return self._requests.handler(op)

    def describe(self) -> wire.AgentInfo:
        return {
            "version": wire.VERSION, "engine": self.engine.name, "engine_version": self.engine.version,
            "instance": self.instance, "run": self.settings.run, "cursor": list(self.table.cursor()),
            "host": os.uname().nodename, "pid": os.getpid(), "guest": self.settings.attached,
            "active": self.table.active, "clients": len(self.clients),
            "lonely": 0.0 if self.clients else self._watchdog.without_client,
            "quiet": 0.0 if self.clients or self.table.active else self._watchdog.without_use,
            "idle_timeout": self.settings.idle_timeout, "orphan_timeout": self.settings.orphan_timeout,
            "uri": self.engine.uri,
        }  # fmt: skip

    def follow(self, position: OutputPosition, sink: OutputSink) -> Follower:
        """Follow a job's output: the file that it was sent to, or what the engine keeps."""

        def progress() -> str:
            return self.table.progress(position.job_id)

        if position.path is None:
            follower = self.engine.follow(position, sink, progress)
        else:
            follower = FileFollower(position.path, position.offset, sink, progress)
        if progress() == ACTIVE:
            self._followers.add(position.job_id, follower)
        return follower

    def followed(self, job_id: str) -> None:
        self._kept_output.followed(job_id)

    def unfollowed(self, job_id: str) -> None:
        self._kept_output.unfollowed(job_id)

    @property
    def refusal(self) -> Optional[str]:
        if not self.ending:
            return None
        return "the agent is shutting down: %s" % (self.closing or "its last client ends it")

    def has_other_clients(self, connection: Connection) -> bool:
        return bool(self.clients - {connection})

    def end_soon(self, reason: str) -> None:
        self.ending = True
        self._loop.call_soon(lambda: asyncio.ensure_future(self.stop(reason)))


def _note_served(directory: str) -> None:
    """Tell what starts the instance: from now on another one cannot take its place (see `render.entry`)."""
    try:
        os.close(os.open(os.path.join(directory, SERVED), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as err:  # a full disk is no reason to send a client away
        log.warning("%s: %s", SERVED, err)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
