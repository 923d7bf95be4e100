"""How the cores and GPUs of an instance are shared between pilots and Flux's own jobs, at one moment. Pure.

What a task of a pilot runs on is a pilot's while a *holder* job in Flux holds it, of just the task's shape. Holders are
ordinary jobs, asked for with Flux's usual urgency, and so served in Flux's own order: first in, first out. The rule has
two halves.

* Tasks ask for a holder each, for no more than the nodes have (`limits`).
* A job that waits in Flux gets room (`room_for`): where it needs them, so many holders are released that it fits beside
  what others' jobs have. They go when their tasks have ended, and are asked for again *behind* that job. So neither
  side starves: each round serves the job that is first in Flux's line, and then holders, each of which runs at least
  one task (a pilot begins what it has been sent before it lets a holder go).

A holder that waits is such a job for the holders of all other shapes: shapes take turns where they do not fit beside
each other.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, Dict, FrozenSet, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from .shape import NOTHING, Shape

#: Waiting jobs that are looked at: those behind them wait for them.
_LOOKED_AT = 64


class Held(NamedTuple):
    """Holders of one shape on one node: those that are not about to go, and of these the ones without a task."""

    all: int
    idle: int


class NodeShare(NamedTuple):
    """A usable node: what it ``has``, what of it is ``free`` or soon will be, and what pilots hold, by shape."""

    has: Shape
    free: Shape
    held: Mapping[Shape, Held]


class Need(NamedTuple):
    """What a job that waits in Flux needs: ``times`` ``each``, on one node; no cores: whole nodes."""

    times: int
    each: Shape
    #: Each on a node of its own.
    apart: bool
    #: Where it may be, by its constraint; None: anywhere.
    ranks: Optional[FrozenSet[int]] = None


class Gives(Enum):
    """Which holders make room for a job."""

    NONE = "none"
    IDLE = "idle"
    ALL = "all"


class Claim(NamedTuple):
    """A job that waits in Flux. ``holder``: of which shape it is a holder of this run, None for others' jobs."""

    need: Need
    holder: Optional[Shape]
    gives: Gives


Release = Dict[Tuple[int, Shape], int]


def room_for(claims: Sequence[Claim], nodes: Mapping[int, NodeShare]) -> Release:
    """Holders to release, by rank and shape, so that jobs have room which wait in Flux, in its order."""
    rooms = {rank: _Room(node) for rank, node in nodes.items()}
    for claim in claims[:_LOOKED_AT]:
        if not _has_room(claim, rooms) and claim.gives is not Gives.NONE:
            break  # those behind it wait for it
    return {(rank, shape): count for rank, room in rooms.items() for shape, count in room.released.items()}


def _has_room(claim: Claim, rooms: Mapping[int, _Room]) -> bool:
    """Make room, if that can be."""
    found: List[Tuple[int, int, int]] = []
    left = claim.need.times
    for rank, room in rooms.items():
        if claim.need.ranks is not None and rank not in claim.need.ranks:
            continue
        each = claim.need.each if claim.need.each.cores else room.has
        could = room.could_have(claim)
        count = could.times(each) if each.cores else 0
        if count > 0:
            without = room.free.times(each)
            found.append((-min(without, claim.need.times), -could.cores, rank))
            left -= 1 if claim.need.apart else count
    if left > 0:
        return False
    left = claim.need.times
    # Where nothing has to go first, and then where the fewest others' jobs are in the way.
    for _, _, rank in sorted(found):
        room = rooms[rank]
        each = claim.need.each if claim.need.each.cores else room.has
        count = min(left, 1 if claim.need.apart else room.could_have(claim).times(each))
        room.take(claim, NOTHING.plus(each, count))
        left -= count
        if not left:
            break
    return True


class _Room:
    """One node, while room is made there."""

    def __init__(self, node: NodeShare) -> None:
        self.has = node.has
        self.free = node.free
        self.released: Dict[Shape, int] = {}
        self._held = node.held

    def could_have(self, claim: Claim) -> Shape:
        could = self.free
        for shape in self._held:
            could = could.plus(shape, self._giving(claim, shape))
        return could

    def take(self, claim: Claim, amount: Shape) -> None:
        """Release what has to go for it. The amount is in what could be had."""
        self.free = self.free.plus(amount, -1)
        # GPUs first, since cores come with them; then cores, first those that come without.
        shapes = sorted(self._held, key=lambda shape: (shape.gpus, shape.cores))
        for shape in shapes:
            if self.free.gpus < 0 and shape.gpus:
                self._let_go(claim, shape, -(self.free.gpus // shape.gpus))
        for shape in shapes:
            if self.free.cores < 0:
                self._let_go(claim, shape, -(self.free.cores // shape.cores))

    def _let_go(self, claim: Claim, shape: Shape, count: int) -> None:
        count = min(count, self._giving(claim, shape))
        if count:
            self.released[shape] = self.released.get(shape, 0) + count
            self.free = self.free.plus(shape, count)

    def _giving(self, claim: Claim, shape: Shape) -> int:
        """How many more holders of a shape may go for it."""
        if shape == claim.holder or claim.gives is Gives.NONE:
            return 0
        held = self._held[shape]
        return max(0, (held.idle if claim.gives is Gives.IDLE else held.all) - self.released.get(shape, 0))


class Demand(NamedTuple):
    """For the holders of one shape: so many were ``wanted`` lately; ``urgency``: see `Line.urgency`."""

    wanted: int
    urgency: int


def limits(demands: Mapping[Shape, Demand], nodes: Sequence[Shape], available: Sequence[Shape]) -> Dict[Shape, int]:
    """So many holders of each shape may be had or asked for at most.

    ``nodes``: what they have; ``available``: what of it others' jobs have not. More urgent tasks first, and among
    equals those that need most. Each shape gets one at least, on some node: others could keep it from running for ever.
    It gets no more that it would have to wait for: those would be in the way of jobs behind them, for which the holders
    that it has could make room.
    """
    found: Dict[Shape, int] = {}
    rooms = list(available)
    for shape, demand in sorted(demands.items(), key=lambda item: (-item[1].urgency, -item[0].gpus, -item[0].cores)):
        limit = 0
        for index, room in enumerate(rooms):
            count = min(demand.wanted - limit, room.times(shape))
            if count > 0:
                limit += count
                rooms[index] = room.plus(shape, -count)
        found[shape] = limit or int(any(node.holds(shape) for node in nodes))
    return found


def need_of(resources: Any) -> Need:
    """What the resources of a jobspec (RFC 14) need."""
    [top] = resources
    if top["type"] == "node":
        [slot] = top["with"]
        if top.get("exclusive"):
            return Need(_count(top), NOTHING, True)
        return Need(_count(top), NOTHING.plus(_slot(slot["with"]), _count(slot)), True)
    return Need(_count(top), _slot(top["with"]), False)


def _slot(vertices: List[Any]) -> Shape:
    def count_of(kind: str) -> int:
        return sum(_count(vertex) for vertex in vertices if vertex["type"] == kind)

    return Shape(count_of("core"), count_of("gpu"))


def _count(vertex: Any) -> int:
    count = vertex["count"]
    return int(count["min"]) if isinstance(count, dict) else int(count)
