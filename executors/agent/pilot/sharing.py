"""Which holders to ask Flux for, which to withdraw, and which pilots are to let go: `share` over time. Pure."""

from __future__ import annotations

from typing import Dict, List, Mapping, NamedTuple, Optional, Protocol, Tuple

from .instance import Instance
from .line import Line, Place
from .shape import NOTHING, Shape
from .share import Claim, Demand, Gives, Held, NodeShare, Release, limits, room_for

#: Seconds that a job has to wait before pilots make room for it: one that finds free cores waits for less.
PATIENCE = 0.05
#: Seconds that a holder has to wait before those of other shapes that have tasks make room for it: to take turns costs
#: a job of Flux each time, and all of them are this run's. And seconds for which holders that are to go are waited
#: for, before others are let go instead: their tasks may take long.
TURN = 1.0
#: Seconds that holders have no task before they make room for those of other shapes: the next task may be on its way.
PAUSE = 0.25
#: Seconds for which holders without a task are kept, if nobody waits in Flux.
LINGER = 5.0


class PoolShare(Place, Protocol):
    """The holders of one shape that a pilot has, as far as they are shared; see `Pool`."""

    @property
    def idle(self) -> int: ...

    @property
    def leaving(self) -> int: ...

    @property
    def staying(self) -> int: ...


class Holding(Protocol):
    """A pilot, as far as its holders are shared."""

    @property
    def pools(self) -> Mapping[Shape, PoolShare]:
        """Its holders, by shape."""


class Step(NamedTuple):
    """What is to be done now."""

    #: Holders that wait in Flux and are not needed: jobs.
    withdraw: List[int]
    #: Holders to ask for, by shape.
    ask: Dict[Shape, int]
    #: Holders to let go, by rank and shape.
    release: Release
    #: Seconds after which to look again, though nothing happens; None: no need.
    again: Optional[float]


#: By rank.
Sums = Dict[int, Shape]


class _Surplus(NamedTuple):
    """A shape has had ``least`` more holders than tasks, or more, ``since`` then."""

    since: float
    least: int


class Sharing:
    """``instance``: as Flux tells of it."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        #: Holders that were asked for and that Flux has not told of yet.
        self._asked: Dict[Shape, int] = {}
        self._surplus: Dict[Shape, _Surplus] = {}
        #: The most holders that a shape has wanted lately, and until when that counts.
        self._peaks: Dict[Shape, Tuple[int, float]] = {}
        #: Since when holders have no task, by rank and shape; only where there are several shapes.
        self._idle_since: Dict[Tuple[int, Shape], float] = {}
        #: When holders were let go last, by rank and shape.
        self._released: Dict[Tuple[int, Shape], float] = {}

    @property
    def is_asking(self) -> bool:
        """Flux has not told of all holders that it was asked for."""
        return any(self._asked.values())

    def answered(self, shape: Shape) -> None:
        """A holder that was asked for is known, or was refused."""
        if self._asked.get(shape, 0) > 0:
            self._asked[shape] -= 1

    def next_step(self, now: float, lines: Mapping[Shape, Line], pilots: Mapping[int, Holding]) -> Step:
        """``now`` by the clock of Flux's events. What it says to ask for counts as asked for from then on."""
        moments: List[float] = []
        release: Release = {}
        for rank, pilot in pilots.items():
            if not self._instance.is_usable(rank):
                release.update({(rank, shape): pool.held for shape, pool in pilot.pools.items() if pool.held > 0})
        wanted, held = self._sums(lines, pilots)
        has_several = sum(bool(wanted[shape] or held[shape]) for shape in wanted) > 1
        claims = self._claims(has_several, now, moments)
        soon, late = self._leaving(pilots, now, moments)
        if has_several:
            self._look_for_idle(pilots, now, moments)
        else:
            self._idle_since.clear()  # what was idle then may have had tasks since
        if claims:
            release.update(room_for(claims, self._nodes(pilots, soon, now)))
        for (_, shape), count in release.items():
            held[shape] -= count
        for shape in wanted:
            count = self._too_many(shape, held[shape] - wanted[shape], now, moments)
            held[shape] -= self._let_idle_go(shape, count, pilots, release)
        for where in release:
            self._released[where] = now
        demands = {
            shape: Demand(self._lately(shape, count, now, moments), lines[shape].urgency if shape in lines else 0)
            for shape, count in wanted.items()
        }
        withdraw, ask = self._ask(wanted, held, demands, late)
        return Step(withdraw, ask, release, min(moments) - now if moments else None)

    def _sums(
        self, lines: Mapping[Shape, Line], pilots: Mapping[int, Holding]
    ) -> Tuple[Dict[Shape, int], Dict[Shape, int]]:
        """Holders that tasks want, and holders that stay, by shape: of all shapes that there are."""
        wanted = {shape: line.count for shape, line in lines.items()}
        held = dict.fromkeys(wanted, 0)
        for pilot in pilots.values():
            for shape, pool in pilot.pools.items():
                wanted[shape] = wanted.get(shape, 0) + pool.staying
                held[shape] = held.get(shape, 0) + pool.held
        for shape in self._instance.shapes():
            wanted.setdefault(shape, 0)
            held.setdefault(shape, 0)
        return wanted, held

    def _claims(self, has_several: bool, now: float, moments: List[float]) -> List[Claim]:
        """Of the jobs that wait in Flux. ``has_several``: shapes; a holder makes no room for others of its own."""
        claims: List[Claim] = []
        others_wait = False
        # From the last one: one that others' jobs wait behind is as urgent as they are.
        for need, since, shape in reversed(self._instance.waiting(has_several)):
            if now < since + PATIENCE:
                gives = Gives.NONE
                moments.append(since + PATIENCE)
            elif others_wait or shape is None or now >= since + TURN:
                gives = Gives.ALL
                others_wait = others_wait or shape is None
            else:
                gives = Gives.IDLE
                moments.append(since + TURN)
            claims.append(Claim(need, shape, gives))
        return claims[::-1]

    def _leaving(self, pilots: Mapping[int, Holding], now: float, moments: List[float]) -> Tuple[Sums, Sums]:
        """What is to go of each rank: soon, and of which that cannot be said any more."""
        soon: Sums = {}
        late: Sums = {}
        for rank, pilot in pilots.items():
            for shape, pool in pilot.pools.items():
                if pool.leaving > 0:
                    over = self._released.get((rank, shape), now) + TURN
                    if now < over:
                        moments.append(over)
                    sums = soon if now < over else late
                    sums[rank] = sums.get(rank, NOTHING).plus(shape, pool.leaving)
        return soon, late

    def _nodes(self, pilots: Mapping[int, Holding], soon: Sums, now: float) -> Dict[int, NodeShare]:
        nodes: Dict[int, NodeShare] = {}
        for rank, has in self._instance.nodes.items():
            if self._instance.is_usable(rank):
                pilot = pilots.get(rank)
                held = {
                    shape: Held(pool.held, pool.idle if self._is_idle(rank, shape, now) else 0)
                    for shape, pool in (pilot.pools.items() if pilot is not None else ())
                }
                nodes[rank] = NodeShare(has, self._instance.free(rank).plus(soon.get(rank, NOTHING)), held)
        return nodes

    def _look_for_idle(self, pilots: Mapping[int, Holding], now: float, moments: List[float]) -> None:
        """Note since when pools have idle holders."""
        for rank, pilot in pilots.items():
            for shape, pool in pilot.pools.items():
                if not pool.idle:
                    self._idle_since.pop((rank, shape), None)
                elif now < self._idle_since.setdefault((rank, shape), now) + PAUSE:
                    moments.append(self._idle_since[rank, shape] + PAUSE)

    def _lately(self, shape: Shape, wanted: int, now: float, moments: List[float]) -> int:
        """The most holders that were wanted in the last while: what one shape leaves to others must not come and go."""
        peak, until = self._peaks.get(shape, (0, now))
        if wanted >= peak or now >= until:
            peak, until = wanted, now + PAUSE
            self._peaks[shape] = (peak, until)
        elif wanted < peak:
            moments.append(until)
        return peak

    def _is_idle(self, rank: int, shape: Shape, now: float) -> bool:
        return now >= self._idle_since.get((rank, shape), now) + PAUSE

    def _too_many(self, shape: Shape, surplus: int, now: float, moments: List[float]) -> int:
        """Holders of a shape that it has had for long without a task."""
        if surplus <= 0:
            self._surplus.pop(shape, None)
            return 0
        former = self._surplus.get(shape, _Surplus(now, surplus))
        if now >= former.since + LINGER:
            del self._surplus[shape]
            return min(former.least, surplus)
        self._surplus[shape] = _Surplus(former.since, min(former.least, surplus))
        moments.append(former.since + LINGER)
        return 0

    def _let_idle_go(self, shape: Shape, count: int, pilots: Mapping[int, Holding], release: Release) -> int:
        """Add so many to what is released, or all that are idle. Returns how many."""
        left = count
        for rank, pilot in pilots.items():
            if left and shape in pilot.pools:
                here = min(left, pilot.pools[shape].idle - release.get((rank, shape), 0))
                if here > 0:
                    release[rank, shape] = release.get((rank, shape), 0) + here
                    left -= here
        return count - left

    def _ask(
        self, wanted: Mapping[Shape, int], held: Mapping[Shape, int], demands: Mapping[Shape, Demand], late: Sums
    ) -> Tuple[List[int], Dict[Shape, int]]:
        """Holders to withdraw, and to ask for. ``held``: those that stay; ``late``: see `_leaving`."""
        most: Dict[Shape, int] = {}
        if any(wanted.values()):
            instance = self._instance
            usable = [rank for rank in instance.nodes if instance.is_usable(rank)]
            available = [instance.without_others(rank).plus(late.get(rank, NOTHING), -1) for rank in usable]
            most = limits(demands, [instance.nodes[rank] for rank in usable], available)
        withdraw: List[int] = []
        ask: Dict[Shape, int] = {}
        for shape, count in wanted.items():
            pending = self._instance.pending(shape)
            coming = self._asked.get(shape, 0) + self._instance.coming(shape) + len(pending)
            missing = min(count, most.get(shape, 0)) - held[shape] - coming
            if missing > 0:
                ask[shape] = missing
                self._asked[shape] = self._asked.get(shape, 0) + missing
            elif missing < 0:
                withdraw += pending[missing:]
        return withdraw, ask
