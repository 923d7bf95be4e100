"""The tasks of a run: submitted to the session, watched by its events, and given their result when they have ended.

How a task becomes a request is `executors.flux_command.preparation`, how it is ended `executors.flux_command.stopping`.

One `asyncio` loop owns all of this; the session's callbacks only pass on to it, and what touches files of tasks runs on
a few threads. Nothing here is per task but a small record: no thread, process, connection or poll.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from concurrent.futures import Executor

from executors import ExecutorsError, JobResult, Session
from executors.efficiency import UsageTable
from executors.flux_command import placing, records, settling
from executors.flux_command.asked import Submit
from executors.flux_command.ids import base58, task_id
from executors.flux_command.preparation import Preparation
from executors.flux_command.stopping import Stopper
from executors.flux_command.task import Reply, Task

#: Seconds in which Nextflow submits a task again whose id it did not get.
UNHEARD = 60.0


class Tasks:
    """All methods are called on the loop."""

    def __init__(
        self,
        session: Session,
        preparation: Preparation,
        table: records.Table,
        efficiency: UsageTable,
        pool: Executor,
        note: Callable[[str], None],
    ) -> None:
        """``preparation`` is started and closed here. ``note`` takes a line for the run's log."""
        self._session = session
        self._table = table
        self._efficiency = efficiency
        self._pool = pool
        self._note = note
        self._preparation = preparation
        self._stopper = Stopper(session, pool, note)
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

    async def start(self, on_lost: Callable[[], None], on_idle: Callable[[], None]) -> None:
        """``on_lost`` is called when the instance is gone, ``on_idle`` each time that the last task has ended. Raises
        ExecutorsError."""
        self._on_idle = on_idle
        await self._preparation.start()
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
            cores = await self._preparation.cores(asked)
            await self._preparation.check_place(directory)
        except (placing.NeverFits, ExecutorsError) as err:
            self.refuse(asked, directory, owner, reply, f"{asked.name}: {err}")
            return
        if self._session.lost is not None:
            self.refuse(asked, directory, owner, reply, f"nothing can be submitted any more: {self._session.lost}")
            return
        for text in asked.notes:
            self._note(f"{asked.name}: {text}")
        task = Task(asked.name, directory, owner, asked, cores, reply)
        try:
            task.handle = self._session.submit_one(self._preparation.request(task))
        except ExecutorsError as err:
            self.refuse(asked, directory, owner, reply, f"nothing can be submitted any more: {err}")
            return
        self._submitting.add(task)
        task.handle.add_submit_callback(lambda handle: self._later(self._taken, task, handle.id))
        task.handle.add_done_callback(lambda handle: self._later(self._done, task, handle.result()))

    def refuse(self, asked: Submit, directory: bytes, owner: int, reply: Reply, why: str, code: int = 1) -> None:
        """``reply`` gets ``code`` and the reason. A Nextflow whose process ignores that never ends: such a task gets an
        id, and has failed."""
        if not asked.ignored:
            reply(code, f"flux: {why}\n")
            return
        made = "f" + base58(int.from_bytes(os.urandom(8), "big"))

        def written(future: asyncio.Future[None]) -> None:
            error = future.exception()
            if error is not None:
                reply(code, f"flux: {why} ({error})\n")
                return
            self._ended.setdefault(owner, []).append(made)
            reply(0, f"{made}\n")

        self._loop.run_in_executor(self._pool, settling.refuse, directory, why).add_done_callback(written)

    def states(self) -> Iterable[str]:
        """``ID STATE`` of every task, however old."""
        for ids in self._ended.values():
            for job_id in ids:
                yield f"{job_id} C"
        for one, task in self._active.items():
            yield f"{one} {task.state}"

    def knows(self, ids: Iterable[str]) -> bool:
        """Whether one of these is, or was, a task."""
        known = {*self._active, *(one for ended in self._ended.values() for one in ended)}
        return any(job_id in known for job_id in ids)

    def cancel(self, ids: Iterable[str], why: str = "cancelled by Nextflow") -> None:
        """Does not wait. Those that have ended, or are not known, are no error."""
        self._stopper.cancel([self._active[job_id] for job_id in ids if job_id in self._active], why)

    def owner_ended(self, owner: int, *, keep: bool = False) -> None:
        """Nobody asks for its tasks any more; with ``keep`` they live on all the same."""
        if not keep:
            self._stopper.end([task for task in (*self._active.values(), *self._submitting) if task.owner == owner])
        self._ended.pop(owner, None)

    def end_all(self) -> None:
        """Nobody asks for any task any more."""
        self._stopper.end([*self._active.values(), *self._submitting])

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

    # -- on the session's threads

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
        self._answer(task)
        if job_id in self._started:
            self._begun(job_id)
        if not self._submitting:
            self._started.clear()
        if task.why is not None:
            self._stopper.end([task])

    def _begun(self, job_id: str) -> None:
        task = self._by_job.get(job_id)
        if task is None:
            if self._submitting:
                self._started.add(job_id)
            return
        task.begun = True
        self._stopper.limit(task)

    def _done(self, task: Task, result: JobResult) -> None:
        if task.timer is not None:
            task.timer.cancel()
        if not task.id:
            self._submitting.discard(task)
            self._preparation.release(task)
            reply, task.reply = task.reply, None
            if reply is not None:
                self.refuse(task.asked, task.directory, task.owner, reply, f"{task.name} {result.describe()}")
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
        self._preparation.release(task)
        self._ended.setdefault(task.owner, []).append(task.id)
        try:
            self._table.ended(task.id)
        except OSError as err:
            self._note(f"the table of tasks cannot be written to: {err}")
        task.handle = None
        self._now_idle()

    def close(self) -> None:
        """Nothing is submitted any more."""
        self._preparation.close()

    def _answer(self, task: Task) -> None:
        reply, task.reply = task.reply, None
        if reply is not None and not reply(0, task.id + "\n"):
            self._unheard[task.directory] = task
            self._loop.call_later(UNHEARD, self._not_asked_for, task)

    def _not_asked_for(self, task: Task) -> None:
        """Nextflow has not submitted it again: it does not know of it, and nobody would ever cancel it."""
        if self._unheard.get(task.directory) is task:
            del self._unheard[task.directory]
            if task.id in self._active:
                self._stopper.cancel([task], "Nextflow has never got its id")

    # -- on a thread of the pool

    def _settle(self, task: Task, result: JobResult) -> None:
        """Raises OSError."""
        settling.settle(task, result, self._session.run_name, alone=self._preparation.alone)
        memory = None if task.asked.memory is None else placing.megabytes(task.asked.memory)
        own = {"task": task.name.removeprefix("nf-"), "directory": os.fsdecode(task.directory)}
        self._efficiency.add(own, task.id, task.cores, memory, result)
