"""How the cores and GPUs of an instance are shared between pilots and Flux's own jobs. Pure.

A core is a pilot's while a *holder* job in Flux holds it. Holders are ordinary jobs, asked for with Flux's usual
urgency, and so served in Flux's own order: first in, first out. The rule has two halves.

* Tasks that wait ask for holders of their shape, as many as they need, never for more than the nodes in use have.
* A job that waits in Flux gets room: from the holders that pilots have, so many are released, where they lie as it
  needs them, that it fits. What was released is asked for again *behind* that job. So neither side starves: each round
  serves the job that is first in Flux's line, and then a holder, which runs at least one task before it is released.

A holder that waits is such a job for the holders of all other shapes. Tasks without GPUs ask for no core that tasks
with GPUs need, as long as one is left for them: else both would take turns where both could run.
"""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence

from .shape import CORE, Shape


class Held(NamedTuple):
    """Holders of one shape on one node."""

    #: Those that are not about to be released.
    all: int
    #: Of these, the ones that have run no task yet.
    fresh: int


class NodeShare(NamedTuple):
    """One node: what it has, what of it is ``held``, by shape. ``usable``: it is up, and not drained."""

    has: Shape
    held: Mapping[Shape, Held]
    usable: bool

    def held_of(self, shape: Shape) -> Held:
        return self.held.get(shape, Held(0, 0))


class Need(NamedTuple):
    """What a job that waits in Flux needs: ``times`` ``cores`` and ``gpus`` on one node; 0 cores: whole nodes."""

    times: int
    cores: int
    #: Each on a node of its own.
    apart: bool
    gpus: int = 0
    #: The rank that it has to be on, -1 for any.
    rank: int = -1


class Demand(NamedTuple):
    """For the holders of one shape."""

    #: Holders that all tasks of this shape need which wait or run.
    wanted: int
    #: Holders that wait in Flux.
    pending: int
    #: Of the jobs that wait in Flux and that these holders make room for, in Flux's order.
    needs: Sequence[Need]


class Decision(NamedTuple):
    """For the holders of one shape."""

    #: So many more are to be asked for.
    ask: int
    #: So many of those that wait in Flux are not needed.
    withdraw: int
    #: So many are to be released, by rank.
    release: Dict[int, int]


def decide(nodes: Mapping[int, NodeShare], demands: Mapping[Shape, Demand]) -> Dict[Shape, Decision]:
    """What is to be done for each shape."""
    release = _released(nodes, demands)
    limits = _limits([node.has for node in nodes.values() if node.usable], demands)
    decisions = {}
    for shape, demand in demands.items():
        # A holder on a node that is not usable is on its way out already.
        held = sum(node.held_of(shape).all - release[shape].get(rank, 0) for rank, node in nodes.items() if node.usable)
        missing = min(demand.wanted, limits[shape]) - held - demand.pending
        decisions[shape] = Decision(max(0, missing), min(demand.pending, max(0, -missing)), release[shape])
    return decisions


def _released(nodes: Mapping[int, NodeShare], demands: Mapping[Shape, Demand]) -> Dict[Shape, Dict[int, int]]:
    """Holders to release, by shape and rank."""
    room = {rank: node.has for rank, node in nodes.items() if node.usable}
    left = {shape: _left_by(demand.needs, room) for shape, demand in demands.items()}
    release: Dict[Shape, Dict[int, int]] = {shape: {} for shape in demands}
    for rank, node in nodes.items():
        if node.usable:
            counts = _released_of(node, {shape: left[shape][rank] for shape in demands})
        else:
            counts = {shape: node.held_of(shape).all for shape in demands}
        for shape, count in counts.items():
            if count:
                release[shape][rank] = count
    return release


def _released_of(node: NodeShare, allowed: Dict[Shape, Shape]) -> Dict[Shape, int]:
    """Holders of one node to release, by shape. ``allowed``: all that may be held there, as those of a shape see it."""
    held = Shape(
        sum(shape.cores * of_it.all for shape, of_it in node.held.items()),
        sum(shape.gpus * of_it.all for shape, of_it in node.held.items()),
    )
    release = dict.fromkeys(allowed, 0)

    def let_go(shape: Shape, surplus: int, each: int) -> None:
        nonlocal held
        of_it = node.held_of(shape)
        count = min(-(-surplus // each), of_it.all - of_it.fresh - release[shape])
        if count > 0:
            release[shape] += count
            held = Shape(held.cores - count * shape.cores, held.gpus - count * shape.gpus)

    # What is needed of GPUs first, since cores go with them. Then cores, first those of holders that have no GPU.
    shapes = sorted(allowed, key=lambda shape: (shape.gpus, shape.cores))
    for shape in shapes:
        if shape.gpus:
            let_go(shape, held.gpus - allowed[shape].gpus, shape.gpus)
    for shape in shapes:
        let_go(shape, held.cores - allowed[shape].cores, shape.cores)
    return release


def _limits(nodes: Sequence[Shape], demands: Mapping[Shape, Demand]) -> Dict[Shape, int]:
    """So many holders of each shape are asked for at most."""
    limits = {
        shape: sum(min(node.cores // shape.cores, node.gpus // shape.gpus) for node in nodes)
        for shape in demands
        if shape.gpus
    }
    with_gpus = sum(shape.cores * min(limit, demands[shape].wanted) for shape, limit in limits.items())
    limits[CORE] = max(sum(node.cores for node in nodes) - with_gpus, 1 if nodes else 0)
    return limits


def _left_by(needs: Sequence[Need], room: Dict[int, Shape]) -> Dict[int, Shape]:
    """What the jobs which wait in Flux leave of each node to pilots."""
    whole = dict(room)
    room = dict(room)
    for need in needs:
        after = _placed(need, room, whole)
        if after is None:
            break  # it and those behind it wait for the ones before
        room = after
    return room


def _placed(need: Need, room: Dict[int, Shape], whole: Dict[int, Shape]) -> Optional[Dict[int, Shape]]:
    room = dict(room)
    left = need.times
    # Where there is most room the fewest holders are in the way of a job.
    for rank in sorted(room, key=lambda rank: (-room[rank].cores, rank)):
        if need.rank not in (-1, rank):
            continue
        each = Shape(need.cores, need.gpus) if need.cores else whole[rank]
        while left and each.cores and room[rank].holds(each):
            room[rank] = Shape(room[rank].cores - each.cores, room[rank].gpus - each.gpus)
            left -= 1
            if need.apart:
                break
    return None if left else room


def need_of(resources: Any) -> Need:
    """What the resources of a jobspec (RFC 14) need."""
    [top] = resources
    if top["type"] == "node":
        [slot] = top["with"]
        nodes = _count(top)
        if top.get("exclusive"):
            return Need(nodes, 0, True)
        times = _count(slot)
        return Need(nodes, times * _sum(slot["with"], "core"), True, times * _sum(slot["with"], "gpu"))
    return Need(_count(top), _sum(top["with"], "core"), False, _sum(top["with"], "gpu"))


def _sum(vertices: List[Any], kind: str) -> int:
    return sum(_count(vertex) for vertex in vertices if vertex["type"] == kind)


def _count(vertex: Any) -> int:
    count = vertex["count"]
    return int(count["min"]) if isinstance(count, dict) else int(count)


#: Nodes on which cores are gathered at once for one task: whichever has them first runs it.
_GATHERED = 4


def gather(nodes: Mapping[int, NodeShare], cores: int, pending: Mapping[int, int]) -> Dict[int, int]:
    """Holders to ask for on named nodes, so that a task of several ``cores`` fits one. ``pending``: asked for so."""
    held = {rank: node.held_of(CORE).all for rank, node in nodes.items()}
    large = [rank for rank, node in nodes.items() if node.usable and node.has.cores >= cores]
    if any(held[rank] >= cores for rank in large):
        return {}
    large.sort(key=lambda rank: (-held[rank], rank))
    asked = {rank: cores - held[rank] - pending.get(rank, 0) for rank in large[:_GATHERED]}
    return {rank: count for rank, count in asked.items() if count > 0}
