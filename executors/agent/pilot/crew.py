"""The pilots of all nodes: they are started, taken over, listened to, told what to do, and replaced if they go."""

from __future__ import annotations

import asyncio
import functools
import logging
from typing import Any, Awaitable, Callable, Dict, Iterable, List, Mapping, Optional, Protocol, Set

from ..engine import EndReason, EngineError
from .instance import Instance
from .messages import Answer, Told
from .remote_pilot import RemotePilot
from .task import Task
from .tasks import Tasks

log = logging.getLogger("agent")

#: Starts of pilots in a row that fail, until it is given up.
_STARTS = 3


class WayToPilots(Protocol):
    """What is called with an answer, or with the reason why there is none, is called on the loop."""

    def start(self, rank: int, failed: Callable[[str], None]) -> None:
        """Start the pilot of a node; only a failure is told of."""

    def attach(self, rank: int, is_starting: bool, told: Callable[[Told], None], lost: Callable[[str], None]) -> None:
        """Listen to the pilot of a node, from its inventory on. One that is starting is waited for."""

    def call(
        self, rank: int, operations: List[Any], answered: Callable[[Answer], None], lost: Callable[[str], None]
    ) -> None:
        """Have a pilot do operations, see `messages`."""

    def end_by_force(self, rank: int, pid: int) -> None:
        """Kill the process of a pilot; that it is gone is told as always."""

    def number_of(self, job_id: str) -> Optional[int]:
        """The number of a job id of Flux in any of its forms; None where it is none."""


class CrewOwner(Protocol):
    def changed(self) -> None:
        """A pilot has said something, or is gone: there may be something to do."""

    def turn_off(self, reason: str) -> None:
        """No pilot can be started."""


class Crew:
    """What pilots say of tasks goes to ``tasks``; until `open` it belongs to their inventories."""

    def __init__(self, way: WayToPilots, instance: Instance, tasks: Tasks, owner: CrewOwner) -> None:
        self._loop = asyncio.get_event_loop()
        self._way = way
        self._instance = instance
        self._tasks = tasks
        self._owner = owner
        self._pilots: Dict[int, RemotePilot] = {}
        self._is_open = False
        self._is_ending = False
        #: Starts that have failed since one did not.
        self._failures = 0

    # -- who is there

    @property
    def pilots(self) -> Mapping[int, RemotePilot]:
        """By the ranks of their nodes, those that are starting too."""
        return self._pilots

    def usable(self) -> List[RemotePilot]:
        """Those that can be sent tasks."""
        return [pilot for pilot in self._pilots.values() if pilot.is_ready and self._instance.is_usable(pilot.rank)]

    # -- they come

    async def attach(self, ranks: Iterable[int]) -> None:
        """Take over the pilots that a former agent has left on these nodes."""
        answers = [self._attach(self._added(rank), is_starting=False) for rank in ranks]
        if answers:
            await asyncio.wait(answers)

    def open(self) -> None:
        """The inventories have been taken over: from now on what pilots say of tasks is news."""
        self._is_open = True
        for pilot in self._pilots.values():
            pilot.inventory = {}

    def start(self, rank: int) -> Awaitable[None]:
        """Start the pilot of a node that has none. What is returned is done when that is ready, or could not start."""
        pilot = self._added(rank)
        answered = self._attach(pilot, is_starting=True)
        self._way.start(rank, lambda reason: self._could_not_start(pilot, reason, answered))
        return answered

    def _added(self, rank: int) -> RemotePilot:
        pilot = self._pilots[rank] = RemotePilot(rank)
        return pilot

    def _is_known(self, pilot: RemotePilot) -> bool:
        """It is not gone, nor another in its place."""
        return self._pilots.get(pilot.rank) is pilot

    def _attach(self, pilot: RemotePilot, is_starting: bool) -> asyncio.Future[None]:
        answered: asyncio.Future[None] = self._loop.create_future()

        def told(message: Told) -> None:
            if self._is_known(pilot):
                self._hear(pilot, message)
                if pilot.is_ready or not self._is_known(pilot):
                    _done(answered)

        def lost(reason: str) -> None:
            if pilot.is_ready:
                self._lost(pilot, reason)
            elif is_starting:
                self._could_not_start(pilot, reason, answered)
            elif self._is_known(pilot):
                del self._pilots[pilot.rank]
            _done(answered)

        self._way.attach(pilot.rank, is_starting, told, lost)
        return answered

    def _could_not_start(self, pilot: RemotePilot, reason: str, answered: asyncio.Future[None]) -> None:
        _done(answered)
        if not self._is_known(pilot) or pilot.is_ready:
            return  # it is known already, or there was one
        del self._pilots[pilot.rank]
        log.warning("no pilot on rank %d: %s", pilot.rank, reason)
        self._failures += 1
        self._owner.changed()
        if self._failures < _STARTS:
            self._start_where_held(pilot.rank)
        elif not any(one.is_ready for one in self._pilots.values()):
            self._owner.turn_off("none could be started, at last on rank %d: %s" % (pilot.rank, reason))

    # -- what they say

    def _hear(self, pilot: RemotePilot, told: Told) -> None:
        pilot.hear(told, self._way.number_of)
        if "held" in told or "complete" in told:
            for job in pilot.holders:
                self._instance.told_of(job)
        if "complete" in told:
            self._failures = 0
        events = told.get("events", [])
        if self._is_open:
            self._tasks.apply(pilot, events)
        else:
            pilot.remember(events)
        if "back" in told:
            self._tasks.given_back(pilot, told["back"])
        if "ended" in told or "error" in told:
            self._lost(pilot, told.get("error", "it has ended"))
        self._owner.changed()

    def _lost(self, pilot: RemotePilot, reason: str) -> None:
        if not self._is_known(pilot):
            return
        del self._pilots[pilot.rank]
        log.warning("the pilot on rank %d is gone: %s", pilot.rank, reason)
        self._tasks.lost_with(pilot, "the pilot on rank %d, which had it, is gone: %s" % (pilot.rank, reason))
        self._start_where_held(pilot.rank)
        self._owner.changed()

    def _start_where_held(self, rank: int) -> None:
        """A holder that waits for its pilot gets another one."""
        if self._instance.has_holder_on(rank) and self._instance.is_usable(rank) and not self._is_ending:
            self.start(rank)

    # -- what they are told

    def flush(self) -> None:
        """Tell pilots what they are to do."""
        for pilot in self._pilots.values():
            if pilot.has_operations and pilot.is_ready:
                self._call(pilot)

    def kill(self, task: Task, signum: int) -> Awaitable[None]:
        """Have the pilot of a task send a signal to it; the awaitable raises EngineError if it does not run."""
        answer: asyncio.Future[None] = self._loop.create_future()
        pilot = self._pilots.get(task.rank)
        if pilot is None or task.ended:
            answer.set_exception(EngineError("job %s is not running" % task.id, "not-possible"))
            return answer

        def answered(message: Answer) -> None:
            errors = message.get("errors", {})
            if answer.done():
                return
            if errors:
                answer.set_exception(EngineError(*next(iter(errors.values()))))
            else:
                answer.set_result(None)

        self.flush()  # so that errors in the answer are its own
        pilot.kill(task, signum)
        self._call(pilot, answered)
        return answer

    def _call(self, pilot: RemotePilot, answered: Optional[Callable[[Answer], None]] = None) -> None:
        def lost(reason: str) -> None:
            self._lost(pilot, reason)
            if answered is not None:
                answered({"errors": {"0": ["the pilot is gone: %s" % reason, "not-possible"]}})

        self._way.call(pilot.rank, pilot.take_operations(), answered or _warn_of_refusal, lost)

    def holder_ended(self, rank: int, job: int) -> None:
        """If the pilot there has not told that the core has left, its process may be gone: it is asked."""
        pilot = self._pilots.get(rank)
        if pilot is not None and pilot.is_ready and job in pilot.holders:
            self._call(pilot)

    # -- the end

    def start_no_more(self) -> None:
        """The agent is ending: a pilot that goes is not replaced."""
        self._is_ending = True

    def holders(self) -> Set[int]:
        """The jobs in Flux that hold the cores of pilots. Pilots let them go when they end."""
        return {job for pilot in self._pilots.values() for job in pilot.holders}

    def end(self, reason: EndReason) -> None:
        """Have all pilots end their tasks and then themselves."""
        for pilot in self._pilots.values():
            pilot.end(reason.value)
            self._call(pilot, functools.partial(self._hears_of_end, pilot))

    def end_by_force(self) -> None:
        """Kill those that have not ended: their holders see to their tasks, and end."""
        for pilot in self._pilots.values():
            log.warning("the pilot on rank %d does not end, and is killed", pilot.rank)
            if pilot.is_ready:
                self._way.end_by_force(pilot.rank, pilot.pid)

    def _hears_of_end(self, pilot: RemotePilot, answer: Answer) -> None:
        _warn_of_refusal(answer)
        if not pilot.is_ready:
            # It was starting, and may be gone before it can be listened to: nothing would tell of that.
            self._lost(pilot, "it has ended before it was used")


def _done(answered: asyncio.Future[None]) -> None:
    if not answered.done():
        answered.set_result(None)


def _warn_of_refusal(answer: Answer) -> None:
    if answer:
        log.warning("a pilot refuses: %s", answer)
