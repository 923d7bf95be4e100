"""The same contract over local processes, for a machine without Flux.

It promises nothing that Flux does not do: first in, first out among equal urgencies (the head of the line blocks the
others), no queues, one node. Its jobs end with it. It is given its cores and GPUs and never assumes that it owns the
machine, so that it can run inside a Flux job too.
"""

from __future__ import annotations

import asyncio
import os
import resource
import time
from typing import Any, Awaitable, Callable, Dict, List, Optional, Sequence, Set, Tuple

from .. import process_tree
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
from ..wire import NodeSummary, Resources
from . import exits, processes
from .blank_files import BlankFiles
from .helpers import Helpers
from .job import ENDED, PENDING, RUNNING, LocalJob
from .plan import Plan, idset, read_jobspec, unsatisfiable
from .queue import Queue, WaitingJobs
from .tree_killer import TreeKiller

#: Seconds from TERM to KILL, as Flux's kill-timeout.
GRACE = 5.0
#: Rounds of looking for leftovers at the end; what is forked between two of them is found by the next.
_SWEEPS = 20


class EmbeddedEngine(Engine):
    """See `Engine`. ``memory`` in bytes; ``grace`` in seconds; ``spool`` is a private directory for output.

    It is long, and has one reason to change: the way of a job from its submission to its end, one state machine.
    What can be decided apart from it (`plan`, `queue`) or done (`processes`, `exits`, `tree_killer`) is elsewhere.
    """

    name = "embedded"
    version = "1"

    def __init__(
        self,
        *,
        spool: str,
        cores: Optional[int] = None,
        gpus: Sequence[int] = (),
        memory: Optional[int] = None,
        grace: float = GRACE,
    ) -> None:
        self._loop = asyncio.get_event_loop()
        self._spool = spool
        self._cores = cores or len(os.sched_getaffinity(0))
        self._gpu_ids = list(gpus)
        #: A job without GPUs is to see none, since those of the machine are others'.
        self._hides_gpus = bool(gpus)
        self._memory = memory or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        self._host = os.uname().nodename
        #: What this engine's processes carry in their environment, see `process_tree`.
        self._epoch = os.urandom(6).hex()
        self._queue: WaitingJobs = Queue(range(self._cores), self._gpu_ids)
        self._drained = False
        self._stopped = False
        self._count = 0
        self._jobs: Dict[str, LocalJob] = {}
        self._pids: Dict[int, str] = {}
        self._out: List[Entry] = []
        self._emit: Optional[Emit] = None
        self._admit_due = False
        self._watcher = exits.ExitWatcher(self._loop)
        self._reaper = exits.OrphanReaper(self._loop)
        self._killer = TreeKiller(self._loop, self._watcher, grace, self._census)
        self._helpers = Helpers(self._watcher.watch)
        self._blank_files = BlankFiles()
        self._idle = asyncio.Event()
        self._active = 0
        self._subreaper = False

    # -- Engine

    async def start(self, emit: Emit, recovered: Callable[[RecoveredJob], None]) -> str:
        self._emit = emit
        self._subreaper = process_tree.become_subreaper()
        return "embedded-%s-%s" % (self._host, self._epoch)

    def submit(self, submissions: List[Submission]) -> List[Awaitable[str]]:
        answers: List[Awaitable[str]] = []
        for submission in submissions:
            answer: asyncio.Future[str] = self._loop.create_future()
            try:
                answer.set_result(self._take(submission))
            except EngineError as err:
                answer.set_exception(err)
            except Exception as err:  # whatever is wrong with one item must not refuse the others, which run by now
                answer.set_exception(EngineError("the jobspec cannot be submitted: %r" % err))
            answers.append(answer)
        return answers

    def cancel(self, job_id: str, note: str) -> Awaitable[None]:
        job = self._jobs.get(job_id)
        if job is not None and job.state != ENDED:
            self._raise(job, "cancel", note)
        return self._done()

    def kill(self, job_id: str, signum: int) -> Awaitable[None]:
        job = self._jobs.get(job_id)
        if job is None or job.state != RUNNING:
            return self._failed("job %s is not running" % job_id, "not-possible")
        for pid in job.pids:
            try:
                os.killpg(pid, signum)
            except (ProcessLookupError, PermissionError):
                pass  # this task has ended, or became another user's
        return self._done()

    def resources(self) -> Awaitable[Resources]:
        node: NodeSummary = {
            "rank": 0, "host": self._host, "cores": self._cores, "gpus": len(self._gpu_ids),
            "memory": self._memory, "up": True, "drained": self._drained,
        }  # fmt: skip
        result: asyncio.Future[Resources] = self._loop.create_future()
        result.set_result({"nodes": [node]})
        return result

    def drain(self, ranks: str, reason: str, undo: bool) -> Awaitable[None]:
        try:
            wanted = idset(ranks)
        except EngineError as err:
            return self._failed(str(err), err.code)
        if wanted.largest > 0:
            return self._failed("ranks %s: this instance has rank 0 only" % ranks, "bad-request")
        self._drained = not undo
        self._admit_soon()
        return self._done()

    def follow(self, position: OutputPosition, sink: OutputSink, progress: Progress) -> Follower:
        job = self._jobs.get(position.job_id)
        if job is None:
            raise EngineError("the output of job %s is no longer kept" % position.job_id, "not-found")
        return FileFollower(job.output_path(position.stream), position.offset, sink, progress)

    def forget(self, job_id: str) -> None:
        job = self._jobs.get(job_id)
        if job is None or job.state != ENDED:
            return
        del self._jobs[job_id]
        for path in job.kept_here:
            self._blank_files.put(path)

    def start_helper(self, name: str, command: List[str], env: Dict[str, str]) -> Awaitable[None]:
        try:
            self._helpers.start(name, command, env)
        except (OSError, ValueError) as err:
            return self._failed("%s: %s" % (command[0], err), "not-possible")
        return self._done()

    async def stop(self, reason: EndReason) -> bool:
        self._stopped = True
        is_lost = reason is EndReason.ENGINE_LOST
        note = "the agent was ended" if is_lost else "the instance is shutting down"
        for job in list(self._jobs.values()):
            if job.state != ENDED:
                self._raise(job, reason.exception, note)
        while self._active:
            self._idle.clear()
            await self._idle.wait()
        self._flush()
        await self._end_leftovers()
        self._helpers.stop()
        self._watcher.close()
        self._reaper.finish()
        if self._subreaper:
            process_tree.resign_subreaper()
        return True

    # -- taking and starting

    def _take(self, submission: Submission, job_id: str = "") -> str:
        if self._stopped:
            raise EngineError("the engine is shutting down", "closing")
        if submission.environment is not None:
            submission.jobspec["attributes"]["system"]["environment"] = submission.environment.values
        plan = read_jobspec(submission.jobspec, "/")
        refusal = self._why_never(plan)
        self._count += 1
        job = LocalJob(job_id or "e%s-%d" % (self._epoch[:4], self._count), plan, submission, self._spool)
        self._jobs[job.id] = job
        self._active += 1
        self._tell(job, "submit", {"urgency": job.urgency})
        if refusal is not None:
            self._raise(job, "alloc", refusal)
            return job.id
        self._tell(job, "depend", {})
        self._tell(job, "priority", {"priority": job.urgency})
        if job.urgency > 0:  # 0 means held
            self._queue.add(job)
            self._admit_soon()
        return job.id

    def _admit_soon(self) -> None:
        if not self._admit_due:
            self._admit_due = True
            self._loop.call_soon(self._admit)

    def _admit(self) -> None:
        self._admit_due = False
        while not self._drained and not self._stopped:
            job = self._queue.take()
            if job is None:
                return
            self._start(job)

    def _start(self, job: LocalJob) -> None:
        job.state = RUNNING
        self._tell(job, "alloc", {"node": self._host})
        for path in job.kept_here:
            self._blank_files.give(path)
        try:
            with processes.open_outputs(job) as outputs:
                env = processes.environment(job, self._epoch, self._hides_gpus, os.environ)
                job.secret_env = {}  # not kept longer than needed
                cpus = self._prepare(job, env)
                self._tell(job, "start", {})
                for rank in range(job.plan.tasks):
                    self._started(job, rank, processes.start_task(job, rank, env, outputs, cpus))
        except OSError as err:
            self._could_not_start(job, err)
        except ValueError as err:  # a null byte in a word or a variable
            self._could_not_start(job, OSError(str(err)))
        else:
            if job.plan.duration > 0:
                job.timers.append(
                    self._loop.call_later(job.plan.duration, self._raise, job, "timeout", "resource allocation expired")
                )

    def _why_never(self, plan: Plan) -> Optional[str]:
        """Why this machine can never run the plan; None: it can."""
        return unsatisfiable(plan, self._host, self._cores, len(self._gpu_ids))

    def _prepare(self, job: LocalJob, env: Dict[str, str]) -> Optional[Set[int]]:
        """Add to the environment of a job that starts. Returns the CPUs that it is bound to; None: to none."""
        return None

    def _tidy(self, job: LocalJob) -> None:
        """No process of this job is left."""

    def _left(self, cores: List[int]) -> None:
        """These cores were withdrawn, and no job has them any more."""

    def _started(self, job: LocalJob, rank: int, pid: int) -> None:
        exits.started.add(pid)
        self._pids[pid] = job.id
        job.pids[pid] = rank
        job.left += 1
        self._watcher.watch(pid, lambda: self._on_exit(job, pid))

    def _could_not_start(self, job: LocalJob, err: OSError) -> None:
        name = err.filename if isinstance(err.filename, str) else job.plan.command[0]
        reason = err.strerror or str(err)
        if not job.left and name == job.plan.cwd:
            job.status, note = 1 << 8, "the working directory %s: %s" % (name, reason)
        elif not job.left and name in job.paths:
            job.status, note = 1 << 8, "cannot open %s for output: %s" % (name, reason)
        else:
            job.status = (126 if isinstance(err, PermissionError) else 127) << 8
            note = "task %d: start failed: %s: %s" % (job.left, name, reason)
        self._raise(job, "exec", note)
        if not job.left and job.state == RUNNING:
            self._finish(job)

    # -- ending

    def _on_exit(self, job: LocalJob, pid: int) -> None:
        taken = exits.take(pid)
        self._pids.pop(pid, None)
        job.pids.pop(pid, None)
        job.left -= 1
        if taken is not None:
            status, cpu, rss = taken
            job.status = max(job.status, status)
            job.cpu += cpu
            job.max_rss = max(job.max_rss, rss)
        self._reaper.sweep()
        if job.is_ending:
            self._killer.changed(job.id)
        elif not job.left:
            self._finish(job)
        else:
            self._after_one_exit(job, taken)

    def _after_one_exit(self, job: LocalJob, taken: Optional[Tuple[int, float, int]]) -> None:
        """Other tasks of this job still run: Flux's exit-on-error and exit-timeout."""
        if job.plan.exit_on_error and taken is not None and taken[0]:
            self._raise(job, "exec", "a task exited with an error and exit-on-error is set")
        elif job.plan.exit_timeout is not None and job.left == job.plan.tasks - 1:
            note = "a task exited and exit-timeout=%gs has expired" % job.plan.exit_timeout
            job.timers.append(self._loop.call_later(job.plan.exit_timeout, self._raise, job, "exec", note))

    def _raise(self, job: LocalJob, kind: str, note: str) -> None:
        """A severity-0 exception. A job that runs is ended with its whole tree, one that does not is over."""
        if job.state == ENDED or job.is_ending:
            return
        self._tell(job, "exception", {"type": kind, "severity": 0, "note": note})
        if job.state == PENDING:
            self._clean(job)
        elif job.left:
            job.is_ending = True
            self._killer.end(job.id, lambda: self._gone(job))

    def _gone(self, job: LocalJob) -> None:
        # Without live processes tasks can still be on their way to `_on_exit`; with some, even KILL could not end them.
        if job.left:
            job.is_ending = False
            self._loop.call_later(1.0, self._give_up, job)
        else:
            self._finish(job)

    def _give_up(self, job: LocalJob) -> None:
        if job.state == RUNNING:
            job.status = job.status or (128 + 9) << 8
            self._finish(job)

    def _finish(self, job: LocalJob) -> None:
        if job.state == ENDED:
            return
        for timer in job.timers:
            timer.cancel()
        processes.take_usage(job)
        # Linux counts what a process was before its exec, which is this agent: less than that is not known.
        known = job.max_rss > resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        usage = {"cpu": job.cpu, "max_rss": job.max_rss if known else None}
        self._tidy(job)
        self._tell(job, "finish", {"status": job.status, "usage": usage})
        left = self._queue.give_back(job)
        self._clean(job)
        if left:
            self._left(left)
        self._admit_soon()

    def _clean(self, job: LocalJob) -> None:
        job.state = ENDED
        self._active -= 1
        self._tell(job, "clean", {})
        if not self._active:
            self._idle.set()

    async def _end_leftovers(self) -> None:
        """What jobs have left behind (daemons) ends with the engine."""
        for _ in range(_SWEEPS):
            left: Set[str] = set(self._census())
            if not left:
                return
            gone = asyncio.Event()

            def one_gone(key: str, left: Set[str] = left, gone: asyncio.Event = gone) -> None:
                left.discard(key)
                if not left:
                    gone.set()

            for key in list(left):
                self._killer.end(key, lambda key=key: one_gone(key))  # type: ignore[misc]  # mypy cannot type the default
            await gone.wait()

    def _census(self) -> Dict[str, List[process_tree.Process]]:
        return process_tree.members(process_tree.snapshot(), self._pids, self._epoch)

    # -- events and answers

    def _tell(self, job: LocalJob, name: str, context: Dict[str, Any]) -> None:
        self._out.append((job.id, name, time.time(), context))
        if len(self._out) == 1:
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        entries, self._out = self._out, []
        if entries and self._emit is not None:
            self._emit(entries)

    def _done(self) -> Awaitable[None]:
        answer: asyncio.Future[None] = self._loop.create_future()
        answer.set_result(None)
        return answer

    def _failed(self, text: str, code: str) -> Awaitable[None]:
        answer: asyncio.Future[None] = self._loop.create_future()
        answer.set_exception(EngineError(text, code))
        return answer
