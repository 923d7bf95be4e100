"""A new agent finds what the one before it has left: pilots, and tasks as they are on disk.

What a living pilot has not got was never begun, and waits again; what a pilot had that is gone is lost. What the former
agent had ended is told again as it was.
"""

from __future__ import annotations

from enum import Enum
from typing import Awaitable, Iterable, List, Mapping, Optional, Protocol

from .instance import Instance
from .remote_pilot import RemotePilot
from .task import Task
from .tasks import Tasks


class Found(Enum):
    """Of a task that a former agent has taken."""

    #: The pilot that it was sent to has it, or has had it.
    THERE = "there"
    #: It has not begun.
    WAITS = "waits"
    #: The former agent has ended it, by an exception.
    ENDED = "ended"
    LOST = "lost"


def found(task: Task, pilot: Optional[RemotePilot]) -> Found:
    """``task``: as it is on disk. ``pilot``: that of the node that it was sent to, with its inventory, if any."""
    has_its_pilot = pilot is not None and pilot.mark == task.mark
    if pilot is not None and has_its_pilot and task.id in pilot.inventory:
        return Found.THERE
    if task.exception is not None:
        return Found.ENDED
    if task.ended or (task.rank >= 0 and not has_its_pilot):
        return Found.LOST
    return Found.WAITS


class FormerPilots(Protocol):
    """The pilots that may be there."""

    @property
    def pilots(self) -> Mapping[int, RemotePilot]:
        """By the ranks of their nodes, those that are known now."""

    async def attach(self, ranks: Iterable[int]) -> None:
        """Make those of these nodes known, with their inventories."""

    def open(self) -> None:
        """The inventories have been taken over."""

    def start(self, rank: int) -> Awaitable[None]:
        """Start the pilot of a node that has none."""


async def take_over(former: List[Task], tasks: Tasks, crew: FormerPilots, instance: Instance) -> None:
    """``former``: the tasks on disk, none of which ``tasks`` knows yet."""
    ranks = {holder.rank for holder in instance.holders.values() if holder.rank >= 0}
    ranks |= {task.rank for task in former if task.rank >= 0}
    await crew.attach(ranks)
    for task in former:
        pilot = crew.pilots.get(task.rank)
        tasks.recover(task)
        what = found(task, pilot)
        if pilot is not None and what is Found.THERE:
            tasks.found_in(task, pilot, pilot.inventory[task.id])
        elif task.exception is not None and what is Found.ENDED:
            tasks.found_ended(task, *task.exception)
        elif what is Found.LOST:
            tasks.found_lost(task)
        else:
            tasks.found_waiting(task)
    crew.open()
    for rank in ranks.difference(crew.pilots):
        if instance.has_holder_on(rank):
            crew.start(rank)
