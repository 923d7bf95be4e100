"""What Flux's two journals say of the instance: its nodes, the jobs that wait in it, the holders. Pure.

Fed with events of all jobs, this run's and others', and with those of the resource module.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Set, Tuple

from .shape import Shape
from .share import Need, need_of

#: The user attribute by which a holder is known; its value names the run's pilots.
TAG = "fxh"


class Holder:
    """A job of this run that holds cores and GPUs of a node for its pilot, or waits for them."""

    __slots__ = ("named", "rank", "shape")

    def __init__(self, shape: Shape, named: int) -> None:
        self.shape = shape
        #: The rank that it was asked for on; -1 for any.
        self.named = named
        #: Of its node; -1 while it waits.
        self.rank = -1


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
    #: Of ``alloc`` events: the ranks.
    ranks: Tuple[int, ...]


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
        self.online: Set[int] = set()
        self.drained: Set[int] = set()
        self.holders: Dict[int, Holder] = {}
        self._needs: Dict[int, Need] = {}
        #: Since when jobs wait for resources, in their order.
        self._waiting: Dict[int, float] = {}
        #: The scheduler is one that gives jobs GPUs: it has done so.
        self.gives_gpus = False

    def is_usable(self, rank: int) -> bool:
        return rank in self.online and rank not in self.drained

    def has_holder_on(self, rank: int) -> bool:
        """Whether a core there is held."""
        return any(holder.rank == rank for holder in self.holders.values())

    def waiting(self) -> List[Waiting]:
        """The jobs that wait in Flux, holders too, in its order."""
        found = []
        for job, since in sorted(self._waiting.items()):
            holder = self.holders.get(job)
            if holder is None:
                found.append(Waiting(self._needs[job], since, None))
            else:
                need = Need(1, holder.shape.cores, False, holder.shape.gpus, holder.named)
                found.append(Waiting(need, since, holder.shape))
        return found

    def pending(self, shape: Shape) -> List[int]:
        """Holders of a shape that wait, for no rank by name, the last one first."""
        found = [job for job, one in self.holders.items() if one.rank < 0 and one.named < 0 and one.shape == shape]
        return sorted(found, reverse=True)

    def pending_on(self, shape: Shape) -> Dict[int, int]:
        """Holders of a shape that wait for a named rank, by that."""
        counts: Dict[int, int] = {}
        for holder in self.holders.values():
            if holder.rank < 0 <= holder.named and holder.shape == shape:
                counts[holder.named] = counts.get(holder.named, 0) + 1
        return counts

    def job_event(self, event: Event) -> Optional[Change]:
        """Returns what it says of a holder, if anything."""
        job = event.job
        if event.name == "submit":
            return self._submitted(job, event.jobspec)
        holder = self.holders.get(job)
        need = self._needs.get(job)
        if event.name == "priority" and (holder is not None or need is not None):
            if event.context.get("priority"):
                self._waiting.setdefault(job, event.timestamp)
            else:
                self._waiting.pop(job, None)  # it is held
        elif event.name in ("alloc", "clean"):
            self._waiting.pop(job, None)
            self._needs.pop(job, None)
            if event.name == "alloc" and need is not None and need.gpus:
                self.gives_gpus = True
        return None if holder is None else self._of_holder(job, holder, event)

    def _of_holder(self, job: int, holder: Holder, event: Event) -> Optional[Change]:
        if event.name == "alloc" and event.ranks:
            holder.rank = event.ranks[0]
            return Change(job, Stage.BEGAN, holder)
        if event.name in ("finish", "clean"):
            del self.holders[job]
            return Change(job, Stage.ENDED, holder)
        return None

    def _submitted(self, job: int, jobspec: Any) -> Optional[Change]:
        try:
            tag = jobspec["attributes"].get("user", {}).get(TAG)
            if tag is None:
                self._needs[job] = need_of(jobspec["resources"])
            elif tag["suffix"] == self._suffix and job not in self.holders:
                cores, gpus = tag["shape"]
                self.holders[job] = Holder(Shape(int(cores), int(gpus)), int(tag["named"]))
                return Change(job, Stage.WAITS, self.holders[job])
        except (KeyError, TypeError, ValueError):
            pass  # resources of another form, for which no room can be made
        return None

    def resource_event(
        self, name: str, context: Dict[str, Any], nodes: List[Tuple[int, Shape]], ranks: Callable[[str], Set[int]]
    ) -> None:
        """``nodes``: what each rank has, where the event defines that; ``ranks`` reads an idset."""
        if nodes:
            self.nodes = dict(nodes)
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
