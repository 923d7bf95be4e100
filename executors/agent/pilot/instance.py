"""What Flux's two journals say of the instance: its nodes, the jobs that wait in it, the holders. Pure.

Fed with events of all jobs, this run's and others', and with those of the resource module.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, Callable, Dict, FrozenSet, Iterable, List, NamedTuple, Optional, Set, Tuple

from .shape import NOTHING, Shape
from .share import Need, need_of

#: The user attribute by which a holder is known; its value names the run's pilots.
TAG = "fxh"


#: The ranks that match a constraint (RFC 31); None: it cannot be read.
Matching = Callable[[Any], Optional[FrozenSet[int]]]
#: Of ranks.
Shapes = Tuple[Tuple[int, Shape], ...]


class Holder:
    """A job of this run that holds what a task needs for the pilot of a node, or waits for it."""

    __slots__ = ("is_told", "rank", "shape")

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        #: Of its node; -1 while it waits.
        self.rank = -1
        #: A pilot has told that it has it.
        self.is_told = False


class Waiting(NamedTuple):
    """A job that waits in Flux for resources."""

    need: Need
    #: The moment of the event with which it began to wait.
    since: float
    #: Of a holder of this run; None: it is none.
    holder: Optional[Shape]


class Event(NamedTuple):
    """What is needed of an event of the job manager's journal."""

    job: int
    name: str
    timestamp: float
    context: Dict[str, Any]
    jobspec: Any
    #: Of ``alloc`` events: what it has.
    nodes: Shapes


class Stage(Enum):
    """Of a holder."""

    WAITS = "waits"
    #: It has its node.
    BEGAN = "began"
    ENDED = "ended"


class Change(NamedTuple):
    """A holder has come to a stage."""

    job: int
    stage: Stage
    holder: Holder


#: Events of jobs that say something here.
JOB_EVENTS = frozenset(["submit", "priority", "alloc", "finish", "clean"])


class Instance:
    """``suffix`` names this run's pilots."""

    def __init__(self, suffix: str) -> None:
        self._suffix = suffix
        #: What each rank has, up or not.
        self.nodes: Dict[int, Shape] = {}
        #: The same without ranks, each once.
        self.kinds: FrozenSet[Shape] = frozenset()
        self.online: Set[int] = set()
        self.drained: Set[int] = set()
        self.holders: Dict[int, Holder] = {}
        #: The scheduler is one that gives jobs GPUs: it has done so.
        self.gives_gpus = False
        self._needs: Dict[int, Need] = {}
        #: Constraints (RFC 31) of jobs, and what reads them: the ranks that match.
        self._constraints: Dict[int, Any] = {}
        self._matching: Matching = lambda _constraint: None
        #: Of jobs that wait for resources: their order, by priority and then as they came, and since when.
        self._waiting: Dict[int, Tuple[int, float]] = {}
        #: Holders that wait, as they came, and how many have begun of which no pilot has told; by their shapes.
        self._pending: Dict[Shape, Dict[int, None]] = {}
        self._coming: Dict[Shape, int] = {}
        #: What jobs have, and whether they are holders; the sums of it by rank, of all and of others' jobs.
        self._allocated: Dict[int, Tuple[Shapes, bool]] = {}
        self._used: Dict[int, Shape] = {}
        self._others: Dict[int, Shape] = {}

    def is_usable(self, rank: int) -> bool:
        return rank in self.online and rank not in self.drained

    def free(self, rank: int) -> Shape:
        """What no job has of a rank."""
        return self.nodes[rank].plus(self._used.get(rank, NOTHING), -1)

    def without_others(self, rank: int) -> Shape:
        """What others' jobs have not of a rank."""
        return self.nodes[rank].plus(self._others[rank], -1) if rank in self._others else self.nodes[rank]

    def has_holder_on(self, rank: int) -> bool:
        return any(holder.rank == rank for holder in self.holders.values())

    def shapes(self) -> Iterable[Shape]:
        """Those that holders may have which wait, or of which no pilot has told."""
        return self._pending.keys()

    def pending(self, shape: Shape) -> List[int]:
        """Holders that wait, in their order."""
        return list(self._pending.get(shape, ()))

    def coming(self, shape: Shape) -> int:
        """So many holders have begun of which no pilot has told."""
        return self._coming.get(shape, 0)

    def waiting(self, with_holders: bool) -> List[Waiting]:
        """The jobs that wait in Flux, in its order."""
        found = []
        for job, (_, since) in sorted(self._waiting.items(), key=lambda item: (item[1][0], item[0])):
            holder = self.holders.get(job)
            if holder is None:
                found.append(Waiting(self._need(job), since, None))
            elif with_holders:
                found.append(Waiting(Need(1, holder.shape, False), since, holder.shape))
        return found

    def _need(self, job: int) -> Need:
        need = self._needs[job]
        if job in self._constraints:
            ranks = self._matching(self._constraints.pop(job))
            need = self._needs[job] = Need(need.times, need.each, need.apart, ranks)
        return need

    def told_of(self, job: int) -> None:
        """A pilot has this holder."""
        holder = self.holders.get(job)
        if holder is not None and not holder.is_told:
            holder.is_told = True
            if holder.rank >= 0:
                self._coming[holder.shape] -= 1

    def job_event(self, event: Event) -> Optional[Change]:
        """Returns what it says of a holder, if anything."""
        job = event.job
        if event.name == "submit":
            return self._submitted(job, event.jobspec)
        holder = self.holders.get(job)
        if event.name == "priority" and (holder is not None or job in self._needs):
            priority = int(event.context.get("priority") or 0)
            if priority:
                _, since = self._waiting.get(job, (0, event.timestamp))
                self._waiting[job] = (-priority, since)
            else:
                self._waiting.pop(job, None)  # it is held
        elif event.name == "alloc":
            self._forget_need(job)
            self._allocated[job] = (event.nodes, holder is not None)
            self._use(job, 1)
            self.gives_gpus = self.gives_gpus or any(shape.gpus for _, shape in event.nodes)
        elif event.name == "clean":
            self._forget_need(job)
            self._use(job, -1)
            self._allocated.pop(job, None)
        return None if holder is None else self._of_holder(job, holder, event)

    def _forget_need(self, job: int) -> None:
        self._waiting.pop(job, None)
        self._needs.pop(job, None)
        self._constraints.pop(job, None)

    def _use(self, job: int, times: int) -> None:
        nodes, is_holder = self._allocated.get(job, ((), False))
        for rank, shape in nodes:
            for sums in (self._used,) if is_holder else (self._used, self._others):
                sums[rank] = sums.get(rank, NOTHING).plus(shape, times)
                if sums[rank] == NOTHING:
                    del sums[rank]

    def _of_holder(self, job: int, holder: Holder, event: Event) -> Optional[Change]:
        if event.name == "alloc" and event.nodes:
            holder.rank = event.nodes[0][0]
            self._pending[holder.shape].pop(job, None)
            if not holder.is_told:
                self._coming[holder.shape] = self._coming.get(holder.shape, 0) + 1
            return Change(job, Stage.BEGAN, holder)
        if event.name in ("finish", "clean"):
            del self.holders[job]
            self._pending[holder.shape].pop(job, None)
            if holder.rank >= 0 and not holder.is_told:
                self._coming[holder.shape] -= 1
            return Change(job, Stage.ENDED, holder)
        return None

    def _submitted(self, job: int, jobspec: Any) -> Optional[Change]:
        try:
            tag = jobspec["attributes"].get("user", {}).get(TAG)
            if tag is None or tag["suffix"] != self._suffix:  # those of another run are others' jobs
                self._needs[job] = need_of(jobspec["resources"])
                constraint = jobspec["attributes"].get("system", {}).get("constraints")
                if constraint:
                    self._constraints[job] = constraint
            elif job not in self.holders:
                cores, gpus = tag["shape"]
                holder = self.holders[job] = Holder(Shape(int(cores), int(gpus)))
                self._pending.setdefault(holder.shape, {})[job] = None
                return Change(job, Stage.WAITS, holder)
        except (KeyError, TypeError, ValueError):
            pass  # resources of another form, for which no room can be made
        return None

    def resource_event(
        self,
        name: str,
        context: Dict[str, Any],
        nodes: List[Tuple[int, Shape]],
        ranks: Callable[[str], Set[int]],
        matching: Optional[Matching] = None,
    ) -> None:
        """``nodes``: what each rank has, where the event defines that; ``matching``: what reads constraints on these;
        ``ranks`` reads an idset.
        """
        if nodes:
            self._matching = matching or self._matching
            self.nodes = dict(nodes)
            self.kinds = frozenset(self.nodes.values())
        if name == "restart":
            self.online = ranks(context.get("online", ""))
        elif name == "online":
            self.online |= ranks(context["idset"])
        elif name == "offline":
            self.online -= ranks(context["idset"])
        elif name == "drain":
            self.drained |= ranks(context["idset"])
        elif name == "undrain":
            self.drained -= ranks(context["idset"])
