"""The engine over Flux with pilots: each job goes to a pilot where that can run it as Flux would, and else to Flux.

Tasks of pilots wait here, in one line. Of each task, what a later agent needs is on disk before the task is sent
(`ledger`). A new agent takes over the pilots that it finds, each with an *epoch* higher than its predecessor's
(`takeover`).

With ``auto``, Flux gets all jobs until many short ones have ended (`short_jobs`) and a pilot is there.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import time
from typing import Any, Awaitable, Callable, Dict, List, Optional

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
from ..flux.engine import FluxEngine
from ..wire import Resources
from .contact import Contact
from .crew import Crew
from .holder_jobs import HolderJobs
from .instance import Change, Instance, Stage
from .journals import Journals
from .ledger import Ledger
from .output import RemoteFollower
from .reports import Reports
from .shape import Shape
from .sharing import Sharing
from .short_jobs import ShortJobs
from .takeover import take_over
from .takes import why_flux
from .tasks import Tasks
from .wakeup import Wakeup

log = logging.getLogger("agent")

#: Seconds for pilots to end their tasks at the agent's end, and seconds for holders to be gone then.
_PILOTS_LIMIT = 15.0
_HOLDERS_LIMIT = 45.0
#: Seconds until a full disk is tried again.
_DISK_AGAIN = 1.0


class PilotEngine(Engine):
    """See `Engine`. ``in_pod``: nodes do not share the agent's directory. ``auto``: see the module.

    It owns the parts, decides with each event what is to be looked at, and passes on what Flux does itself. Of its own
    it knows only whether pilots are used at all.
    """

    def __init__(self, make_flux: Callable[[Callable[[Any], None]], FluxEngine], run: str, directory: str,
                 in_pod: bool, auto: bool) -> None:  # fmt: skip
        """``make_flux`` makes the engine over Flux; its argument is called with all events of the journal."""
        self._loop = asyncio.get_event_loop()
        self._flux = make_flux(lambda event: self._journals.on_job(event))
        self._spool = "" if in_pod else os.path.join(directory, "spool")
        suffix = "fxp-" + hashlib.sha256(run.encode()).hexdigest()[:8]
        self._instance = Instance(suffix)
        self._journals = Journals(self._flux.reactor, self._instance, self)
        self._holder_jobs = HolderJobs(self._flux.reactor, self._flux.sender, suffix, in_pod)
        self._contact = Contact(self._flux.reactor, suffix, self._spool)
        self._reports = Reports()
        self._ledger = Ledger(directory)
        self._tasks = Tasks(self._ledger, self._reports)
        self._crew = Crew(self._contact, self._instance, self._tasks, self)
        self._sharing = Sharing(self._instance)
        self._wakeup = Wakeup(self._schedule)
        #: Why Flux gets all jobs, "" where pilots are used.
        self._off = ""
        self._short_jobs = ShortJobs() if auto else None
        #: Whether pilots can be used here, before one gets a task: with its id from here, that could not go to Flux.
        self._trial: Optional[asyncio.Future[None]] = None
        self._stopping = False
        self._has_changed = asyncio.Event()

    @property
    def name(self) -> str:  # type: ignore[override]  # of the engine below
        return self._flux.name

    @property
    def version(self) -> str:  # type: ignore[override]
        return self._flux.version

    @property
    def uri(self) -> str:  # type: ignore[override]
        return self._flux.uri

    # -- start

    async def start(self, emit: Emit, recovered: Callable[[RecoveredJob], None]) -> str:
        self._reports.begin(emit if self._short_jobs is None else self._watching(emit, self._short_jobs), recovered)
        self._journals.watch()
        instance = await self._flux.start(self._reports.pass_on, recovered)
        if not self._flux.is_on_known_nodes:
            self.turn_off("the agent's program is not on all nodes of this instance")
        await self._journals.known
        self._contact.epoch = self._ledger.next_epoch()
        await take_over(self._ledger.read(), self._tasks, self._crew, self._instance)
        self._reports.flush()  # before the server looks which of them were acknowledged
        self._wakeup.soon()
        if self._short_jobs is None or self._crew.pilots:
            await self._tried()
        return instance

    def _watching(self, emit: Emit, short_jobs: ShortJobs) -> Emit:
        def see(entries: List[Entry]) -> None:
            short_jobs.see(entries)
            if short_jobs.are_many and not self._stopping:
                self._tried()
            emit(entries)

        return see

    def _tried(self) -> asyncio.Future[None]:
        """Done when it is known whether pilots can be used here."""
        if self._trial is None:
            self._trial = asyncio.ensure_future(self._try_one())
        return self._trial

    async def _try_one(self) -> None:
        """Start the pilot of this node, before a task is taken: where that cannot be done, Flux runs them all."""
        if self._off or 0 in self._crew.pilots:
            return
        await self._crew.start(0)
        if not self._crew.pilots:
            self.turn_off("none could be started (see above)")

    def turn_off(self, reason: str) -> None:
        """Send all jobs to Flux from now on. Those that wait here already have ids from here, and cannot go there."""
        if self._off:
            return
        self._off = reason
        log.warning("no pilots: %s", reason)
        self._tasks.end_waiting("alloc", "run.pilot: %s" % reason)

    # -- submitting

    def submit(self, submissions: List[Submission]) -> List[Awaitable[str]]:
        is_for_flux = [self._why_flux(submission) is not None for submission in submissions]
        taken = iter(self._take([one for one, other in zip(submissions, is_for_flux) if not other]))
        for_flux = [one for one, it_is in zip(submissions, is_for_flux) if it_is]
        others = iter(self._flux.submit(for_flux) if for_flux else [])
        return [next(others if it_is else taken) for it_is in is_for_flux]

    def _why_flux(self, submission: Submission) -> Optional[str]:
        if self._off or self._stopping:
            return self._off or "the agent is ending"
        if self._trial is None or not self._trial.done():
            return "no pilot is there yet"
        if self._short_jobs is not None and not self._short_jobs.are_many:
            return "few of the last jobs were short"
        instance = self._instance
        return why_flux(submission.jobspec, submission.urgency, instance.kinds, instance.gives_gpus)

    def _take(self, submissions: List[Submission]) -> List[Awaitable[str]]:
        answers: List[asyncio.Future[str]] = [self._loop.create_future() for _ in submissions]
        if not submissions:
            return []
        try:
            ids = self._tasks.take(self._contact.epoch, submissions)
        except OSError as err:
            for answer in answers:
                answer.set_exception(EngineError("the task cannot be kept on disk: %s" % err.strerror))
        else:
            for answer, task_id in zip(answers, ids):
                answer.set_result(task_id)
            self._wakeup.soon()
        return list(answers)

    # -- what is done when something has changed

    def changed(self) -> None:
        """See `JournalReader` and `CrewOwner`."""
        self._has_changed.set()
        self._wakeup.soon()

    def holder_changed(self, change: Change) -> None:
        """See `JournalReader`."""
        if change.stage is Stage.WAITS:
            self._sharing.answered(change.holder.shape)
            if self._stopping:
                self._holder_jobs.withdraw([change.job])
        if not self._journals.known.done():
            return  # `take_over` looks at those that are left
        rank = change.holder.rank
        if change.stage is Stage.BEGAN and rank not in self._crew.pilots and not self._stopping:
            self._crew.start(rank)
        elif change.stage is Stage.ENDED:
            self._crew.holder_ended(rank, change.job)

    def _schedule(self) -> None:
        """Send tasks, share cores with Flux, and tell pilots."""
        if self._stopping:
            return
        if not self._tasks.send(self._crew.usable()):
            self._wakeup.after(_DISK_AGAIN)
        step = self._sharing.next_step(time.time(), self._tasks.lines, self._crew.pilots)
        if step.withdraw:
            self._holder_jobs.withdraw(step.withdraw)
        for shape, count in step.ask.items():
            self._ask(shape, count)
        for (rank, shape), count in step.release.items():
            self._crew.pilots[rank].release(shape, count)
        if step.again is not None:
            self._wakeup.after(step.again)
        self._crew.flush()

    def _ask(self, shape: Shape, count: int) -> None:
        def refused(reason: str) -> None:
            self._sharing.answered(shape)
            self.turn_off("Flux does not take holders: %s" % reason)

        self._holder_jobs.ask(shape, count, refused)

    # -- Engine

    def cancel(self, job_id: str, note: str) -> Awaitable[None]:
        task = self._tasks.get(job_id)
        if task is None:
            return self._flux.cancel(job_id, note)
        pilot = self._crew.pilots.get(task.rank)
        if task.rank < 0:
            self._tasks.end(task, "cancel", note)
            self._write()
        elif pilot is not None:
            self._tasks.withdraw(task, pilot, note)
            self._wakeup.soon()
        answer: asyncio.Future[None] = self._loop.create_future()
        answer.set_result(None)
        return answer

    def _write(self) -> None:
        if not self._tasks.write():
            self._wakeup.after(_DISK_AGAIN)

    def kill(self, job_id: str, signum: int) -> Awaitable[None]:
        task = self._tasks.get(job_id)
        return self._flux.kill(job_id, signum) if task is None else self._crew.kill(task, signum)

    async def resources(self) -> Resources:
        return await self._flux.resources()

    async def start_helper(self, name: str, command: List[str], env: Dict[str, str]) -> None:
        await self._flux.start_helper(name, command, env)

    async def drain(self, ranks: str, reason: str, undo: bool) -> None:
        # Pilots hear of it by Flux's own event, before which no holder can come back.
        await self._flux.drain(ranks, reason, undo)

    def follow(self, position: OutputPosition, sink: OutputSink, progress: Progress) -> Follower:
        task = self._tasks.get(position.job_id)
        if task is None:
            return self._flux.follow(position, sink, progress)
        if self._spool:
            suffix = "out" if position.stream == "stdout" else "err"
            path = os.path.join(self._spool, "%s.%s" % (task.id, suffix))
            return FileFollower(path, position.offset, sink, progress)
        return RemoteFollower(self._contact, task.rank, position, sink)

    def forget(self, job_id: str) -> None:
        task = self._tasks.get(job_id)
        if task is None:
            self._flux.forget(job_id)
            return
        self._tasks.forget(task)
        pilot = self._crew.pilots.get(task.rank)
        if pilot is not None:
            pilot.forget(task)
            self._wakeup.soon()

    # -- the end

    async def stop(self, reason: EndReason) -> bool:
        self._stopping = True
        self._crew.start_no_more()
        self._wakeup.cancel()
        gone = True
        if reason is not EndReason.ENGINE_LOST and self._journals.known.done():
            self._tasks.end_waiting(reason.exception, "the instance is shutting down")
            held = self._crew.holders()
            # Those that their pilot has not heard of yet would wait for it.
            self._holder_jobs.withdraw([job for job in self._instance.holders if job not in held])
            self._crew.end(reason)
            if not await self._until(lambda: not self._crew.pilots, _PILOTS_LIMIT):
                self._crew.end_by_force()
            gone = await self._until(self._all_gone, _HOLDERS_LIMIT)
        self._write()
        self._ledger.close()
        self._reports.flush()
        ended = await self._flux.stop(reason)
        self._reports.flush()
        return ended and gone

    def _all_gone(self) -> bool:
        return not (self._crew.pilots or self._instance.holders or self._sharing.is_asking)

    async def _until(self, condition: Callable[[], bool], limit: float) -> bool:
        """Wait ``limit`` seconds at most for what changes with pilots and holders; whether it came so far."""
        deadline = self._loop.time() + limit
        while not condition():
            left = deadline - self._loop.time()
            if left <= 0 or not self._flux.reactor.is_alive:
                return False
            self._has_changed.clear()
            try:
                await asyncio.wait_for(self._has_changed.wait(), left)
            except asyncio.TimeoutError:
                return False
        return True
