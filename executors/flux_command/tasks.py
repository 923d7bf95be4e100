"""The tasks of a run: submitted to the session, watched by its events, and given their result when they have ended.

One `asyncio` loop owns all of this; the session's callbacks only pass on to it, and what touches files of tasks runs on
a few threads. Nothing here is per task but a small record: no thread, process, connection or poll.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

from executors import ExecutorsError, JobHandle, JobRequest, JobResult, Outcome, Session
from executors.efficiency import UsageTable
from executors.flux_command import ending, leftovers, placing, records
from executors.flux_command.arguments import Submit
from executors.flux_command.ids import task_id
from executors.flux_command.memory import Group, Groups, problem_of

log = logging.getLogger(__name__)

#: Seconds that Flux's own limit comes after ours: it ends a job by ALRM, at which a wrapper writes 0.
BACKSTOP = 60.0
#: Seconds in which a result file that a wrapper elsewhere has written becomes visible here.
LATENCY = 10.0
#: Seconds in which Nextflow submits a task again whose id it did not get.
UNHEARD = 60.0
#: Seconds from TERM to KILL for tasks whose Nextflow has ended.
GRACE = 2.0
_LOOKS = 20
#: What is done with the memory that tasks ask for.
MEMORY = ("enforce", "cores", "ignore")

#: Told once: the exit code and what is printed. Whether there is anybody yet to hear it.
Reply = Callable[[int, str], bool]


@dataclass(slots=True, eq=False)
class Task:
    """One job, from its submission to its result."""

    name: str
    directory: bytes
    owner: int
    asked: Submit
    cores: int
    reply: Reply | None
    handle: JobHandle | None = None
    id: str = ""
    #: It has run: from then on it waits no more, whatever becomes of it.
    begun: bool = False
    #: Why we have ended it (`executors.flux_command.ending`), and what is said of that.
    why: str | None = None
    #: Its Nextflow has ended.
    abandoned: bool = False
    timer: asyncio.TimerHandle | None = None
    #: Holds it to its memory.
    group: Group | None = None

    @property
    def state(self) -> str:
        """As Nextflow understands it: S waits, R runs, or its result is being written."""
        assert self.handle is not None  # set with the submission
        self.begun = self.begun or self.handle.state not in ("NEW", "DEPEND", "PRIORITY", "SCHED")
        return "R" if self.begun else "S"


class Tasks:
    """All methods are called on the loop."""

    def __init__(
        self,
        session: Session,
        table: records.Table,
        efficiency: UsageTable,
        pool: Executor,
        environment: Mapping[str, str | None],
        note: Callable[[str], None],
        memory: str,
        groups_file: Path,
    ) -> None:
        """``environment``: what tasks have other than they inherit. ``note``: takes a line for the run's log.
        ``memory``: one of `MEMORY`. ``groups_file``: is told where control groups are, for whoever has to tidy up.
        """
        self._session = session
        self._table = table
        self._efficiency = efficiency
        self._pool = pool
        self._environment = environment
        self._note = note
        self._memory = memory
        self._groups_file = groups_file
        self._groups: Groups | None = None
        self._count = 0
        self._loop = asyncio.get_running_loop()
        self._active: dict[str, Task] = {}
        self._submitting: set[Task] = set()
        self._by_job: dict[str, Task] = {}
        #: Starts that were heard of before the answer to the submission.
        self._started: set[str] = set()
        #: Ids of ended tasks by the process that has submitted them.
        self._ended: dict[int, list[str]] = {}
        #: Waited for at the end: set when there is no active task.
        self._idle: asyncio.Event | None = None
        #: Jobs whose id nobody has got, since who asked was gone: they are not submitted twice.
        self._unheard: dict[bytes, Task] = {}
        self._nodes: list[placing.Node] = []
        self._alone = False
        self._places: set[bytes] = set()

    async def start(self, on_lost: Callable[[], None], on_idle: Callable[[], None]) -> None:
        """``on_lost`` is called when the instance is gone, ``on_idle`` each time that the last task has ended. Raises
        ExecutorsError."""
        self._on_idle = on_idle
        await self._look_at_nodes()
        if self._memory == "enforce" and self._alone:
            self._groups = Groups()
            if self._groups.reason:
                self._note(f"memory of tasks is scheduled, but not enforced: {self._groups.reason}")
            else:
                self._groups_file.write_text(self._groups.directory)
        self._following = self._loop.run_in_executor(None, self._follow)
        self._following.add_done_callback(lambda _: on_lost() if self._session.lost is not None else None)

    # -- what the command asks for

    async def submit(self, asked: Submit, directory: bytes, owner: int, reply: Reply) -> None:
        """``reply`` gets the task's id, or the reason why there is none. ``directory`` is the task's.

        Asked for twice in one directory, since the first answer came too late, it is one task.
        """
        earlier = self._unheard.pop(directory, None)
        if earlier is not None:
            reply(0, earlier.id + "\n")
            return
        waiting = next((task for task in self._submitting if task.directory == directory), None)
        if waiting is not None:
            waiting.reply = reply
            return
        try:
            cores = await self._cores(asked)
            if self._session.remote:
                await self._check_place(directory)
        except (placing.NeverFits, ExecutorsError) as err:
            reply(1, f"flux: {asked.name}: {err}\n")
            return
        if self._session.lost is not None:
            reply(1, f"flux: nothing can be submitted any more: {self._session.lost}\n")
            return
        for text in asked.notes:
            self._note(f"{asked.name}: {text}")
        task = Task(asked.name, directory, owner, asked, cores, reply)
        if self._groups is not None and asked.memory is not None:
            self._count += 1
            task.group = self._groups.make(self._count, asked.memory)
        try:
            [task.handle] = self._session.submit([self._request(task)])
        except ExecutorsError as err:
            reply(1, f"flux: nothing can be submitted any more: {err}\n")
            return
        self._submitting.add(task)
        task.handle.add_submit_callback(lambda handle: self._later(self._taken, task, handle.id))
        task.handle.add_done_callback(lambda handle: self._later(self._done, task, handle.result()))

    def states(self) -> Iterable[str]:
        """``ID STATE`` of every task, however old."""
        for ids in self._ended.values():
            for one in ids:
                yield f"{one} C"
        for one, task in self._active.items():
            yield f"{one} {task.state}"

    def cancel(self, ids: Iterable[str], why: str = "cancelled by Nextflow") -> None:
        """Does not wait. Those that have ended, or are not known, are no error."""
        self._cancel([self._active[one] for one in ids if one in self._active], why)

    def owner_ended(self, owner: int, *, keep: bool = False) -> None:
        """Nobody asks for its tasks any more; with ``keep`` they live on all the same."""
        if not keep:
            self._end([task for task in (*self._active.values(), *self._submitting) if task.owner == owner])
        self._ended.pop(owner, None)

    def end_all(self) -> None:
        """Nobody asks for any task any more."""
        self._end([*self._active.values(), *self._submitting])

    async def settled(self, limit: float) -> bool:
        """Wait until every task has its result, ``limit`` seconds at most; whether they have."""
        if self.busy:
            self._idle = asyncio.Event()
            try:
                await asyncio.wait_for(self._idle.wait(), limit)
            except TimeoutError:
                return False
        return True

    @property
    def busy(self) -> bool:
        return bool(self._active or self._submitting)

    def _now_idle(self) -> None:
        if not self.busy:
            self._on_idle()
            if self._idle is not None:
                self._idle.set()

    # -- on the way in

    async def _cores(self, asked: Submit) -> int:
        memory = None if self._memory == "ignore" else asked.memory
        try:
            return placing.cores_for(asked.cores, asked.gpus, memory, self._nodes)
        except placing.NeverFits:
            await self._look_at_nodes()  # a MiniCluster grows
            return placing.cores_for(asked.cores, asked.gpus, memory, self._nodes)

    async def _look_at_nodes(self) -> None:
        resources = await self._loop.run_in_executor(self._pool, self._session.resources)
        self._nodes = placing.nodes_of(resources)
        hosts = {node["host"] for node in resources["nodes"]}
        self._alone = not self._session.remote and hosts == {os.uname().nodename}

    async def _check_place(self, directory: bytes) -> None:
        """Once for each work directory: jobs must see it. Raises NeverFits, ExecutorsError."""
        root = os.path.dirname(os.path.dirname(directory))
        if root in self._places:
            return
        problem = await self._loop.run_in_executor(self._pool, shared_problem, self._session, os.fsdecode(directory))
        if problem:
            raise placing.NeverFits(problem)
        self._places.add(root)

    def _request(self, task: Task) -> JobRequest:
        asked = task.asked
        directory = os.fsdecode(task.directory)
        log_path = os.path.join(directory, records.LOG) if asked.logged else None
        attributes = dict(asked.attributes)
        if log_path is not None:
            attributes["system.shell.options.output.mode"] = "append"
        attributes.update({f"system.shell.options.{name}": value for name, value in asked.shell_options})
        return JobRequest(
            argv=asked.argv if task.group is None else task.group.command(asked.argv),
            name=asked.name,
            cwd=directory,
            env={**self._environment, **dict(asked.env)},
            cores_per_task=task.cores,
            gpus_per_task=asked.gpus or None,
            duration=None if asked.limit is None else asked.limit + BACKSTOP,
            queue=asked.queue,
            bank=asked.bank,
            urgency=asked.urgency,
            stdout=log_path,
            stderr=log_path,
            attributes=attributes,
            measure=True,
        )

    def _later(self, function: Callable[..., None], *arguments: object) -> None:
        """From a thread of the session's."""
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            pass  # the loop has been closed: the process ends

    def _follow(self) -> None:
        """On a thread of its own, one for all jobs: limits count from the start of a job."""
        while True:
            try:
                for event in self._session.events():
                    if event.name == "start":
                        self._later(self._begun, event.id)
            except ExecutorsError:
                continue  # more events came at once than a session keeps; those of now tell the rest
            return

    # -- on the loop, from the session

    def _taken(self, task: Task, job_id: str) -> None:
        self._submitting.discard(task)
        task.id = task_id(job_id)
        self._active[task.id] = task
        self._by_job[job_id] = task
        try:
            self._table.add(task.id, task.directory)
        except OSError as err:
            self._note(f"the table of tasks cannot be written to: {err}")
        self._answer(task, 0, task.id + "\n")
        if job_id in self._started:
            self._begun(job_id)
        if not self._submitting:
            self._started.clear()
        if task.why is not None:
            self._end([task])

    def _begun(self, job_id: str) -> None:
        task = self._by_job.get(job_id)
        if task is None:
            if self._submitting:
                self._started.add(job_id)
            return
        task.begun = True
        if task.asked.limit is not None and task.timer is None:
            task.timer = self._loop.call_later(task.asked.limit, self._over, task)

    def _over(self, task: Task) -> None:
        if task.id in self._active and task.why is None:
            task.why = ending.LIMIT
            text = f"job {task.id} ended: time limit of {task.asked.limit:g} s reached"
            # Before the wrapper has written its result, at which Nextflow reads this.
            self._pool.submit(_say, task.directory, text).add_done_callback(
                lambda _: self._later(self._tell_cancel, [task], f"time limit of {task.asked.limit:g} s reached")
            )

    def _end(self, tasks: list[Task]) -> None:
        """Sooner than Flux does, which waits for 5 s after TERM: who would have used the results is gone."""
        for task in tasks:
            task.abandoned = True
        if tasks:
            self._cancel(tasks, "Nextflow has ended")
            self._loop.call_later(GRACE, self._kill, tasks)

    def _kill(self, tasks: list[Task]) -> None:
        ids = [task.handle.id for task in tasks if task.handle is not None and task.handle.id is not None]
        if ids and self._session.lost is None:
            self._pool.submit(_kill_jobs, self._session, ids)

    def _cancel(self, tasks: list[Task], why: str) -> None:
        for task in tasks:
            task.why = task.why or ending.CANCELLED
        self._tell_cancel(tasks, why)

    def _tell_cancel(self, tasks: list[Task], note: str) -> None:
        handles = [task.handle for task in tasks if task.handle is not None]
        if handles:
            try:
                self._session.cancel(handles, note)
            except ExecutorsError as err:  # the instance is gone, and the jobs with it
                self._note(f"cancelling: {err}")

    def _done(self, task: Task, result: JobResult) -> None:
        if task.timer is not None:
            task.timer.cancel()
        if not task.id:
            self._submitting.discard(task)
            self._release(task)
            self._answer(task, 1, f"flux: {task.name} {result.describe()}\n")
            self._now_idle()
            return
        if task.handle is not None and task.handle.id is not None:
            self._by_job.pop(task.handle.id, None)
        settle = self._loop.run_in_executor(self._pool, self._settle, task, result)
        settle.add_done_callback(lambda future: self._settled(task, future))

    def _settled(self, task: Task, future: asyncio.Future[None]) -> None:
        error = future.exception()
        if error is not None:
            self._note(f"{task.name}: its result in {os.fsdecode(task.directory)} cannot be written: {error}")
        self._active.pop(task.id, None)
        self._release(task)
        self._ended.setdefault(task.owner, []).append(task.id)
        try:
            self._table.ended(task.id)
        except OSError as err:
            self._note(f"the table of tasks cannot be written to: {err}")
        task.handle = None
        self._now_idle()

    def _release(self, task: Task) -> None:
        if self._groups is not None and task.group is not None:
            self._groups.release(task.group)

    def close(self) -> None:
        """Nothing is submitted any more."""
        if self._groups is not None:
            self._groups.close()

    def _answer(self, task: Task, code: int, text: str) -> None:
        reply, task.reply = task.reply, None
        if reply is not None and not reply(code, text) and code == 0:
            self._unheard[task.directory] = task
            self._loop.call_later(UNHEARD, self._not_asked_for, task)

    def _not_asked_for(self, task: Task) -> None:
        """Nextflow has not submitted it again: it does not know of it, and nobody would ever cancel it."""
        if self._unheard.get(task.directory) is task:
            del self._unheard[task.directory]
            if task.id in self._active:
                self._cancel([task], "Nextflow has never got its id")

    # -- on a thread of the pool

    def _settle(self, task: Task, result: JobResult) -> None:
        """Give a task its result. Raises OSError."""
        why = reason_of(task.why, result)
        if why is not None and self._alone:
            leftovers.end(self._session.run_name, task.id, GRACE if task.abandoned else leftovers.GRACE)
        could_not_run = result.outcome is Outcome.FAILED and result.exception is not None
        started = (result.times.start is not None or result.returncode is not None) and not could_not_run
        content = records.read_result(task.directory, refresh=not self._alone)
        if ending.recorded(content) is None and result.returncode is not None and not self._alone:
            content = _wait_for_result(task.directory)
        status = ending.to_write(content, result.returncode, started, why)
        text = sentence(task.id, result, task.why)
        kills = task.group.kills() if task.group is not None and not result.ok else 0
        if kills and task.asked.memory is not None:
            text = f"job {task.id} ran {problem_of(kills, task.asked.memory)}"
        if text and (status is not None or why is not None or kills):
            _say(task.directory, text)
        if status is not None:
            records.write_result(task.directory, status)
        memory = None if task.asked.memory is None else placing.megabytes(task.asked.memory)
        own = {"task": task.name.removeprefix("nf-"), "directory": os.fsdecode(task.directory)}
        self._efficiency.add(own, task.id, task.cores, memory, result)


def reason_of(ours: str | None, result: JobResult) -> str | None:
    """Why a job was ended, by us or by others; None where it ended by itself, or was killed."""
    if ours is not None:
        return ours
    match result.outcome:
        case Outcome.TIMEOUT:
            return ending.LIMIT
        case Outcome.CANCELLED:
            return ending.CANCELLED
        case Outcome.LOST:
            return ending.LOST
        case Outcome.UNKNOWN if result.returncode is None and result.times.start is not None:
            return ending.LOST
    return None


def sentence(task: str, result: JobResult, ours: str | None) -> str:
    """For the task's log: how its job ended; "" where its own wrapper says enough, or it was said before."""
    if ours is not None or result.outcome is Outcome.COMPLETED:
        return ""
    killed = ", as where memory runs out" if result.signal == 9 else ""
    return f"job {task} {result.describe()}{killed}"


def shared_problem(session: Session, directory: str) -> str | None:
    """Why jobs elsewhere cannot work in a directory of this machine; None where they can. Raises ExecutorsError."""
    if session.path_kinds([directory]) != ["directory"]:
        return (
            f"the work directory {directory} is not in the pods; mount the volume that holds it at the same path "
            "(minicluster.containers[0].volumes), or name one that is there: -w DIR"
        )
    for problem in session.unwritable([directory]):
        owner = os.stat(directory)
        return (
            f"the work directory {problem}; run the pods as its owner (minicluster.pod.securityContext: "
            f"{{runAsUser: {owner.st_uid}, runAsGroup: {owner.st_gid}}}), or let that user write there"
        )
    return None


def _wait_for_result(directory: bytes) -> bytes | None:
    """A wrapper on another node has exited, so it has written; a network file system shows that later."""
    content = None
    for _ in range(_LOOKS):
        time.sleep(LATENCY / _LOOKS)  # nothing tells of it; on a thread of its own
        content = records.read_result(directory, refresh=True)
        if ending.recorded(content) is not None:
            break
    return content


def _kill_jobs(session: Session, ids: list[str]) -> None:
    try:
        session.request("kill", ids=ids, signal=signal.SIGKILL)
    except ExecutorsError as err:  # Flux does it a little later
        log.warning("jobs cannot be killed: %s", err)


def _say(directory: bytes, text: str) -> None:
    try:
        records.add_to_log(directory, text)
    except OSError as err:
        log.warning("%s: %s", os.fsdecode(directory), err)
