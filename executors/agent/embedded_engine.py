"""The same contract over local processes, for a machine without Flux.

It promises nothing that Flux does not do: first in, first out among equal urgencies (the head of the line blocks the
others), no queues, one node. Its jobs end with it. It is given its cores and GPUs and never assumes that it owns the
machine, so that it can run inside a Flux job too.
"""

from __future__ import annotations

import asyncio
import errno
import heapq
import os
import resource
import shutil
import subprocess
import time
from typing import IO, Any, Awaitable, Callable, Dict, List, Optional, Sequence, Set, Tuple

from . import exits, process_tree
from .embedded_plan import Plan, idset, read_jobspec, unsatisfiable
from .ending import Ending
from .engine import Emit, Engine, EngineError, Entry, Follower, Known, Sink, Submission
from .follow import FileFollower
from .wire import MARK, mark_value

#: Seconds from TERM to KILL, as Flux's kill-timeout.
GRACE = 5.0
#: Rounds of looking for leftovers at the end; what is forked between two of them is found by the next.
_SWEEPS = 20


class _Job:
    __slots__ = (
        "cores",
        "cpu",
        "ending",
        "gpus",
        "id",
        "left",
        "max_rss",
        "paths",
        "pids",
        "plan",
        "secret_env",
        "state",
        "status",
        "timers",
        "urgency",
    )  # fmt: skip

    def __init__(self, job_id: str, plan: Plan, submission: Submission) -> None:
        self.id = job_id
        self.plan = plan
        self.urgency = submission.urgency
        self.secret_env = submission.secret_env or {}
        self.state = "pending"  # then running, then ended
        self.pids: Dict[int, int] = {}
        self.left = 0
        self.status = 0
        self.cpu = 0.0
        self.max_rss = 0
        self.gpus: List[int] = []
        self.cores = 0
        self.timers: List[asyncio.TimerHandle] = []
        #: An exception was raised while it ran: its whole tree has to go before it has finished.
        self.ending = False
        self.paths = ("", "")


class EmbeddedEngine(Engine):
    """See `Engine`. ``memory`` in bytes; ``grace`` in seconds; ``spool`` is a private directory for output."""

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
        self._memory = memory or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        self._host = os.uname().nodename
        #: The mark of this engine's jobs, see `process_tree`.
        self._epoch = os.urandom(6).hex()
        self._free_cores = self._cores
        self._free_gpus = list(gpus)
        self._drained = False
        self._stopped = False
        self._count = 0
        self._jobs: Dict[str, _Job] = {}
        self._pids: Dict[int, str] = {}
        self._line: List[Tuple[int, int, _Job]] = []
        self._out: List[Entry] = []
        self._emit: Optional[Emit] = None
        self._admit_due = False
        self._watcher = exits.ExitWatcher(self._loop)
        self._reaper = exits.OrphanReaper(self._loop)
        self._ending = Ending(self._loop, self._watcher, grace, self._census)
        self._idle = asyncio.Event()
        self._active = 0
        self._subreaper = False

    # -- Engine

    async def start(self, emit: Emit, known: Callable[[Known], None]) -> str:
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
        if job is not None and job.state != "ended":
            self._raise(job, "cancel", note)
        return self._done()

    def kill(self, job_id: str, signum: int) -> Awaitable[None]:
        job = self._jobs.get(job_id)
        if job is None or job.state != "running":
            return self._failed("job %s is not running" % job_id, "not-possible")
        for pid in job.pids:
            try:
                os.killpg(pid, signum)
            except (ProcessLookupError, PermissionError):
                pass  # this task has ended, or became another user's
        return self._done()

    def resources(self) -> Awaitable[Dict[str, Any]]:
        node = {
            "rank": 0, "host": self._host, "cores": self._cores, "gpus": len(self._gpu_ids),
            "memory": self._memory, "up": True, "drained": self._drained,
        }  # fmt: skip
        result: asyncio.Future[Dict[str, Any]] = self._loop.create_future()
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

    def follow(self, job_id: str, stream: str, offset: int, sink: Sink, progress: Callable[[], str]) -> Follower:
        job = self._jobs.get(job_id)
        if job is None:
            raise EngineError("the output of job %s is no longer kept" % job_id, "not-found")
        return FileFollower(self._output_path(job, stream), stream, offset, sink, progress)

    def forget(self, job_id: str) -> None:
        job = self._jobs.get(job_id)
        if job is None or job.state != "ended":
            return
        del self._jobs[job_id]
        for stream in ("stdout", "stderr"):
            path = self._output_path(job, stream)
            if path.startswith(self._spool + os.sep):
                _unlink(path)

    async def stop(self, cancel_jobs: bool, kind: str = "cancel") -> bool:
        self._stopped = True
        kind, note = (kind, "the instance is shutting down") if cancel_jobs else ("lost", "the agent was ended")
        for job in list(self._jobs.values()):
            if job.state != "ended":
                self._raise(job, kind, note)
        while self._active:
            self._idle.clear()
            await self._idle.wait()
        self._flush()
        await self._end_leftovers()
        self._watcher.close()
        self._reaper.finish()
        if self._subreaper:
            process_tree.resign_subreaper()
        return True

    # -- taking and starting

    def _take(self, submission: Submission) -> str:
        if self._stopped:
            raise EngineError("the engine is shutting down", "closing")
        if submission.environment is not None:
            submission.jobspec["attributes"]["system"]["environment"] = submission.environment.values
        plan = read_jobspec(submission.jobspec, "/")
        refusal = unsatisfiable(plan, self._host, self._cores, len(self._gpu_ids))
        self._count += 1
        job = _Job("e%s-%d" % (self._epoch[:4], self._count), plan, submission)
        self._jobs[job.id] = job
        self._active += 1
        self._tell(job, "submit", {"urgency": job.urgency})
        if refusal is not None:
            self._raise(job, "alloc", refusal)
            return job.id
        self._tell(job, "depend", {})
        self._tell(job, "priority", {"priority": job.urgency})
        if job.urgency > 0:  # 0 means held
            heapq.heappush(self._line, (-job.urgency, self._count, job))
            self._admit_soon()
        return job.id

    def _admit_soon(self) -> None:
        if not self._admit_due:
            self._admit_due = True
            self._loop.call_soon(self._admit)

    def _admit(self) -> None:
        self._admit_due = False
        while self._line and not self._drained and not self._stopped:
            job = self._line[0][2]
            if job.state == "pending":
                cores = self._cores if job.plan.exclusive else job.plan.cores
                if cores > self._free_cores or job.plan.gpus > len(self._free_gpus):
                    return
                job.cores = cores
                self._start(job)
            heapq.heappop(self._line)

    def _start(self, job: _Job) -> None:
        job.state = "running"
        self._free_cores -= job.cores
        job.gpus, self._free_gpus = self._free_gpus[: job.plan.gpus], self._free_gpus[job.plan.gpus :]
        self._tell(job, "alloc", {"node": self._host})
        files: Dict[str, IO[bytes]] = {}
        problem: Optional[OSError] = None
        try:
            self._open_outputs(job, files)
            env = self._environment(job)
            self._tell(job, "start", {})
            for rank in range(job.plan.tasks):
                self._spawn(job, rank, env, files)
        except OSError as err:
            problem = err
        except ValueError as err:  # a null byte in a word or a variable
            problem = OSError(str(err))
        finally:
            for file in set(files.values()):
                file.close()
        if problem is not None:
            self._could_not_start(job, problem)
        elif job.plan.duration > 0:
            job.timers.append(
                self._loop.call_later(job.plan.duration, self._raise, job, "timeout", "resource allocation expired")
            )

    def _spawn(self, job: _Job, rank: int, env: Dict[str, str], files: Dict[str, IO[bytes]]) -> None:
        task_env = dict(env, FLUX_TASK_RANK=str(rank), FLUX_TASK_LOCAL_ID=str(rank))
        if job.gpus and job.plan.gpu_affinity == "per-task":
            share = max(1, len(job.gpus) // job.plan.tasks)
            task_env["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, job.gpus[rank * share : (rank + 1) * share]))
        process = self._popen(job, job.plan.command, task_env, files)
        pid = process.pid
        # The status is taken by pid when the pidfd tells of the end; the object must not want it too.
        process.returncode = 0
        exits.started.add(pid)
        self._pids[pid] = job.id
        job.pids[pid] = rank
        job.left += 1
        self._watcher.watch(pid, lambda: self._on_exit(job, pid))

    def _popen(
        self, job: _Job, command: List[str], env: Dict[str, str], files: Dict[str, IO[bytes]]
    ) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=files["stdout"], stderr=files["stderr"],
                cwd=job.plan.cwd, env=env, start_new_session=True,
            )  # fmt: skip
        except OSError as err:
            if err.errno != errno.ENOEXEC:
                raise
            # A script without "#!" is one for sh: execvp(3), and so Flux.
            script = shutil.which(command[0], path=env.get("PATH", os.defpath)) or command[0]
            return self._popen(job, ["/bin/sh", script, *command[1:]], env, files)

    def _could_not_start(self, job: _Job, err: OSError) -> None:
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
        if not job.left and job.state == "running":
            self._finish(job)

    def _open_outputs(self, job: _Job, files: Dict[str, IO[bytes]]) -> None:
        mode = "ab" if job.plan.append else "wb"
        number = job.id.rpartition("-")[2]
        job.paths = (
            job.plan.stdout or os.path.join(self._spool, number + ".out"),
            job.plan.stderr or os.path.join(self._spool, number + ".err"),
        )
        files["stdout"] = _open_for_job(job.paths[0], mode)
        if job.paths[1] == job.paths[0]:
            files["stderr"] = files["stdout"]
        else:
            files["stderr"] = _open_for_job(job.paths[1], mode)

    def _environment(self, job: _Job) -> Dict[str, str]:
        env = dict(job.plan.env)
        env.update(job.secret_env)
        job.secret_env = {}  # not kept longer than needed
        env.update(
            FLUX_JOB_ID=job.id,
            FLUX_JOB_SIZE=str(job.plan.tasks),
            FLUX_JOB_NNODES="1",
        )
        env[MARK] = mark_value(self._epoch, os.environ)
        if self._gpu_ids and job.plan.gpu_affinity != "off":
            env["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, job.gpus)) or "-1"
        return env

    def _output_path(self, job: _Job, stream: str) -> str:
        if not job.paths[0]:  # it has not started: say where it will be
            number = job.id.rpartition("-")[2]
            given = job.plan.stdout if stream == "stdout" else job.plan.stderr
            return given or os.path.join(self._spool, number + (".out" if stream == "stdout" else ".err"))
        return job.paths[0 if stream == "stdout" else 1]

    # -- ending

    def _on_exit(self, job: _Job, pid: int) -> None:
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
        if job.ending:
            self._ending.changed(job.id)
        elif not job.left:
            self._finish(job)
        else:
            self._after_one_exit(job, taken)

    def _after_one_exit(self, job: _Job, taken: Optional[Tuple[int, float, int]]) -> None:
        """Other tasks of this job still run: Flux's exit-on-error and exit-timeout."""
        if job.plan.exit_on_error and taken is not None and taken[0]:
            self._raise(job, "exec", "a task exited with an error and exit-on-error is set")
        elif job.plan.exit_timeout is not None and job.left == job.plan.tasks - 1:
            note = "a task exited and exit-timeout=%gs has expired" % job.plan.exit_timeout
            job.timers.append(self._loop.call_later(job.plan.exit_timeout, self._raise, job, "exec", note))

    def _raise(self, job: _Job, kind: str, note: str) -> None:
        """A severity-0 exception. A job that runs is ended with its whole tree, one that does not is over."""
        if job.state == "ended" or job.ending:
            return
        self._tell(job, "exception", {"type": kind, "severity": 0, "note": note})
        if job.state == "pending":
            self._clean(job)
        elif job.left:
            job.ending = True
            self._ending.end(job.id, lambda: self._gone(job))

    def _gone(self, job: _Job) -> None:
        # Without live processes tasks can still be on their way to `_on_exit`; with some, even KILL could not end them.
        if job.left:
            job.ending = False
            self._loop.call_later(1.0, self._give_up, job)
        else:
            self._finish(job)

    def _give_up(self, job: _Job) -> None:
        if job.state == "running":
            job.status = job.status or (128 + 9) << 8
            self._finish(job)

    def _finish(self, job: _Job) -> None:
        if job.state == "ended":
            return
        for timer in job.timers:
            timer.cancel()
        # Linux counts what a process was before its exec, which is this agent: less than that is not known.
        known = job.max_rss > resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        usage = {"cpu": job.cpu, "max_rss": job.max_rss if known else None}
        self._tell(job, "finish", {"status": job.status, "usage": usage})
        self._free_cores += job.cores
        self._free_gpus = sorted(self._free_gpus + job.gpus)
        self._clean(job)
        self._admit_soon()

    def _clean(self, job: _Job) -> None:
        job.state = "ended"
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
                self._ending.end(key, lambda key=key: one_gone(key))  # type: ignore[misc]  # mypy cannot type the default
            await gone.wait()

    def _census(self) -> Dict[str, List[process_tree.Process]]:
        return process_tree.members(process_tree.snapshot(), self._pids, self._epoch)

    # -- events and answers

    def _tell(self, job: _Job, name: str, context: Dict[str, Any]) -> None:
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


def _open_for_job(path: str, mode: str) -> IO[bytes]:
    """A file for a job's output; a FIFO without a reader is an error, not a wait for one."""

    def without_waiting(name: str, flags: int) -> int:
        fd = os.open(name, flags | os.O_NONBLOCK, 0o666)
        os.set_blocking(fd, True)
        return fd

    return open(path, mode, buffering=0, opener=without_waiting)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
