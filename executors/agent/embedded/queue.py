"""Which job runs next, and the cores and GPUs that are free. Pure.

First in, first out among equal urgencies: the head of the line blocks the others.
"""

from __future__ import annotations

import heapq
from typing import List, Optional, Protocol, Sequence, Set, Tuple

from .job import PENDING, LocalJob


class WaitingJobs(Protocol):
    """What the engine needs of a queue."""

    def add(self, job: LocalJob) -> None: ...

    def take(self) -> Optional[LocalJob]: ...

    def give_back(self, job: LocalJob) -> List[int]: ...


class Queue:
    """Jobs that wait for ``cores`` (numbers) and ``gpus`` (ids) of one machine."""

    def __init__(self, cores: Sequence[int], gpus: Sequence[int]) -> None:
        self._cores = set(cores)
        self._free_cores = list(cores)
        #: Cores that go when the jobs that have them end.
        self._leaving: Set[int] = set()
        #: So many more go, whichever are free first.
        self._owed = 0
        self._free_gpus = list(gpus)
        self._line: List[Tuple[int, int, LocalJob]] = []
        self._count = 0

    def add(self, job: LocalJob) -> None:
        """A job joins the line. One that ends before it is taken just leaves it."""
        self._count += 1
        heapq.heappush(self._line, (-job.urgency, self._count, job))

    def take(self) -> Optional[LocalJob]:
        """Returns the next job, with its cores and GPUs from now on; None where the first one does not fit yet."""
        while self._line:
            job = self._line[0][2]
            if job.state == PENDING:
                cores, gpus = self._wants(job)
                if not 0 < cores <= len(self._free_cores) or gpus > len(self._free_gpus):
                    return None
                job.cores, self._free_cores = self._free_cores[:cores], self._free_cores[cores:]
                job.gpus, self._free_gpus = self._free_gpus[:gpus], self._free_gpus[gpus:]
            heapq.heappop(self._line)
            if job.state == PENDING:
                return job
        return None

    def _wants(self, job: LocalJob) -> Tuple[int, int]:
        """Cores and GPUs."""
        return len(self._cores) if job.plan.exclusive else job.plan.cores, job.plan.gpus

    def give_back(self, job: LocalJob) -> List[int]:
        """What a job had that `take` returned is free again. Returns those of its cores that have left instead."""
        left = [core for core in job.cores if core in self._leaving]
        self._leaving.difference_update(left)
        self._free_cores += [core for core in job.cores if core in self._cores]
        job.cores = []
        self._free_gpus = sorted(self._free_gpus + job.gpus)
        owed, self._owed = self._owed, 0
        return left + self.withdraw_any(owed)

    @property
    def leaving(self) -> int:
        """Cores that are to go, and have not."""
        return len(self._leaving) + self._owed

    def add_core(self, core: int) -> None:
        """There is one core more, of a number that no core has."""
        self._cores.add(core)
        self._free_cores.append(core)

    def withdraw_core(self, core: int) -> bool:
        """Give a core to no job any more. Returns whether it has left; else a job has it, and it leaves with that."""
        self._cores.discard(core)
        if core in self._free_cores:
            self._free_cores.remove(core)
            return True
        self._leaving.add(core)
        return False

    def withdraw_any(self, count: int) -> List[int]:
        """So many cores are to go, those first that are free first. Returns those that have left at once."""
        left, self._free_cores = self._free_cores[:count], self._free_cores[count:]
        self._cores.difference_update(left)
        self._owed = min(self._owed + count - len(left), len(self._cores))
        return left

    def excuse_one(self) -> bool:
        """A core goes for another reason. Returns whether one of those that `withdraw_any` waits for may stay."""
        excused = self._owed > 0
        self._owed -= excused
        return excused
