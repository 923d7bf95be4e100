"""The engine over a real Flux instance, through Flux's own bindings.

One thread runs Flux's reactor on one handle: it submits, cancels and follows the job manager's journal, and hands
everything to the server's loop in batches. Nothing polls, and no process or thread belongs to a single job.

Keys survive the agent. Each job carries ``attributes.user.fxo`` = {run, key, digest, name}, which the journal's
redacted jobspec keeps. A new agent that merely scanned the history would miss what its predecessor sent just before
it died (those jobs show up for up to a second afterwards); so it first submits one held *sentinel* job and reads the
history once that has an id: ingest is ordered, so everything sent before is in it.
The first agent of an instance has no predecessor, and needs no sentinel.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import sys
import threading
from collections import deque
from typing import Any, Awaitable, Callable, Deque, Dict, List, Optional, Set, Tuple

import flux
import flux.constants
import flux.hostlist
import flux.idset
import flux.job
from flux.job.journal import JournalConsumer
from flux.job.output import output_event_watch_async

from . import flux_shell, launch, secret_service
from .engine import Emit, Engine, EngineError, Entry, Follower, Known, Sink, Submission
from .flux_output import OutputFollower
from .flux_resources import lines_of, memory, nodes_of, task_count
from .follow import FileFollower
from .wire import MARK

_USER = "fxo"
#: Seconds in which a job that was sent shows up, where no sentinel can tell.
_SENTINEL_WAIT = 2.0
#: Submissions of one job, should Flux refuse it with EEXIST.
_TRIES = 3


class FluxEngine(Engine):
    """See `Engine`. ``run`` names the jobs that are ours in an instance that others use too."""

    name = "flux"

    def __init__(
        self,
        run: str,
        state_dir: str,
        on_lost: Callable[[str], None],
        guest: bool = False,
        everywhere: bool = False,
        first: bool = False,
    ) -> None:
        """``everywhere``: this program is at the same path on every node, but its directory is not. ``first``: it has
        had no predecessor in this instance.
        """
        self._run = run
        self._state_dir = state_dir
        self._on_lost = on_lost
        self._loop = asyncio.get_event_loop()
        self._calls: Deque[Callable[[flux.Flux], None]] = deque()
        self._wake_r, self._wake_w = os.pipe()
        os.set_blocking(self._wake_w, False)
        self._entries: List[Entry] = []
        self._entries_lock = threading.Lock()
        self._flush_due = False
        self._emit: Optional[Emit] = None
        self._known: Optional[Callable[[Known], None]] = None
        self._ours: Set[int] = set()
        self._active: Set[int] = set()
        self._idle: Optional[asyncio.Future[None]] = None
        self._running: Dict[int, bool] = {}
        self._waiting_output: Dict[int, List[Callable[[], None]]] = {}
        self._secrets: Dict[int, List[str]] = {}
        self._tasks: Dict[int, int] = {}
        self._secret_count = 0
        self._everywhere = everywhere
        self._first = first
        self._secret_watcher: Any = None
        #: Jobs that this agent was asked for (counted on the loop); that were refused, that got their id, and that the
        #: journal has shown, older ones of its history too (counted in the reactor's thread).
        self._asked = 0
        self._refused = 0
        self._answered = 0
        self._seen = 0
        #: The text for Flux's shell, see `flux_shell`; empty where it is not on every node.
        self._shell_text = ""
        #: For output that goes to no file of the job's; empty where not all nodes share it. Flux keeps it then.
        self._spool = ""
        #: Jobs whose output Flux keeps, though our shell text is in use.
        self._kept_by_flux: Set[int] = set()
        self._mark = "" if guest else os.environ.get(MARK, "")
        #: A text that no job can hold, since nobody can guess it.
        self._place = os.urandom(16).hex()
        self._stopping = False
        self._ready: Optional[asyncio.Future[str]] = None
        self._usage_path = os.path.join(state_dir, "usage")
        self._usage = launch.UsageReader(self._usage_path)
        self._measures = launch.meter_available()
        self._thread = threading.Thread(target=self._run_reactor, name="flux-reactor", daemon=True)
        self.version = ""

    # -- start: sentinel, history, then live

    async def start(self, emit: Emit, known: Callable[[Known], None]) -> str:
        self._emit = emit
        self._known = known
        self._ready = self._loop.create_future()
        self._thread.start()
        instance = await self._ready
        self._flush()
        return instance

    def _run_reactor(self) -> None:
        reason = "the connection to the Flux instance was lost"
        try:
            handle = _connect()
            owner = int(handle.attr_get("security.owner"))
            if owner != os.getuid():
                raise EngineError(
                    "the instance belongs to user id %d, and its job journal can be read by its owner only; "
                    "start an instance of your own inside it with `flux alloc` or `flux batch`, and run there" % owner,
                    "not-possible",
                )
            self.version = str(handle.attr_get("version"))
            self.uri = str(handle.attr_get("local-uri"))
            instance = "%s-%s" % (handle.attr_get("hostlist"), handle.attr_get("broker.starttime"))
            watcher = handle.fd_watcher_create(self._wake_r, self._on_wake, flux.constants.FLUX_POLLIN)
            watcher.start()
            self._watch_broker(handle)
            if not self._everywhere and set(flux.hostlist.decode(handle.attr_get("hostlist"))) <= {os.uname().nodename}:
                self._spool = os.path.join(self._state_dir, "spool")
                os.makedirs(self._spool, mode=0o700, exist_ok=True)
                self._shell_text = flux_shell.write(self._state_dir)
            if self._everywhere:
                self._shell_text = _beside_the_archive(flux_shell.NAME)
                self._secret_watcher = secret_service.serve(handle, self._state_dir)
            (self._consume if self._first else self._sentinel)(handle, instance)
            handle.reactor_run()
        except EngineError as err:
            self._fail_start(err)
            return
        except OSError as err:
            reason = "the connection to Flux was lost: %s" % err
        except BaseException as err:  # a broken callback: Flux re-raises it here; the agent must restart, not go deaf
            reason = "the Flux engine failed: %r" % err
        self._fail_start(EngineError(reason))
        if not self._stopping:
            self._to_loop(lambda: self._on_lost(reason))

    def _watch_broker(self, handle: flux.Flux) -> None:
        """End the reactor with the broker. The journal's consumer does not report its end, and without an open
        request Flux does not even read from the connection."""

        def changed(future: Any) -> None:
            try:
                future.get()  # some other state of the broker; its last one is the end of the stream, an error
            except OSError:
                handle.reactor_stop()
            else:
                future.reset()

        flags = flux.constants.FLUX_RPC_STREAMING
        handle.rpc("state-machine.monitor", {}, flux.constants.FLUX_NODEID_ANY, flags).then(changed)

    def _fail_start(self, err: EngineError) -> None:
        def fail() -> None:
            if self._ready is not None and not self._ready.done():
                self._ready.set_exception(err)

        self._to_loop(fail)

    def _consume(self, handle: flux.Flux, instance: str) -> None:
        consumer = JournalConsumer(handle, include_sentinel=True)
        consumer.start()
        consumer.set_callback(self._on_journal, instance)

    def _sentinel(self, handle: flux.Flux, instance: str) -> None:
        def consume(*_: Any) -> None:
            self._consume(handle, instance)

        def submitted(future: Any) -> None:
            try:
                sentinel = int(future.get_id())
            except OSError:
                # No queue takes it (they may be named, or disabled). A while must do, then: see the module.
                self._late = handle.timer_watcher_create(_SENTINEL_WAIT, consume)
                self._late.start()
                return
            flux.job.cancel_async(handle, sentinel, "sentinel").then(_ignore_result)
            consume()

        flux.job.submit_async(handle, _sentinel_jobspec(self._run), urgency=0).then(submitted)

    # -- journal (reactor thread)

    def _on_journal(self, event: Any, instance: str) -> None:
        if event is None:
            return
        if event.is_empty():
            self._to_loop(lambda: _resolve(self._ready, instance))
            return
        job = int(event.jobid)
        context = event.context
        if event.name == "submit":
            mark = _mark_of(event.jobspec, self._run)
            if mark is None:
                return
            self._seen += 1
            self._ours.add(job)
            self._active.add(job)
            self._tasks[job] = int(mark.get("tasks", 1))
            if not mark.get("spooled"):
                self._kept_by_flux.add(job)
            if mark.get("secret") and job not in self._secrets:  # of an agent before this one
                base = os.path.join(self._state_dir, str(mark["secret"]))
                self._secrets[job] = ["%s.%d" % (base, rank) for rank in range(self._tasks[job])]
            self._know(job, mark)
        elif job not in self._ours:
            return
        if event.name == "alloc":
            context = {"node": nodes_of(event.R)}
        elif event.name == "start":
            self._running[job] = True
            for begin in self._waiting_output.pop(job, ()):
                begin()
        elif event.name == "finish":
            self._running.pop(job, None)
            tasks = self._tasks.get(job, 1)
            usage = self._usage.take(str(event.jobid.f58plain), tasks) if self._measures else None
            if usage is not None:
                context = dict(context, usage=usage)
        elif event.name == "clean":
            self._on_clean(job)
        self._push((_plain(job), event.name, event.timestamp, context))

    def _on_clean(self, job: int) -> None:
        self._ours.discard(job)
        self._active.discard(job)
        self._tasks.pop(job, None)
        self._running.pop(job, None)
        for begin in self._waiting_output.pop(job, ()):
            begin()
        for path in self._secrets.pop(job, ()):
            _unlink(path)
        if not self._active and self._idle is not None:
            self._to_loop(lambda: _resolve(self._idle, None))

    def _know(self, job: int, mark: Dict[str, Any]) -> None:
        known = Known(_plain(job), mark.get("key"), mark.get("digest", ""), mark.get("name", ""))
        self._push((known.id, "", 0.0, {"known": known}))

    def _push(self, entry: Entry) -> None:
        with self._entries_lock:
            self._entries.append(entry)
            due, self._flush_due = self._flush_due, True
        if not due:
            self._to_loop(self._flush)

    def _flush(self) -> None:
        """On the loop: hand over what the reactor thread has collected."""
        if self._emit is None or self._known is None or (self._ready is not None and not self._ready.done()):
            return
        with self._entries_lock:
            entries, self._entries = self._entries, []
            self._flush_due = False
        batch: List[Entry] = []
        for entry in entries:
            if entry[1]:
                batch.append(entry)
            else:
                self._known(entry[3]["known"])
        if batch:
            self._emit(batch)

    # -- calls from the loop into the reactor thread

    def _call(self, function: Callable[[flux.Flux], None]) -> None:
        self._calls.append(function)
        try:
            os.write(self._wake_w, b"\0")
        except BlockingIOError:
            pass  # the pipe is full of wake-ups already

    def _on_wake(self, handle: flux.Flux, _watcher: Any, fd: int, _events: int, _args: Any) -> None:
        os.read(fd, 65536)
        while self._calls:
            self._calls.popleft()(handle)

    def _to_loop(self, function: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(function)
        except RuntimeError:
            pass  # the loop is closed: the agent is past caring

    def _rpc(self, start: Callable[[flux.Flux], Any], value: Callable[[Any], Any]) -> Awaitable[Any]:
        """Start a Flux future in the reactor thread; the awaitable gets ``value(future)`` or an EngineError."""
        result = self._loop.create_future()

        def done(future: Any) -> None:
            try:
                answer = value(future)
            except OSError as err:
                error = EngineError(future.error_string() or os.strerror(err.errno or errno.EIO))
                self._to_loop(lambda: _reject(result, error))
            else:
                self._to_loop(lambda: _resolve(result, answer))

        def call(handle: flux.Flux) -> None:
            try:
                start(handle).then(done)
            except (OSError, ValueError, TypeError) as err:
                error = EngineError(str(err))
                self._to_loop(lambda: _reject(result, error))

        self._call(call)
        return result

    # -- Engine

    def submit(self, submissions: List[Submission]) -> List[Awaitable[str]]:
        results: List[asyncio.Future[str]] = [self._loop.create_future() for _ in submissions]
        answers: List[Tuple[asyncio.Future[str], Any]] = []

        def flush_answers() -> None:
            batch, answers[:] = list(answers), []
            for result, answer in batch:
                if isinstance(answer, EngineError):
                    _reject(result, answer)
                else:
                    _resolve(result, answer)

        def answer(result: asyncio.Future[str], value: Any) -> None:
            answers.append((result, value))
            if len(answers) == 1:
                self._to_loop(flush_answers)

        def done(future: Any, result: asyncio.Future[str], secrets: List[str], again: Callable[[], Any]) -> None:
            try:
                job = int(future.get_id())
            except OSError as err:
                if err.errno == errno.EEXIST:
                    # Nothing of the job was stored; seen once in 100,000 submissions.
                    later = again()
                    if later is not None:
                        later.then(done, result, secrets, again)
                        return
                self._refused += 1
                for path in secrets:
                    _unlink(path)
                answer(result, EngineError(future.error_string() or os.strerror(err.errno or errno.EIO)))
                return
            self._answered += 1
            if secrets:
                self._secrets[job] = secrets
            answer(result, _plain(job))

        def call(handle: flux.Flux) -> None:
            for submission, result in zip(submissions, results):
                secrets: List[str] = []
                try:
                    text = self._jobspec_text(submission, secrets)
                    again = _resubmission(handle, text, submission.urgency)
                    again().then(done, result, secrets, again)
                except Exception as err:  # this thread serves all clients: nothing in one item may end it
                    self._refused += 1
                    for path in secrets:
                        _unlink(path)
                    answer(result, EngineError("the jobspec cannot be submitted: %s" % err))

        self._asked += len(submissions)
        self._call(call)
        return list(results)

    def _jobspec_text(self, submission: Submission, secrets: List[str]) -> str:
        spec = submission.jobspec
        mark: Dict[str, Any] = {
            "run": self._run,
            "key": submission.key,
            "digest": submission.digest,
            "name": submission.name,
        }
        spec["attributes"].setdefault("user", {})[_USER] = mark
        mark["tasks"] = task_count(spec)
        task = spec["tasks"][0]
        if submission.measure and self._measures:
            task["command"] = launch.with_meter(task["command"], self._usage_path)
        shared, secret_env = submission.environment, submission.secret_env
        if shared is not None:
            shared, not_text = shared.halves()
            # As a secret, by a shell, which takes names of its own kind only (the client has said so).
            secret_env = {**{k: v for k, v in not_text.items() if not launch.bad_names([k])}, **(secret_env or {})}
        base = None
        if secret_env:
            self._secret_count += 1
            mark["secret"] = name = "env-%d-%d-%s" % (os.getpid(), self._secret_count, os.urandom(16).hex())
            base = os.path.join(self._state_dir, name)
            by_shell = not self._spool and launch.a_shell_takes(secret_env)
            launch.write_secrets(base, secret_env, mark["tasks"], secrets, by_shell)
            if not self._spool:
                bring = launch.with_sent_secrets if self._everywhere else launch.with_secrets
                task["command"] = bring(task["command"], base, by_shell)
        if self._shell_text:
            ours = base if self._spool else None
            if flux_shell.prepare(spec, mark["tasks"], self._shell_text, self._spool, ours) and self._spool:
                mark["spooled"] = True
        task["command"] = launch.without_templates(task["command"])
        if self._mark:
            # If the broker is killed, its job shells go and leave the tasks behind, with nothing else to know them by.
            values = shared.values if shared is not None else spec["attributes"]["system"].setdefault("environment", {})
            values[MARK] = self._mark
        if shared is None:
            return json.dumps(spec)
        # The environment is most of a jobspec, and jobs share it: encode it once, and put it where it belongs.
        spec["attributes"]["system"]["environment"] = self._place
        return json.dumps(spec).replace('"%s"' % self._place, shared.text(), 1)

    def cancel(self, job_id: str, note: str) -> Awaitable[None]:
        return self._raise(job_id, "cancel", note)

    def _raise(self, job_id: str, kind: str, note: str) -> Awaitable[None]:
        """Raise an exception of severity 0 (RFC 21), which ends the job."""
        number = _number(job_id)
        payload = {"id": number, "severity": 0, "type": kind, "note": note}
        return self._unless_ended(self._rpc(lambda h: h.rpc("job-manager.raise", payload, nodeid=0), _nothing))

    async def _unless_ended(self, call: Awaitable[Any]) -> None:
        try:
            await call
        except EngineError as err:
            if "inactive" not in str(err) and "unknown job" not in str(err):
                raise

    def kill(self, job_id: str, signum: int) -> Awaitable[None]:
        return self._rpc(lambda h: flux.job.kill_async(h, _number(job_id), signum), _nothing)

    async def resources(self) -> Dict[str, Any]:
        status = await self._rpc(lambda h: h.rpc("resource.status", nodeid=0), lambda f: f.get())
        sched = await self._rpc(lambda h: h.rpc("resource.sched-status", nodeid=0), lambda f: f.get())
        drained: Dict[int, str] = {}
        for ranks, drain in (status.get("drain") or {}).items():
            drained.update((rank, drain.get("reason") or "") for rank in flux.idset.IDset(ranks))
        down = {rank for rank, _, _, _ in lines_of(sched.get("down"))}
        busy = {rank for rank, _, _, _ in lines_of(sched.get("allocated"))}
        here = os.uname().nodename
        nodes = []
        for rank, host, cores, gpus in lines_of(sched.get("all")):
            nodes.append({
                "rank": rank, "host": host, "cores": cores, "gpus": gpus, "up": rank not in down,
                "drained": rank in drained, "drain_reason": drained.get(rank, ""), "busy": rank in busy,
                "memory": memory() if host == here else None,
            })  # fmt: skip
        return {"nodes": nodes}

    def drain(self, ranks: str, reason: str, undo: bool) -> Awaitable[None]:
        topic = "resource.undrain" if undo else "resource.drain"
        payload = {"targets": ranks} if undo else {"targets": ranks, "reason": reason, "mode": "update"}
        return self._rpc(lambda h: h.rpc(topic, payload, nodeid=0), _nothing)

    def follow(self, job_id: str, stream: str, offset: int, sink: Sink, progress: Callable[[], str]) -> Follower:
        job = _number(job_id)
        if self._spool and job not in self._kept_by_flux:
            return FileFollower(flux_shell.spool_path(self._spool, job_id, stream), stream, offset, sink, progress)
        follower = OutputFollower(job_id, stream, offset, sink, progress, self._to_loop)

        def call(handle: flux.Flux) -> None:
            def begin() -> None:
                output_event_watch_async(handle, job).then(follower.on_event)

            if job in self._active and job not in self._running:
                self._waiting_output.setdefault(job, []).append(begin)
            else:
                begin()

        self._call(call)
        return follower

    def forget(self, job_id: str) -> None:
        if self._spool:
            self._kept_by_flux.discard(_number(job_id))
            for stream in ("stdout", "stderr"):
                _unlink(flux_shell.spool_path(self._spool, job_id, stream))

    async def stop(self, cancel_jobs: bool, kind: str = "cancel") -> bool:
        self._stopping = True
        if cancel_jobs and self._thread.is_alive():
            await self._see_all()
        if cancel_jobs and self._thread.is_alive() and self._active:
            self._idle = self._loop.create_future()
            for job in list(self._active):
                asyncio.ensure_future(_quietly(self._raise(_plain(job), kind, "the instance is shutting down")))
            if self._active:
                # Flux itself ends a job that ignores its signals (kill-timeout); this bound is for a stuck node.
                await asyncio.wait([self._idle], timeout=60)
        ended = self._thread.is_alive() and not self._active
        self._call(lambda handle: handle.reactor_stop())
        await self._loop.run_in_executor(None, self._thread.join, 5.0)
        for paths in self._secrets.values():
            for path in paths:
                _unlink(path)
        return ended

    async def _see_all(self) -> None:
        """Wait until what was sent a moment ago is known: it is to be cancelled too, and its sender told its id."""
        deadline = self._loop.time() + 5.0
        while min(self._seen, self._answered) < self._asked - self._refused and self._loop.time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # once in the life of an agent; the counts belong to another thread


def _resubmission(handle: flux.Flux, text: str, urgency: int) -> Callable[[], Any]:
    """A function that submits a job each time it is called, and gives None when it has done so `_TRIES` times."""
    tries = [0]

    def submit() -> Any:
        tries[0] += 1
        return flux.job.submit_async(handle, text, urgency=urgency) if tries[0] <= _TRIES else None

    return submit


def _beside_the_archive(name: str) -> str:
    """The path of a file that every pod has beside the agent's archive, "" where there is none (an older client's)."""
    path = os.path.join(os.path.dirname(os.path.abspath(sys.argv[0])), name)
    return path if os.path.exists(path) else ""


def _connect() -> flux.Flux:
    try:
        return flux.Flux()
    except OSError as err:
        uri = os.environ.get("FLUX_URI", "(FLUX_URI is not set)")
        raise EngineError("cannot connect to the Flux instance %s: %s" % (uri, os.strerror(err.errno or 0))) from None


def _plain(job: int) -> str:
    return str(flux.job.JobID(job).f58plain)


def _number(job_id: str) -> int:
    try:
        return int(flux.job.JobID(job_id))
    except ValueError:
        raise EngineError("%r is not a Flux job id" % job_id, "not-found") from None


def _sentinel_jobspec(run: str) -> str:
    return json.dumps({
        "version": 1,
        "resources": [{"type": "slot", "count": 1, "label": "task", "with": [{"type": "core", "count": 1}]}],
        "tasks": [{"command": ["true"], "slot": "task", "count": {"per_slot": 1}}],
        "attributes": {"system": {"duration": 1, "cwd": "/", "environment": {}, "job": {"name": "fxo-sentinel"}}},
    })  # fmt: skip


def _mark_of(jobspec: Any, run: str) -> Optional[Dict[str, Any]]:
    """Our mark in a journal jobspec, or None for a job of somebody else."""
    try:
        mark = jobspec["attributes"]["user"][_USER]
        return mark if mark["run"] == run else None
    except (KeyError, TypeError):
        return None


def _nothing(future: Any) -> None:
    future.get()


def _ignore_result(future: Any) -> None:
    try:
        future.get()
    except OSError:
        pass  # the sentinel is gone already


async def _quietly(call: Awaitable[None]) -> None:
    try:
        await call
    except EngineError:
        pass  # the job ended by itself meanwhile


def _resolve(future: Optional[asyncio.Future[Any]], value: Any) -> None:
    if future is not None and not future.done():
        future.set_result(value)


def _reject(future: asyncio.Future[Any], error: EngineError) -> None:
    if not future.done():
        future.set_exception(error)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass  # the job has removed it itself, as it should
