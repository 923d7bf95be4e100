"""The tasks of a pilot that wait for a holder of their shape, and the holders that are free. Pure."""

from __future__ import annotations

from typing import Dict, List, Optional, Tuple

from ..embedded.job import LocalJob
from ..embedded.queue import Queue
from .shape import Shape


class Queues:
    """What the embedded engine takes for one queue of jobs; a "core" there is the number of a holder here."""

    def __init__(self) -> None:
        self._queues: Dict[Shape, Queue] = {}

    def of(self, shape: Shape) -> Queue:
        if shape not in self._queues:
            self._queues[shape] = _OneForEach([], [])
        return self._queues[shape]

    def leaving(self) -> List[Tuple[Shape, int]]:
        """How many holders of each shape are to go, and have not."""
        return [(shape, queue.leaving) for shape, queue in self._queues.items()]

    # -- as the engine uses it

    def add(self, job: LocalJob) -> None:
        self._of_job(job).add(job)

    def take(self) -> Optional[LocalJob]:
        for queue in self._queues.values():
            job = queue.take()
            if job is not None:
                return job
        return None

    def give_back(self, job: LocalJob) -> List[int]:
        return self._of_job(job).give_back(job)

    def _of_job(self, job: LocalJob) -> Queue:
        return self.of(Shape(job.plan.cores, job.plan.gpus))


class _OneForEach(Queue):
    """A task has one holder, with all that it holds."""

    def _wants(self, job: LocalJob) -> Tuple[int, int]:
        return 1, 0
