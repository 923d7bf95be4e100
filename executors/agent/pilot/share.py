"""How the cores of an instance are shared between pilots and Flux's own jobs. Pure.

A core is a pilot's while a *holder* job in Flux holds it. Holders are ordinary jobs, asked for with Flux's usual
urgency, and so served in Flux's own order: first in, first out. The rule has two halves.

* Tasks that wait ask for holders, one for each core that they want, never for more than the nodes in use have.
* A job that waits in Flux gets room: from the cores that pilots hold, so many are released, where they lie as it needs
  them, that it fits. What was released is asked for again *behind* that job. So neither side starves: each round
  serves the job that is first in Flux's line, and then a holder, which runs at least one task before it is released.
"""

from __future__ import annotations

from typing import Any, Dict, List, NamedTuple, Optional, Sequence


class NodeShare(NamedTuple):
    """One node: ``cores`` that it has, those that a pilot ``held`` (and is not about to release), and of these the
    ``fresh`` ones, which have run no task yet. ``usable``: it is up, and not drained.
    """

    cores: int
    held: int
    fresh: int
    usable: bool


class Need(NamedTuple):
    """What a job that waits in Flux needs: ``times`` ``cores`` on one node; 0 cores: whole nodes."""

    times: int
    cores: int
    #: Each on a node of its own.
    apart: bool


class Decision(NamedTuple):
    """``ask``: more holders. ``withdraw``: holders that wait in Flux, and are not needed. ``release``: of each rank."""

    ask: int
    withdraw: int
    release: Dict[int, int]


def decide(nodes: Dict[int, NodeShare], wanted: int, pending: int, needs: Sequence[Need]) -> Decision:
    """``wanted``: cores of all tasks that wait or run; ``pending``: holders that wait in Flux; ``needs``: of Flux's
    waiting jobs, in its order.
    """
    allowed = _left_by(needs, {rank: node.cores for rank, node in nodes.items() if node.usable})
    release: Dict[int, int] = {}
    for rank, node in nodes.items():
        count = node.held - allowed.get(rank, 0)
        if node.usable:
            count = min(count, node.held - node.fresh)
        if count > 0:
            release[rank] = count
    # A holder on a node that is not usable is on its way out already.
    held = sum(node.held - release.get(rank, 0) for rank, node in nodes.items() if node.usable)
    limit = sum(node.cores for node in nodes.values() if node.usable)
    missing = min(wanted, limit) - held - pending
    return Decision(max(0, missing), min(pending, max(0, -missing)), release)


def _left_by(needs: Sequence[Need], room: Dict[int, int]) -> Dict[int, int]:
    """The cores of each node that the jobs which wait in Flux leave to pilots."""
    whole = dict(room)
    room = dict(room)
    for need in needs:
        after = _placed(need, room, whole)
        if after is None:
            break  # it and those behind it wait for the ones before
        room = after
    return room


def _placed(need: Need, room: Dict[int, int], whole: Dict[int, int]) -> Optional[Dict[int, int]]:
    room = dict(room)
    left = need.times
    # Where there is most room the fewest holders are in the way of a job.
    for rank in sorted(room, key=lambda rank: (-room[rank], rank)):
        cores = need.cores or whole[rank]
        while left and cores and room[rank] >= cores:
            room[rank] -= cores
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
        return Need(nodes, _count(slot) * _cores(slot["with"]), True)
    return Need(_count(top), _cores(top["with"]), False)


def _cores(vertices: List[Any]) -> int:
    return sum(_count(vertex) for vertex in vertices if vertex["type"] == "core")


def _count(vertex: Any) -> int:
    count = vertex["count"]
    return int(count["min"]) if isinstance(count, dict) else int(count)


#: Nodes on which cores are gathered at once for one task: whichever has them first runs it.
_GATHERED = 4


def gather(nodes: Dict[int, NodeShare], cores: int, pending: Dict[int, int]) -> Dict[int, int]:
    """Holders to ask for on named nodes, so that a task of several ``cores`` fits one. ``pending``: asked for so."""
    large = [rank for rank, node in nodes.items() if node.usable and node.cores >= cores]
    if any(nodes[rank].held >= cores for rank in large):
        return {}
    large.sort(key=lambda rank: (-nodes[rank].held, rank))
    asked = {rank: cores - nodes[rank].held - pending.get(rank, 0) for rank in large[:_GATHERED]}
    return {rank: count for rank, count in asked.items() if count > 0}
