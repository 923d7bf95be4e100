"""The agent's state, the requests that clients make of it, and the watchdog. One asyncio loop owns it all."""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import resource
import stat
import time
from typing import Any, Awaitable, Callable, Dict, List, Optional, Set

from . import launch, wire
from .connection import Connection
from .engine import (
    ACTIVE,
    FAILED_TO_RUN,
    RAN,
    Engine,
    EngineError,
    Entry,
    Environment,
    Follower,
    Known,
    Sink,
    Submission,
)
from .follow import FileFollower
from .jobs import Job, JobTable
from .supervisor import JOBS_LEFT

log = logging.getLogger("agent")

#: A file in the agent's directory: a client has been here.
SERVED = "served"
#: Seconds for a first client, where the one that has started the instance is gone already.
UNWANTED = 10.0
#: Characters of what `op_mark` keeps for a job.
MAX_PLACE = 500
#: Descriptors that no client gets: starting a job, and looking for the processes of one that is to end, take some.
RESERVED_FILES = 24


class Settings:
    """How an agent behaves; times are seconds, 0 or less turns a watchdog off."""

    def __init__(
        self,
        run: str,
        directory: str,
        idle_timeout: float = 300.0,
        orphan_timeout: float = 3600.0,
        guest: bool = False,
        environment: Optional[Dict[str, str]] = None,
    ) -> None:
        self.run = run
        #: Private (0700) directory of this run: socket, state, acknowledged jobs.
        self.directory = directory
        self.idle_timeout = idle_timeout
        self.orphan_timeout = orphan_timeout
        #: Attached to an instance that somebody else created: never drain it.
        self.guest = guest
        #: What every job's environment is laid over, where the client's own is of no use.
        self.environment = environment or {}


class Server:
    """The agent's state and its requests. All methods run on the loop."""

    def __init__(self, engine: Engine, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
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
        self._clock = clock
        self._loop = asyncio.get_event_loop()
        self._pending_keys: Dict[str, asyncio.Future[str]] = {}
        self._submitting = 0
        self._acks = AckLog(os.path.join(settings.directory, "acknowledged"))
        self._server: Optional[asyncio.AbstractServer] = None
        self._lonely_since = clock()
        self._quiet_since = clock()
        self._events_due = False
        self._served = False
        self._ended_job: Optional[asyncio.Future[None]] = None
        self._watch_timer: Optional[asyncio.TimerHandle] = None
        #: Readers of each job's output; and jobs that the engine may forget as soon as they have none.
        self._readers: Dict[str, int] = {}
        self._unknown: Set[str] = set()

    # -- life

    async def start(self, socket_path: str) -> None:
        """Start the engine and listen. Raises EngineError when the engine cannot work here, OSError for the socket."""
        self.instance = await self.engine.start(self.on_entries, self.on_known)
        for job_id in self._acks.read():
            self.table.acknowledge(job_id)
        temporary = socket_path + ".new"
        _unlink(temporary)
        old = os.umask(0o177)
        try:
            self._server = await self._loop.create_unix_server(lambda: Connection(self), temporary)
        finally:
            os.umask(old)
        # Renamed into place, so that whoever finds the socket finds an agent that listens.
        os.rename(temporary, socket_path)
        # The start was nobody's idle time, however long it took.
        self._lonely_since = self._quiet_since = self._clock()
        self._schedule_watchdog()

    async def stop(self, reason: str, cancel_jobs: bool = True, exit_code: int = 0, told: bool = False) -> None:
        """End jobs (if asked), tell the clients, close. Idempotent.

        ``told``: by a signal, as when the pod is evicted. Nobody has cancelled the jobs then: they are lost.
        """
        if self.closing is not None:
            return
        self.closing = reason
        self.ending = True
        self.exit_code = exit_code
        log.info("stopping: %s", reason)
        if self._server is not None:
            self._server.close()
        try:
            if not await self.engine.stop(cancel_jobs, "lost" if told else "cancel") and exit_code == 0:
                self.exit_code = JOBS_LEFT
            deadline = self._loop.time() + 5.0
            while self._submitting and self._loop.time() < deadline:  # noqa: ASYNC110
                await asyncio.sleep(0.01)  # a few turns of the loop: whoever has submitted learns the ids first
            self._push_events()
            if self._watch_timer is not None:
                self._watch_timer.cancel()
            for connection in list(self.connections):
                if exit_code == 0:  # else the supervisor starts another agent, and clients shall come back to it
                    connection.send({"bye": reason})
                connection.close()
            self._acks.close()
        except Exception:  # whatever fails on the way, an agent that is told to end has to end, and say what it was
            log.exception("stopping failed")
            self.exit_code = self.exit_code or JOBS_LEFT
        finally:
            self.done.set()

    def lost(self, reason: str) -> None:
        """The engine is gone: end with an error, so that the supervisor starts a new agent if the instance lives."""
        asyncio.ensure_future(self.stop(reason, cancel_jobs=False, exit_code=1))

    # -- watchdog

    def _schedule_watchdog(self) -> None:
        """One timer, set to the earliest moment at which a limit can be reached."""
        now = self._clock()
        if self.clients or self._submitting:
            self._lonely_since = now
        if self.clients or self.table.active or self._submitting:
            self._quiet_since = now
        idle, orphan = self.settings.idle_timeout, self.settings.orphan_timeout
        due = []
        if idle > 0:
            due.append((self._quiet_since + idle, "no job and no client for %g s (idle time-out)" % idle))
        if orphan > 0:
            due.append((self._lonely_since + orphan, "no client for %g s (orphan time-out)" % orphan))
        if not due:
            return
        moment, reason = min(due)
        if moment <= now:
            asyncio.ensure_future(self.stop(reason))
            return
        if self._watch_timer is not None:
            self._watch_timer.cancel()
        self._watch_timer = self._loop.call_later(max(0.05, moment - now), self._schedule_watchdog)

    def unwanted(self) -> None:
        """Who has started this instance did not live to see it: end it, unless somebody else comes to use it."""
        self._quiet_since -= max(0.0, self.settings.idle_timeout - UNWANTED)
        self._schedule_watchdog()

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
        self._left(connection)

    def _left(self, connection: Connection) -> None:
        if connection not in self.clients:
            return
        self.clients.discard(connection)
        if not self.clients:
            self._lonely_since = self._clock()
            if not self.table.active:
                self._quiet_since = self._clock()
            if self.closing is None:
                self._schedule_watchdog()

    # -- what the engine reports

    def on_known(self, known: Known) -> None:
        self.table.add(Job(known.id, known.key, known.digest, known.name))

    def on_entries(self, entries: List[Entry]) -> None:
        before = self.table.active
        for job_id, name, timestamp, context in entries:
            if name == "submit" and job_id not in self.table.jobs:
                self.table.add(Job(job_id))
            self.table.apply(job_id, name, timestamp, context)
        if self._ended_job is not None and any(name in ("free", "clean") for _, name, _, _ in entries):
            _settle(self._ended_job, None)
        if before and not self.table.active:
            self._quiet_since = self._clock()
            if not self.clients and self.closing is None:
                self._schedule_watchdog()
        if not self._events_due:
            self._events_due = True
            self._loop.call_soon(self._push_events)

    def _push_events(self) -> None:
        self._events_due = False
        for connection in list(self.connections):
            connection.push_events()

    # -- requests

    def handler(self, op: str) -> Optional[Callable[[Connection, Dict[str, Any]], Awaitable[Dict[str, Any]]]]:
        """The method that answers an op; None for an unknown one."""
        return getattr(self, "op_" + op, None)

    async def op_submit(self, _connection: Connection, request: Dict[str, Any]) -> Dict[str, Any]:
        items = _list_of(request, "items", dict)
        if self.ending:
            raise EngineError("the agent is shutting down: %s" % (self.closing or "its last client ends it"), "closing")
        shared = (
            [
                Environment(launch.merged(self.settings.environment, one))
                for one in _list_of(request, "environments", dict)
            ]
            if "environments" in request
            else []
        )
        answers: List[Any] = [None] * len(items)
        fresh: List[Submission] = []
        places: List[int] = []
        waits: List[Any] = []
        for index, item in enumerate(items):
            try:
                submission = _submission(item, shared)
            except EngineError as err:
                answers[index] = {"error": str(err)}
                continue
            if submission.key is not None:
                known = self.table.by_key(submission.key)
                if known is not None:
                    answers[index] = {"id": known.id, "known": True, "digest": known.digest}
                    continue
                pending = self._pending_keys.get(submission.key)
                if pending is not None:
                    waits.append((index, pending, True, submission.digest))
                    continue
                self._pending_keys[submission.key] = self._loop.create_future()
            fresh.append(submission)
            places.append(index)
        self._submitting += 1
        try:
            fresh_waits = [
                (index, waiting, False, submission)
                for index, submission, waiting in zip(places, fresh, self.engine.submit(fresh))
            ]
            # The fresh ones first: a key that is given twice in one request waits for one of them.
            for index, waiting, known_already, what in fresh_waits + waits:
                answers[index] = await self._submitted(waiting, known_already, what)
        finally:
            self._submitting -= 1
            for submission in fresh:
                if submission.key is not None:
                    error = EngineError("the submission that this key was part of failed")
                    _settle(self._pending_keys.pop(submission.key, None), error)
        return {"items": answers}

    async def _submitted(self, waiting: Awaitable[str], known_already: bool, what: Any) -> Dict[str, Any]:
        try:
            job_id = await (asyncio.shield(waiting) if isinstance(waiting, asyncio.Future) else waiting)
        except EngineError as err:
            if not known_already and what.key is not None:
                _settle(self._pending_keys.pop(what.key, None), err)
            return {"error": str(err)}
        if known_already:
            job = self.table.jobs.get(job_id)
            return {"id": job_id, "known": True, "digest": job.digest if job is not None else what}
        self.table.add(Job(job_id, what.key, what.digest, what.name))
        if what.key is not None:
            _settle(self._pending_keys.pop(what.key, None), job_id)
        return {"id": job_id, "known": False, "digest": what.digest}

    async def op_cancel(self, _connection: Connection, request: Dict[str, Any]) -> Dict[str, Any]:
        note = str(request.get("note") or "cancelled")[: wire.MAX_NOTE]
        return await self._each(request, lambda job_id: self.engine.cancel(job_id, note))

    async def op_kill(self, _connection: Connection, request: Dict[str, Any]) -> Dict[str, Any]:
        signum = _integer(request, "signal", 1, 64)
        return await self._each(request, lambda job_id: self.engine.kill(job_id, signum), must_run=True)

    async def _each(
        self, request: Dict[str, Any], call: Callable[[str], Awaitable[None]], must_run: bool = False
    ) -> Dict[str, Any]:
        """Apply ``call`` to all jobs at once; {"errors": {id: message}} names those that it failed for."""
        errors: Dict[str, str] = {}
        waits = []
        for job_id in _list_of(request, "ids", str):
            job = self.table.jobs.get(job_id)
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

    async def op_list(self, connection: Connection, request: Dict[str, Any]) -> Dict[str, Any]:
        ids = _list_of(request, "ids", str) if "ids" in request else None
        keys = _list_of(request, "keys", str) if "keys" in request else None
        jobs = connection.send_parts(request, self.table.select(ids, keys))
        return {"jobs": jobs, "cursor": list(self.table.cursor())}

    async def op_info(self, _connection: Connection, _request: Dict[str, Any]) -> Dict[str, Any]:
        return self.describe()

    def describe(self) -> Dict[str, Any]:
        return {
            "version": wire.VERSION, "engine": self.engine.name, "engine_version": self.engine.version,
            "instance": self.instance, "run": self.settings.run, "cursor": list(self.table.cursor()),
            "host": os.uname().nodename, "pid": os.getpid(), "guest": self.settings.guest,
            "active": self.table.active, "clients": len(self.clients),
            "lonely": 0.0 if self.clients else self._clock() - self._lonely_since,
            "quiet": 0.0 if self.clients or self.table.active else self._clock() - self._quiet_since,
            "idle_timeout": self.settings.idle_timeout, "orphan_timeout": self.settings.orphan_timeout,
            "uri": self.engine.uri,
        }  # fmt: skip

    async def op_watch(self, connection: Connection, request: Dict[str, Any]) -> Dict[str, Any]:
        cursor = wire.parse_cursor(request.get("after"))
        if cursor is not None and self.table.holds(cursor):
            connection.watch_from(cursor.sequence)
            return {"cursor": list(cursor), "snapshot": None}
        connection.watch_from(self.table.sequence)
        cursor = self.table.cursor()
        if request.get("snapshot") is False:  # who has just come knows of no job that it could have missed
            return {"cursor": list(cursor), "snapshot": None}
        return {"cursor": list(cursor), "snapshot": connection.send_parts(request, self.table.snapshot())}

    async def op_ack(self, _connection: Connection, request: Dict[str, Any]) -> Dict[str, Any]:
        done = [job_id for job_id in _list_of(request, "ids", str) if self.table.acknowledge(job_id)]
        self._acks.add(done)
        for job_id in self.table.take_dropped():
            if job_id in self._readers:
                self._unknown.add(job_id)
            else:
                self.engine.forget(job_id)
        return {}

    def followed(self, job_id: str) -> None:
        """Somebody reads this job's output: it is kept until `unfollowed`."""
        self._readers[job_id] = self._readers.get(job_id, 0) + 1

    def unfollowed(self, job_id: str) -> None:
        self._readers[job_id] -= 1
        if not self._readers[job_id]:
            del self._readers[job_id]
            if job_id in self._unknown:
                self._unknown.discard(job_id)
                self.engine.forget(job_id)

    async def op_mark(self, _connection: Connection, request: Dict[str, Any]) -> Dict[str, Any]:
        """Keep a reader's place in a job's output, for the reader that comes after it; gone with this agent."""
        place = _string(request, "place")
        job = self.table.jobs.get(_string(request, "job"))
        if job is None:
            raise EngineError("no such job: %s" % request["job"], "not-found")
        if len(place) > MAX_PLACE:
            raise EngineError("place: is longer than %d characters" % MAX_PLACE, "bad-request")
        job.place = place
        return {}

    async def op_output(self, connection: Connection, request: Dict[str, Any]) -> Dict[str, Any]:
        job_id = _string(request, "job")
        stream = request.get("stream", "stdout")
        if stream not in ("stdout", "stderr"):
            raise EngineError("stream: %r is neither stdout nor stderr" % (stream,), "bad-request")
        if job_id not in self.table.jobs:
            raise EngineError("no such job: %s" % job_id, "not-found")
        path = _string(request, "path") if request.get("path") else None
        offset = _integer(request, "offset", 0, 1 << 62, 0)
        taken = _integer(request, "taken", 0, 1 << 62, offset)
        window = _integer(request, "window", 0, 1 << 62, 0)
        return {"sub": connection.follow(job_id, stream, path, offset, taken, window)}

    def follow(self, job_id: str, stream: str, path: Optional[str], offset: int, sink: Sink) -> Follower:
        """Follow a job's output: the file that it was sent to, or what the engine keeps."""

        def progress() -> str:
            job = self.table.jobs.get(job_id)
            if job is None:
                return RAN
            if not job.ended:
                return ACTIVE
            return RAN if job.t_start is not None and job.exception is None else FAILED_TO_RUN

        if path is None:
            return self.engine.follow(job_id, stream, offset, sink, progress)
        return FileFollower(path, stream, offset, sink, progress)

    async def op_taken(self, connection: Connection, request: Dict[str, Any]) -> Dict[str, Any]:
        connection.taken(_integer(request, "sub", 0, 1 << 62), _integer(request, "offset", 0, 1 << 62))
        return {}

    async def op_unfollow(self, connection: Connection, request: Dict[str, Any]) -> Dict[str, Any]:
        connection.unfollow(_integer(request, "sub", 0, 1 << 62))
        return {}

    async def op_put(self, _connection: Connection, request: Dict[str, Any]) -> Dict[str, Any]:
        """Write a piece of a file at an offset; a relative path lies in the agent's own ``files`` directory."""
        path = self._path(request)
        data = _bytes(request, "data")
        offset = _integer(request, "offset", 0, 1 << 62, 0)
        mode = _integer(request, "mode", 0, 0o777, 0o600)
        flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if offset == 0 else 0)
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        fd = os.open(path, flags | os.O_NONBLOCK, mode)  # a FIFO must not hold up the agent
        try:
            _must_be_regular(fd, path)
            written = os.pwrite(fd, data, offset)
        finally:
            os.close(fd)
        if written != len(data):
            raise EngineError("%s: only %d of %d bytes were written" % (path, written, len(data)))
        return {"path": path, "size": offset + written}

    async def op_stat(self, _connection: Connection, request: Dict[str, Any]) -> Dict[str, Any]:
        """What each path is on the agent's node ("file", "directory", "other" or null), whose it is, and whether jobs
        may write there: they are the agent's own user."""
        paths = _list_of(request, "paths", str)
        return {
            "kinds": [_kind_of(path) for path in paths],
            "writable": [
                os.access(path, os.W_OK | os.X_OK) if _kind_of(path) == "directory" else None for path in paths
            ],
            "owners": [_owner_of(path) for path in paths],
            "user": [os.getuid(), os.getgid()],
        }

    async def op_get(self, _connection: Connection, request: Dict[str, Any]) -> Dict[str, Any]:
        path = self._path(request)
        offset = _integer(request, "offset", 0, 1 << 62, 0)
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            _must_be_regular(fd, path)
            data = os.pread(fd, wire.CHUNK_BYTES, offset)
            size = os.fstat(fd).st_size
        finally:
            os.close(fd)
        return {"data": base64.b64encode(data).decode("ascii"), "eof": offset + len(data) >= size, "size": size}

    def _path(self, request: Dict[str, Any]) -> str:
        path = _string(request, "path")
        if os.path.isabs(path):
            return path
        root = os.path.join(self.settings.directory, "files")
        full = os.path.normpath(os.path.join(root, path))
        if not full.startswith(root + os.sep):
            raise EngineError("path: %r leads out of the agent's directory" % path, "bad-request")
        return full

    async def op_resources(self, _connection: Connection, _request: Dict[str, Any]) -> Dict[str, Any]:
        return await self.engine.resources()

    async def op_drain(self, _connection: Connection, request: Dict[str, Any]) -> Dict[str, Any]:
        if self.settings.guest:
            raise EngineError("this instance was not created by us, so it is never drained by us", "not-possible")
        reason = str(request.get("reason") or "drained")
        await self.engine.drain(_string(request, "ranks"), reason, bool(request.get("undo", False)))
        return {}

    async def op_vacate(self, _connection: Connection, request: Dict[str, Any]) -> Dict[str, Any]:
        """Drain ranks, and wait for their jobs to end, ``seconds`` at most; which ranks are busy still."""
        ranks = _string(request, "ranks")
        deadline = self._loop.time() + _integer(request, "seconds", 0, 1 << 31, 0)
        await self.op_drain(_connection, request)
        first, _, last = ranks.partition("-")
        wanted = range(int(first), int(last or first) + 1)
        while True:
            nodes = (await self.engine.resources())["nodes"]
            busy = [node["rank"] for node in nodes if node.get("busy") and node["rank"] in wanted]
            left = deadline - self._loop.time()
            if not busy or left <= 0:
                return {"busy": busy}
            self._ended_job = self._loop.create_future()
            # The scheduler hears of a job's end a moment after the journal tells it; nothing says when.
            await asyncio.wait([self._ended_job], timeout=min(left, 1.0))

    async def op_shutdown(self, connection: Connection, request: Dict[str, Any]) -> Dict[str, Any]:
        """End the agent (and the instance that it belongs to). ``only_if_last``: not while others are connected;
        ``only_if_unused``: nor while there are jobs, and the one that asks stays as it is.
        """
        if request.get("only_if_unused") and (self.clients - {connection} or self.table.active or self._submitting):
            return {"stopping": False}
        if request.get("only_if_last") and self.clients - {connection}:
            # Whoever asks so is leaving; the end of its stream may take a while to get here.
            self._left(connection)
            return {"stopping": False}
        reason = str(request.get("reason") or "asked to shut down")
        self.ending = True
        self._loop.call_soon(lambda: asyncio.ensure_future(self.stop(reason)))
        return {"stopping": True}


class AckLog:
    """Acknowledged job ids, one per line, so that an agent that is restarted still knows which keys have ended.

    On a full disk the ids wait here until there is room again. Should the agent be restarted before, their keys are
    answered with the jobs that they had: nothing is run twice for it.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = -1
        self._unwritten = b""
        self._failed = False

    def read(self) -> List[str]:
        try:
            with open(self._path, encoding="ascii", errors="replace") as lines:
                return lines.read().split()
        except FileNotFoundError:
            return []

    def add(self, ids: List[str]) -> None:
        if not ids:
            return
        self._unwritten += "".join(job_id + "\n" for job_id in ids).encode("ascii", "replace")
        try:
            if self._fd < 0:
                self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            while self._unwritten:
                self._unwritten = self._unwritten[os.write(self._fd, self._unwritten) :]
        except OSError as err:
            if not self._failed:
                log.warning("acknowledgements are kept in memory only: %s: %s", self._path, err.strerror)
            self._failed = True
        else:
            self._failed = False

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _submission(item: Dict[str, Any], shared: List[Environment]) -> Submission:
    """A Submission from its JSON form. EngineError (for this item only) says what is wrong.

    ``shared``: the request's environments, which an item names by index instead of repeating one in its jobspec.
    """
    spec: Any = item.get("jobspec")
    try:
        command = spec["tasks"][0]["command"]
        attributes = spec["attributes"]["system"]
    except (KeyError, IndexError, TypeError):
        raise EngineError("jobspec: not a jobspec V1 object") from None
    if not isinstance(command, list) or not command or not isinstance(attributes, dict):
        raise EngineError("jobspec: tasks[0].command must be a list with at least one word")
    key = item.get("key")
    urgency = item.get("urgency", 16)
    secret = item.get("secret_env")
    if key is not None and (not isinstance(key, str) or not 0 < len(key) <= 256):
        raise EngineError("key: must be a string of 1 to 256 characters")
    if not isinstance(urgency, int) or isinstance(urgency, bool) or not 0 <= urgency <= 31:
        raise EngineError("urgency: %r is not an integer from 0 to 31" % (urgency,))
    if secret is not None:
        if not isinstance(secret, dict) or not all(isinstance(v, str) and "\0" not in v for v in secret.values()):
            raise EngineError("secret_env: must map names to strings without null bytes")
        bad = launch.bad_names(secret)
        if bad:
            raise EngineError(
                "secret_env: %s cannot be the name of an environment variable" % ", ".join(map(repr, bad))
            )
    place = item.get("environment")
    if place is not None and (not isinstance(place, int) or not 0 <= place < len(shared)):
        raise EngineError("environment: %r is not the index of one of the request's environments" % (place,))
    if len(str(item.get("name", ""))) > wire.MAX_NAME:
        raise EngineError("name: is longer than %d characters" % wire.MAX_NAME)
    return Submission(
        spec,
        urgency,
        key,
        str(item.get("digest", "")),
        str(item.get("name", "")),
        secret,
        bool(item.get("measure")),
        None if place is None else shared[place],
    )


def _list_of(request: Dict[str, Any], field: str, kind: type) -> List[Any]:
    value = request.get(field)
    if not isinstance(value, list) or not all(isinstance(one, kind) for one in value):
        raise EngineError("%s: must be a list of %s" % (field, "objects" if kind is dict else "strings"), "bad-request")
    return value


def _string(request: Dict[str, Any], field: str) -> str:
    value = request.get(field)
    if not isinstance(value, str) or not value or "\0" in value:
        raise EngineError("%s: must be a string that is not empty" % field, "bad-request")
    return value


def _integer(request: Dict[str, Any], field: str, low: int, high: int, default: Optional[int] = None) -> int:
    value = request.get(field, default)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise EngineError("%s: %r is not an integer from %d to %d" % (field, value, low, high), "bad-request")
    return value


def _bytes(request: Dict[str, Any], field: str) -> bytes:
    try:
        return base64.b64decode(_string(request, field) if request.get(field) != "" else "", validate=True)
    except ValueError:
        raise EngineError("%s: is not base64" % field, "bad-request") from None


def _kind_of(path: str) -> Optional[str]:
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return None
    return "directory" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "other"


def _owner_of(path: str) -> Optional[List[int]]:
    """User, group and permissions."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return [found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)]


def _note_served(directory: str) -> None:
    """For whoever starts the instance: from now on another one cannot take its place (see `render.entry`)."""
    try:
        os.close(os.open(os.path.join(directory, SERVED), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as err:  # a full disk is no reason to send a client away
        log.warning("%s: %s", SERVED, err)


def _must_be_regular(fd: int, path: str) -> None:
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise EngineError("path: %r is not a regular file" % path, "bad-request")


def _settle(future: Optional[asyncio.Future[Any]], value: Any) -> None:
    if future is None or future.done():
        return
    if isinstance(value, EngineError):
        future.set_exception(value)
        future.exception()  # seen: nobody may have asked for the same key
    else:
        future.set_result(value)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
