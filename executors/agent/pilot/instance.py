"""What Flux's two journals say of the instance: its nodes, the jobs that wait in it, the holders. Pure.

Fed with events of all jobs, this run's and others', and with those of the resource module.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Set, Tuple

from .share import Need, need_of

#: The user attribute by which a holder is known; its value names the run's pilots.
TAG = "fxh"
#: Seconds that a job has to wait before pilots make room for it: one that finds free cores waits for less.
PATIENCE = 0.05


class Holder:
    """A job of this run that holds a core, or waits for one."""

    __slots__ = ("named", "rank")

    def __init__(self, named: int) -> None:
        #: The rank that it was asked for on; -1 for any.
        self.named = named
        #: Of the node that it has its core on; -1 while it waits.
        self.rank = -1


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
    #: It has its core.
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
        #: Cores of each rank, up or not.
        self.cores: Dict[int, int] = {}
        self.online: Set[int] = set()
        self.drained: Set[int] = set()
        self.holders: Dict[int, Holder] = {}
        self._needs: Dict[int, Need] = {}
        #: Since when jobs wait for resources, in their order.
        self._waiting: Dict[int, float] = {}

    def is_usable(self, rank: int) -> bool:
        return rank in self.online and rank not in self.drained

    @property
    def largest(self) -> int:
        """Cores of the largest node."""
        return max(self.cores.values(), default=0)

    def has_holder_on(self, rank: int) -> bool:
        """Whether a core there is held."""
        return any(holder.rank == rank for holder in self.holders.values())

    def needs(self, now: float) -> List[Need]:
        """Of the jobs that wait in Flux and are no holders."""
        return [self._needs[job] for job, since in sorted(self._waiting.items()) if now - since >= PATIENCE]

    @property
    def has_waiting(self) -> bool:
        return bool(self._waiting)

    def pending(self) -> List[int]:
        """Holders that wait for any core, the last one first."""
        return sorted((job for job, one in self.holders.items() if one.rank < 0 and one.named < 0), reverse=True)

    def pending_on(self) -> Dict[int, int]:
        """Holders that wait for a core of a named rank, by that."""
        counts: Dict[int, int] = {}
        for holder in self.holders.values():
            if holder.rank < 0 <= holder.named:
                counts[holder.named] = counts.get(holder.named, 0) + 1
        return counts

    def job_event(self, event: Event) -> Optional[Change]:
        """Returns what it says of a holder, if anything."""
        job = event.job
        if event.name == "submit":
            return self._submitted(job, event.jobspec)
        holder = self.holders.get(job)
        if holder is not None:
            return self._of_holder(job, holder, event)
        if event.name == "priority" and job in self._needs:
            if event.context.get("priority"):
                self._waiting.setdefault(job, event.timestamp)
            else:
                self._waiting.pop(job, None)  # it is held
        elif event.name in ("alloc", "clean"):
            self._waiting.pop(job, None)
            self._needs.pop(job, None)
        return None

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
                self.holders[job] = Holder(int(tag["named"]))
                return Change(job, Stage.WAITS, self.holders[job])
        except (KeyError, TypeError, ValueError):
            pass  # resources of another form, for which no room can be made
        return None

    def resource_event(
        self, name: str, context: Dict[str, Any], nodes: List[Tuple[int, int]], ranks: Callable[[str], Set[int]]
    ) -> None:
        """``nodes``: (rank, cores) where the event defines them; ``ranks`` reads an idset."""
        if nodes:
            self.cores = dict(nodes)
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
