"""The embedded engine as a pilot uses it: holders come and go, tasks are bound to theirs, and have a directory each."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from typing import Callable, Dict, List, Optional, Sequence, Set, Tuple

from ..embedded.engine import EmbeddedEngine
from ..embedded.job import ENDED, PENDING, LocalJob
from ..embedded.plan import Plan
from ..engine import Submission
from .queues import Queues
from .shape import Shape

log = logging.getLogger("agent")

#: Seconds for tasks to end whose holder is taken away, before they are killed: less than Flux gives the holder.
HOLDER_GRACE = 1.0


class Worker(EmbeddedEngine):
    """``directory``: private, for the tasks' own; ``uri``: of the node's broker, for tasks that call Flux."""

    def __init__(self, *, spool: str, directory: str, uri: str, left: Callable[[int], None]) -> None:
        """``left`` is called with a holder that was withdrawn, when no task has it any more."""
        super().__init__(spool=spool, cores=1)
        self._queue = self._queues = Queues()
        self._hides_gpus = True
        self._directory = directory
        self._uri = uri
        self._on_left = left
        #: By the numbers of holders: what Flux has given them.
        self._cpus: Dict[int, Set[int]] = {}
        self._gpus: Dict[int, str] = {}
        self._shapes: Dict[int, Shape] = {}
        self._unbound: Set[str] = set()

    @property
    def mark(self) -> str:
        """What the processes of its tasks carry in their environment (see `process_tree`)."""
        return self._epoch

    def take(self, job_id: str, submission: Submission) -> None:
        """Run a job under an id that is given. Raises EngineError."""
        self._take(submission, job_id)
        options = submission.jobspec["attributes"]["system"].get("shell", {}).get("options", {})
        if options.get("cpu-affinity") == "off":
            self._unbound.add(job_id)

    def add_holder(self, number: int, shape: Shape, cpus: Sequence[int], gpus: str) -> None:
        """One holder more; ``cpus``: those that Flux has bound it to; ``gpus``: those that it sees there (RFC 22)."""
        self._cpus[number] = set(cpus)
        self._gpus[number] = gpus
        self._shapes[number] = shape
        self._queues.of(shape).add_core(number)
        self._admit_soon()

    def release(self, shape: Shape, count: int) -> int:
        """Let so many holders go, those first that are free first; `left` is called with each. Returns how many go."""
        self._admit()  # what was sent before: each holder runs a task, if there is one for it
        queue = self._queues.of(shape)
        before = queue.leaving
        left = queue.withdraw_any(count)
        self._left(left)
        return len(left) + queue.leaving - before

    def leaving(self) -> List[Tuple[Shape, int]]:
        """How many holders of each shape are to go, and have not."""
        return self._queues.leaving()

    def take_away(self, number: int, note: str, grace: float) -> bool:
        """Let this holder go, and end what runs there: nobody has asked for that, so it is lost. ``grace`` in seconds.

        Returns whether one holder more is to go than before.
        """
        queue = self._queues.of(self._shapes[number])
        more = not queue.excuse_one()
        users = [job for job in self._jobs.values() if number in job.cores]
        if queue.withdraw_core(number):
            self._left([number])
        for job in users:
            self._raise(job, "lost", note)
        self._loop.call_later(grace, self._killer.hurry, [job.id for job in users])
        return more

    def give_back(self) -> List[str]:
        """Forget the tasks that have not begun. Returns their ids."""
        waiting = [job for job in self._jobs.values() if job.state == PENDING]
        for job in waiting:
            job.state = ENDED
            del self._jobs[job.id]
            self._active -= 1
            self._unbound.discard(job.id)
        return [job.id for job in waiting]

    # -- what the engine asks for

    def _why_never(self, plan: Plan) -> Optional[str]:
        return None  # the agent has looked

    def _prepare(self, job: LocalJob, env: Dict[str, str]) -> Optional[Set[int]]:
        path = self._own_directory(job.id)
        os.mkdir(path, 0o700)
        env["FLUX_URI"] = self._uri
        _add_what_a_shell_sets(env, path)
        if job.plan.gpus:
            env["CUDA_VISIBLE_DEVICES"] = self._gpus[job.cores[0]]
        if job.id in self._unbound:
            return None
        return set().union(*(self._cpus[number] for number in job.cores))

    def _tidy(self, job: LocalJob) -> None:
        self._unbound.discard(job.id)
        path = self._own_directory(job.id)
        try:
            os.rmdir(path)
        except FileNotFoundError:
            pass  # it could not be made, or the task has removed it
        except OSError:  # it is not empty, and may hold much
            asyncio.ensure_future(self._loop.run_in_executor(None, _remove_tree, path))

    def _left(self, cores: List[int]) -> None:
        for number in cores:
            del self._cpus[number], self._gpus[number], self._shapes[number]
            self._on_left(number)

    def _own_directory(self, job_id: str) -> str:
        return os.path.join(self._directory, "task-" + job_id)


def _add_what_a_shell_sets(env: Dict[str, str], directory: str) -> None:
    """What Flux's shell gives a task. (Its names of the job's own guest and KVS there are none.)"""
    env["FLUX_JOB_TMPDIR"] = env["OMPI_MCA_btl_vader_backing_directory"] = directory
    env.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    wanted = env.get("TMPDIR")
    if wanted:
        try:
            os.makedirs(wanted, exist_ok=True)
        except OSError:
            env["TMPDIR"] = "/tmp"


def _remove_tree(path: str) -> None:
    def failed(_function: object, name: str, error: object) -> None:
        log.warning("%s of a task that has ended cannot be removed: %s", name, error)

    shutil.rmtree(path, onerror=failed)
