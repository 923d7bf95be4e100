"""The engine over a real Flux instance, through Flux's own bindings.

One thread runs Flux's reactor on one handle (`reactor`): it submits, cancels and follows the job manager's journal, and
hands everything to the server's loop in batches. Nothing polls, and no process or thread belongs to a single job.

A new agent that merely scanned the history would miss what its predecessor sent just before it died (those jobs show up
for up to a second afterwards); so it first submits one held *sentinel* job and reads the history once that has an id:
ingest is ordered, so everything sent before is in it. The first agent of an instance has no predecessor, and needs no
sentinel.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any, Awaitable, Callable, Dict, List, Optional

import flux
import flux.hostlist
import flux.job
from flux.job.journal import JournalConsumer
from flux.job.output import output_event_watch_async

from ..engine import (
    Emit,
    EndReason,
    Engine,
    EngineError,
    Entry,
    Follower,
    OutputPosition,
    OutputSink,
    Progress,
    RecoveredJob,
    Submission,
)
from ..file_follower import FileFollower
from ..wire import EPOCH_VARIABLE, Resources
from . import meter, shell
from .batches import Batches
from .helpers import Helpers
from .jobspecs import JobspecWriter, NodeFiles, sentinel
from .journal import Journal, Report
from .output import OutputFollower
from .reactor import Reactor, reject, resolve, then
from .resources import nodes
from .sending import Sender
from .submitting import Submitter, plain_id, remove

#: Seconds in which a job that was sent shows up, where no sentinel can tell.
_SENTINEL_WAIT = 2.0
#: Seconds for what was sent a moment ago to be known, and for jobs that are ended to be gone, at the agent's end. Flux
#: itself ends a job that ignores its signals (kill-timeout); the second bound is for a stuck node.
_SEEN_LIMIT = 5.0
_GONE_LIMIT = 60.0
_THREAD_LIMIT = 5.0


class FluxEngine(Engine):
    """See `Engine`. ``run`` names the jobs that are ours in an instance that others use too."""

    name = "flux"

    def __init__(
        self,
        run: str,
        directory: str,
        on_lost: Callable[[str], None],
        attached: bool = False,
        files_are_local_to_lead: bool = False,
        is_first_agent: bool = False,
        observe: Optional[Callable[[Any], None]] = None,
    ) -> None:
        """``on_lost`` is called when Flux has gone. ``attached``: to an instance that somebody else created.
        ``files_are_local_to_lead``: this program is at the same path on every node, but its directory is not.
        ``is_first_agent``: it has had no predecessor in this instance. ``observe`` is called in the reactor's thread
        with each event of the job manager's journal, of all jobs.
        """
        self._directory = directory
        self._attached = attached
        self._on_lost = on_lost
        self._files_are_local_to_lead = files_are_local_to_lead
        self._is_first_agent = is_first_agent
        self._loop = asyncio.get_event_loop()
        self._ready: asyncio.Future[str] = self._loop.create_future()
        self._idle: Optional[asyncio.Future[None]] = None
        self._stopping = False
        self._emit: Optional[Emit] = None
        self._recovered: Optional[Callable[[RecoveredJob], None]] = None
        self._node_files = NodeFiles()
        self._observe = observe
        self.reactor = self._reactor = Reactor(self._begin, self._on_end)
        self._reports: Batches[Report] = Batches(self._reactor.to_loop, self._deliver, is_open=False)
        usage_path = os.path.join(directory, "usage") if meter.is_available() else ""
        usage = meter.UsageReader(usage_path).take if usage_path else _no_usage
        self._journal = Journal(run, directory, plain_id, usage)
        epoch = "" if attached else os.environ.get(EPOCH_VARIABLE, "")
        self._writer = JobspecWriter(run, directory, epoch, usage_path)
        self._helpers = Helpers()
        self.sender = Sender()
        self._submitter = Submitter(self._reactor, self._writer.write, self.sender)

    # -- start: sentinel, history, then live

    async def start(self, emit: Emit, recovered: Callable[[RecoveredJob], None]) -> str:
        self._emit = emit
        self._recovered = recovered
        self._reactor.start()
        instance = await self._ready
        self._reports.open()
        return instance

    def _begin(self, handle: flux.Flux) -> None:
        """In the reactor's thread: what comes before its first event."""
        owner = int(handle.attr_get("security.owner"))
        if owner != os.getuid():
            raise EngineError(
                "the instance belongs to user id %d, and its job journal can be read by its owner only; "
                "start an instance of your own inside it with `flux alloc` or `flux batch`, and run there" % owner,
                "not-possible",
            )
        self.version = str(handle.attr_get("version"))
        self.uri = str(handle.attr_get("local-uri"))
        hosts = handle.attr_get("hostlist")
        instance = "%s-%s" % (hosts, handle.attr_get("broker.starttime"))
        if self._files_are_local_to_lead:
            self._node_files = NodeFiles(shell_text=_beside_the_archive(shell.NAME), are_local_to_lead=True)
            from . import secret_service  # in pods only; others start without it

            self._secret_watcher = secret_service.serve(handle, self._directory)
        elif set(flux.hostlist.decode(hosts)) <= {os.uname().nodename}:
            spool = os.path.join(self._directory, "spool")
            os.makedirs(spool, mode=0o700, exist_ok=True)
            self._node_files = NodeFiles(spool, shell.write(self._directory))
        self._writer.node_files = self._node_files
        self.sender.begin(handle, is_our_own=not self._attached)
        (self._consume if self._is_first_agent else self._submit_sentinel)(handle, instance)

    def _submit_sentinel(self, handle: flux.Flux, instance: str) -> None:
        def consume(*_: Any) -> None:
            self._consume(handle, instance)

        def submitted(future: Any) -> None:
            try:
                number = int(future.get_id())
            except OSError:
                # No queue takes it (they may be named, or disabled), so that nothing tells: see the module.
                self._late = handle.timer_watcher_create(_SENTINEL_WAIT, consume)
                self._late.start()
                return
            then(flux.job.cancel_async(handle, number, "sentinel"), _ignore_result)
            consume()

        then(self.sender.send(handle, sentinel(), urgency=0), submitted)

    def _consume(self, handle: flux.Flux, instance: str) -> None:
        consumer = JournalConsumer(handle, include_sentinel=True)
        consumer.start()
        consumer.set_callback(self._on_journal, instance)

    def _on_end(self, error: EngineError, refused: bool) -> None:
        reject(self._ready, error)
        if not refused and not self._stopping:
            self._on_lost(str(error))

    @property
    def is_on_known_nodes(self) -> bool:
        """Whether this program is on all nodes of the instance, as far as is known."""
        return bool(self._node_files.spool) or self._files_are_local_to_lead

    # -- what the journal says

    def _on_journal(self, event: Any, instance: str) -> None:
        """In the reactor's thread. None is the end of the stream, of which the reactor hears too."""
        if event is None:
            return
        if self._observe is not None:
            self._observe(event)
        step = self._journal.apply(event)
        for report in step.reports:
            self._reports.put(report)
        for reader in step.readers:
            reader()
        for path in step.files:
            remove(path)
        if step.ends_history:
            self._reactor.to_loop(lambda: resolve(self._ready, instance))
        elif self._idle is not None and not self._journal.has_active:
            self._reactor.to_loop(lambda: resolve(self._idle, None))

    def _deliver(self, reports: List[Report]) -> None:
        assert self._emit is not None and self._recovered is not None  # reports wait for the end of `start`
        entries: List[Entry] = []
        for report in reports:
            if isinstance(report, RecoveredJob):
                self._recovered(report)
            else:
                entries.append(report)
        if entries:
            self._emit(entries)

    # -- Engine

    def submit(self, submissions: List[Submission]) -> List[Awaitable[str]]:
        return self._submitter.submit(submissions)

    async def cancel(self, job_id: str, note: str) -> None:
        await self._raise(job_id, "cancel", note)

    async def _raise(self, job_id: str, kind: str, note: str) -> None:
        """Raise an exception of severity 0 (RFC 21), which ends the job. One that has ended is no error."""
        payload = {"id": _number(job_id), "severity": 0, "type": kind, "note": note}
        try:
            await self._reactor.rpc(lambda handle: handle.rpc("job-manager.raise", payload, nodeid=0))
        except EngineError as err:
            if "inactive" not in str(err) and "unknown job" not in str(err):
                raise

    async def kill(self, job_id: str, signum: int) -> None:
        number = _number(job_id)
        await self._reactor.rpc(lambda handle: flux.job.kill_async(handle, number, signum))

    async def resources(self) -> Resources:
        status = await self._reactor.rpc(lambda handle: handle.rpc("resource.status", nodeid=0))
        scheduled = await self._reactor.rpc(lambda handle: handle.rpc("resource.sched-status", nodeid=0))
        return {"nodes": nodes(status, scheduled)}

    async def drain(self, ranks: str, reason: str, undo: bool) -> None:
        topic = "resource.undrain" if undo else "resource.drain"
        payload = {"targets": ranks} if undo else {"targets": ranks, "reason": reason, "mode": "update"}
        await self._reactor.rpc(lambda handle: handle.rpc(topic, payload, nodeid=0))

    async def start_helper(self, name: str, command: List[str], env: Dict[str, str]) -> None:
        self._reactor.call(lambda handle: self._helpers.start(handle, name, command, env))

    def follow(self, position: OutputPosition, sink: OutputSink, progress: Progress) -> Follower:
        number = _number(position.job_id)
        spool = self._node_files.spool
        if spool and not self._journal.is_kept_by_flux(number):
            path = shell.spool_path(spool, position.job_id, position.stream)
            return FileFollower(path, position.offset, sink, progress)
        follower = OutputFollower(position, sink, progress, self._reactor.to_loop)

        def call(handle: flux.Flux) -> None:
            self._journal.when_it_writes(
                number, lambda: output_event_watch_async(handle, number).then(follower.on_event)
            )

        self._reactor.call(call)
        return follower

    def forget(self, job_id: str) -> None:
        spool = self._node_files.spool
        if spool:
            self._journal.forget(_number(job_id))
            for stream in ("stdout", "stderr"):
                remove(shell.spool_path(spool, job_id, stream))

    async def stop(self, reason: EndReason) -> bool:
        self._stopping = True
        if reason is not EndReason.ENGINE_LOST and self._reactor.is_alive:
            await self._end_jobs(reason)
        ended = self._reactor.is_alive and not self._journal.has_active
        await self._reactor.stop(_THREAD_LIMIT)
        for job in self._journal.active():
            for path in job.secret_files():
                remove(path)
        return ended

    async def _end_jobs(self, reason: EndReason) -> None:
        """Raise exceptions for all jobs, and wait until they are gone."""
        # What was sent a moment ago is to be ended too, and its sender is to learn its id.
        deadline = self._loop.time() + _SEEN_LIMIT
        while min(self._journal.seen, self._submitter.accepted) < self._submitter.expected:
            if self._loop.time() > deadline or not self._reactor.is_alive:
                break
            await asyncio.sleep(0.01)  # once in the life of an agent; the counts belong to another thread
        self._idle = self._loop.create_future()
        jobs = self._journal.active()
        for job in jobs:
            asyncio.ensure_future(self._raise_quietly(job.id, reason.exception))
        if jobs and self._journal.has_active and self._reactor.is_alive:
            await asyncio.wait([self._idle], timeout=_GONE_LIMIT)

    async def _raise_quietly(self, job_id: str, kind: str) -> None:
        try:
            await self._raise(job_id, kind, "the instance is shutting down")
        except EngineError:
            pass  # the job ended by itself meanwhile


def _number(job_id: str) -> int:
    try:
        return int(flux.job.JobID(job_id))
    except ValueError:
        raise EngineError("%r is not a Flux job id" % job_id, "not-found") from None


def _beside_the_archive(name: str) -> str:
    """The path of a file that every pod has beside the agent's archive, "" where there is none (an older client's)."""
    path = os.path.join(os.path.dirname(os.path.abspath(sys.argv[0])), name)
    return path if os.path.exists(path) else ""


def _no_usage(_job_id: str, _tasks: int) -> None:
    return None


def _ignore_result(future: Any) -> None:
    try:
        future.get()
    except OSError:
        pass  # the sentinel is gone already
