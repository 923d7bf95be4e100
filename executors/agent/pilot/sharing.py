"""Which holders to ask Flux for, which to withdraw, and which pilots are to let go: `share` over time. Pure."""

from __future__ import annotations

from typing import Dict, List, Mapping, NamedTuple, Optional, Protocol, Set, Tuple

from . import share
from .instance import Instance, Waiting
from .line import Line, Place
from .shape import CORE, Shape

#: Seconds that a job has to wait before pilots make room for it: one that finds free cores waits for less.
PATIENCE = 0.05
#: Seconds that a holder has to wait before those of other shapes that have tasks make room for it: to take turns costs
#: a job of Flux each time, and all of them are this run's.
TURN = 1.0
#: Seconds for which holders without a task are kept, if nobody waits in Flux.
LINGER = 5.0


class Held(Place, Protocol):
    """The holders of one shape that a pilot has, as far as they are shared."""

    @property
    def fresh(self) -> int:
        """Those that have run no task yet."""


class Holding(Protocol):
    """A pilot, as far as its holders are shared."""

    @property
    def pools(self) -> Mapping[Shape, Held]:
        """Its holders, by shape."""


class Step(NamedTuple):
    """What is to be done now."""

    #: Holders that wait in Flux and are not needed: jobs.
    withdraw: List[int]
    #: Holders to ask for, by their shape and the rank that they are wanted on, -1 for any.
    ask: Dict[Tuple[Shape, int], int]
    #: Holders to let go, by rank and shape.
    release: Dict[Tuple[int, Shape], int]
    #: Seconds after which to look again, though nothing happens; None: no need.
    again: Optional[float]


class Sharing:
    """``instance``: as Flux tells of it."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        #: Holders that were asked for and that Flux has not told of yet, by shape and the rank that they are wanted on.
        self._asked: Dict[Tuple[Shape, int], int] = {}
        #: Since when a shape has no task.
        self._idle_since: Dict[Shape, float] = {}

    @property
    def is_asking(self) -> bool:
        """Flux has not told of all holders that it was asked for."""
        return any(self._asked.values())

    def answered(self, shape: Shape, named: int) -> None:
        """A holder that was asked for is known, or was refused. ``named``: the rank that it was wanted on."""
        if self._asked.get((shape, named), 0) > 0:
            self._asked[shape, named] -= 1

    def next_step(self, now: float, lines: Mapping[Shape, Line], pilots: Mapping[int, Holding]) -> Step:
        """``now`` by the clock of Flux's events. What it says to ask for counts as asked for from then on."""
        waiting = self._instance.waiting()
        nodes = self._nodes(lines, pilots)
        moments: List[float] = []
        idle: Set[Shape] = set()
        pending: Dict[Shape, List[int]] = {}
        demands: Dict[Shape, share.Demand] = {}
        for shape in self._shapes(lines, pilots):
            wanted = lines[shape].holders if shape in lines else 0
            wanted += sum(pilot.pools[shape].load for pilot in pilots.values() if shape in pilot.pools)
            needs = _needs_of_others(shape, bool(wanted), waiting, now, moments)
            if wanted:
                self._idle_since.pop(shape, None)
            else:
                ends = self._idle_since.setdefault(shape, now) + LINGER
                if ends > now and not needs:
                    moments.append(ends)
                    wanted = sum(node.held_of(shape).all for node in nodes.values())
                else:
                    idle.add(shape)
            pending[shape] = self._instance.pending(shape)
            coming = self._asked.get((shape, -1), 0) + sum(self._instance.pending_on(shape).values())
            demands[shape] = share.Demand(wanted, len(pending[shape]) + coming, needs)
        decisions = share.decide(nodes, demands)
        withdraw = [job for shape, one in decisions.items() for job in pending[shape][: one.withdraw]]
        ask = {(shape, -1): one.ask for shape, one in decisions.items() if one.ask}
        ask.update(self._gather(nodes, lines.get(CORE)))
        for where, count in ask.items():
            self._asked[where] = self._asked.get(where, 0) + count
        release = {
            (rank, shape): count
            for shape, one in decisions.items() if shape not in idle
            for rank, count in one.release.items()
        }  # fmt: skip
        for rank, pilot in pilots.items():
            release.update({(rank, shape): pool.held for shape, pool in pilot.pools.items() if shape in idle})
        return Step(withdraw, ask, release, min(moments) - now if moments else None)

    def _shapes(self, lines: Mapping[Shape, Line], pilots: Mapping[int, Holding]) -> List[Shape]:
        """Those that there are holders or tasks of."""
        shapes = {CORE, *lines}
        shapes.update(holder.shape for holder in self._instance.holders.values())
        shapes.update(shape for pilot in pilots.values() for shape in pilot.pools)
        return sorted(shapes)

    def _gather(self, nodes: Mapping[int, share.NodeShare], line: Optional[Line]) -> Dict[Tuple[Shape, int], int]:
        """Holders to ask for on named nodes, for the first task in the line if that needs several."""
        first = None if line is None else line.first
        if first is None or first.holders == 1:
            return {}
        pending = self._instance.pending_on(CORE)
        for (shape, rank), asked in self._asked.items():
            if shape == CORE and rank >= 0:
                pending[rank] = pending.get(rank, 0) + asked
        return {(CORE, rank): count for rank, count in share.gather(nodes, first.holders, pending).items()}

    def _nodes(self, lines: Mapping[Shape, Line], pilots: Mapping[int, Holding]) -> Dict[int, share.NodeShare]:
        nodes: Dict[int, share.NodeShare] = {}
        for rank, has in self._instance.nodes.items():
            pilot = pilots.get(rank)
            held = {
                shape: share.Held(pool.held, min(pool.held, pool.fresh) if lines.get(shape) else 0)
                for shape, pool in (pilot.pools.items() if pilot is not None else ())
            }
            nodes[rank] = share.NodeShare(has, held, self._instance.is_usable(rank))
        return nodes


def _needs_of_others(
    shape: Shape, has_tasks: bool, waiting: List[Waiting], now: float, moments: List[float]
) -> List[share.Need]:
    """What holders of a shape make room for. ``moments`` gets those at which that will be more."""
    needs: List[share.Need] = []
    for one in waiting:
        if one.holder == shape:
            continue
        ripe = one.since + (TURN if one.holder is not None and has_tasks else PATIENCE)
        if ripe <= now:
            needs.append(one.need)
        else:
            moments.append(ripe)
    return needs
