"""Which holders to ask Flux for, which to withdraw, and which cores pilots are to let go: `share` over time. Pure."""

from __future__ import annotations

from typing import Dict, List, Mapping, NamedTuple, Optional, Protocol

from . import share
from .instance import PATIENCE, Instance
from .line import Line, Place

#: Seconds for which holders without a task are kept, if nobody waits in Flux.
LINGER = 5.0


class Holding(Place, Protocol):
    """A pilot, as far as cores are shared."""

    @property
    def fresh(self) -> int:
        """Those of its cores that have run no task yet."""


class Step(NamedTuple):
    """What is to be done now."""

    #: Holders that wait in Flux and are not needed: jobs.
    withdraw: List[int]
    #: Holders to ask for, by the rank that they are wanted on, -1 for any.
    ask: Dict[int, int]
    #: Cores to let go, by rank.
    release: Dict[int, int]
    #: Seconds after which to look again, though nothing happens; None: no need.
    again: Optional[float]


class Sharing:
    """``instance``: as Flux tells of it."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        #: Holders that were asked for and that Flux has not told of yet, by the rank that they are wanted on.
        self._asked: Dict[int, int] = {}
        self._idle_since: Optional[float] = None

    @property
    def is_asking(self) -> bool:
        """Flux has not told of all holders that it was asked for."""
        return any(self._asked.values())

    def answered(self, named: int) -> None:
        """A holder that was asked for is known, or was refused. ``named``: the rank that it was wanted on."""
        if self._asked.get(named, 0) > 0:
            self._asked[named] -= 1

    def next_step(self, now: float, line: Line, pilots: Mapping[int, Holding]) -> Step:
        """``now`` by the clock of Flux's events. What it says to ask for counts as asked for from then on."""
        wanted = line.cores + sum(pilot.load for pilot in pilots.values())
        needs = self._instance.needs(now)
        if wanted:
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = now
        lingers = self._idle_since is not None and now - self._idle_since < LINGER and not needs
        nodes = self._nodes(bool(line), pilots)
        if lingers:
            wanted = sum(node.held for node in nodes.values())
        pending = self._instance.pending()
        pending_on = self._instance.pending_on()
        asked = self._asked.get(-1, 0)
        decision = share.decide(nodes, wanted, len(pending) + asked + sum(pending_on.values()), needs)
        ask = {-1: decision.ask} if decision.ask else {}
        first = line.first
        if first is not None and first.cores > 1:
            for rank, asked_on in self._asked.items():
                if rank >= 0:
                    pending_on[rank] = pending_on.get(rank, 0) + asked_on
            ask.update(share.gather(nodes, first.cores, pending_on))
        for named, count in ask.items():
            self._asked[named] = self._asked.get(named, 0) + count
        release = decision.release if wanted else {rank: pilot.cores for rank, pilot in pilots.items()}
        again = PATIENCE if self._instance.has_waiting else LINGER if lingers else None
        return Step(pending[: decision.withdraw], ask, release, again)

    def _nodes(self, has_waiting: bool, pilots: Mapping[int, Holding]) -> Dict[int, share.NodeShare]:
        nodes: Dict[int, share.NodeShare] = {}
        for rank, cores in self._instance.cores.items():
            pilot = pilots.get(rank)
            held = pilot.cores if pilot is not None else 0
            fresh = pilot.fresh if pilot is not None and has_waiting else 0
            nodes[rank] = share.NodeShare(cores, held, min(fresh, held), self._instance.is_usable(rank))
        return nodes
