"""An instance with pilots, as events over a clock of its own: what decides is real, Flux and processes are not.

Flux here serves its jobs first in, first out. Each step of the agent is as `PilotEngine` takes it: it sends tasks,
shares holders, and tells pilots, whose operations are done as `Duties` and `Worker` do them.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import Any

from executors.agent.embedded.job import ENDED, PENDING, RUNNING
from executors.agent.engine import Submission
from executors.agent.pilot.instance import Event, Instance, Stage
from executors.agent.pilot.line import Line, crowded, place_for_next
from executors.agent.pilot.messages import Told
from executors.agent.pilot.queues import Queues
from executors.agent.pilot.remote_pilot import RemotePilot
from executors.agent.pilot.shape import NOTHING, Shape
from executors.agent.pilot.sharing import Sharing
from executors.agent.pilot.task import Task

#: Seconds: of a message between agent and pilot; of Flux for a step of its own; of a holder's process to start; to end.
_MESSAGE, _STEP, _START, _END = 0.005, 0.01, 0.04, 0.03


class SimTask(Task):
    """``seconds`` long; it is also what the pilot's queue takes for a job."""

    def __init__(self, name: str, shape: Shape, seconds: float, urgency: int, now: float) -> None:
        super().__init__(name, None, "", "")
        self.shape = shape
        self.submission = Submission({}, urgency)
        self.seconds = seconds
        self.submitted = now
        self.started: float | None = None


class _Job:
    """A task in its pilot, as the queue sees it."""

    def __init__(self, task: SimTask) -> None:
        self.id = task.id
        self.state = PENDING
        self.urgency = 16
        self.cores: list[int] = []
        self.gpus: list[int] = []
        self.plan = task.shape  # of whose fields the queue asks only for cores and gpus


class FluxJob:
    """A job in Flux; ``seconds`` None: a holder."""

    def __init__(self, number: int, shape: Shape, seconds: float | None, now: float) -> None:
        self.number = number
        self.shape = shape
        self.seconds = seconds
        self.submitted = now
        self.started: float | None = None
        self.ended: float | None = None
        self.rank = -1


class Simulation:
    def __init__(self, *nodes: Shape) -> None:
        self.now = 0.0
        self.nodes = dict(enumerate(nodes))
        #: By rank, what Flux has given to no job.
        self.free = dict(self.nodes)
        self.tasks: dict[str, SimTask] = {}
        self.jobs: dict[int, FluxJob] = {}
        self.holders_asked = 0
        self._heap: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []
        self._order = itertools.count()
        self._instance = Instance("fxp")
        self._instance.resource_event("restart", {"online": ""}, [*self.nodes.items()], lambda _: set(self.nodes))
        self._sharing = Sharing(self._instance)
        self._lines: dict[Shape, Line] = {}
        self._pilots = {rank: RemotePilot(rank) for rank in self.nodes}
        for pilot in self._pilots.values():
            pilot.hear({"complete": True, "mark": "m", "pid": 1, "holders": [], "to_leave": []}, int)
        self._queues = {rank: Queues() for rank in self.nodes}
        self._running: dict[int, dict[str, _Job]] = {rank: {} for rank in self.nodes}
        self._line: list[FluxJob] = []
        self._holders: dict[int, FluxJob] = {}
        self._is_due = False
        self._timer: object = None

    # -- what tests do

    def task(self, shape: Shape, seconds: float, urgency: int = 16) -> SimTask:
        task = SimTask(f"t{len(self.tasks)}", shape, seconds, urgency, self.now)
        self.tasks[task.id] = task
        self._lines.setdefault(shape, Line()).add(task)
        self._changed()
        return task

    def job(self, shape: Shape, seconds: float) -> FluxJob:
        """One of Flux's own, of one slot."""
        inside = [{"type": kind, "count": count} for kind, count in zip(("core", "gpu"), shape, strict=True) if count]
        spec = {"attributes": {}, "resources": [{"type": "slot", "count": 1, "with": inside}]}
        return self._submit(spec, shape, seconds)

    def flood(self, shape: Shape, seconds: float, until: float, waiting: int = 40, urgency: int = 16) -> None:
        """Keep so many tasks waiting or running until a moment."""
        living = sum(1 for one in self.tasks.values() if (one.shape, one.seconds, one.ended) == (shape, seconds, False))
        for _ in range(waiting - living):
            self.task(shape, seconds, urgency)
        if self.now < until:
            self._at(0.1, self.flood, shape, seconds, until, waiting, urgency)

    def run(self, until: float) -> None:
        while self._heap and self._heap[0][0] <= until:
            self.now, _, function, arguments = heapq.heappop(self._heap)
            function(*arguments)
        self.now = until

    def _at(self, seconds: float, function: Callable[..., object], *arguments: Any) -> None:
        heapq.heappush(self._heap, (self.now + seconds, next(self._order), function, arguments))

    # -- the agent

    def _changed(self) -> None:
        if not self._is_due:
            self._is_due = True
            self._at(0.0, self._schedule)

    def _schedule(self) -> None:
        self._is_due = False
        for shape, line in self._lines.items():
            pools = [pilot.pool(shape) for pilot in self._pilots.values()]
            while (task := line.first) is not None:
                pool = place_for_next(pools)
                if pool is None:
                    break
                task.sent_to(pool.rank, "m")
                self._pilots[pool.rank].given(task)
                line.left()
                self._pilots[pool.rank].run(task)
            else:
                for pool in crowded(pools):
                    self._pilots[pool.rank].give_back()
        step = self._sharing.next_step(self.now, self._lines, self._pilots)
        for job in step.withdraw:
            self._at(_MESSAGE, self._cancel, job)
        for shape, count in step.ask.items():
            self.holders_asked += count
            for _ in range(count):
                spec = {"attributes": {"user": {"fxh": {"suffix": "fxp", "shape": [*shape]}}}}
                self._at(_MESSAGE, self._submit, spec, shape, None)
        for (rank, shape), count in step.release.items():
            self._pilots[rank].release(shape, count)
        if step.again is not None:
            assert step.again >= 0
            self._timer = timer = object()
            # A clock goes on, this one only with its events: so that rounding cannot keep it where it is.
            self._at(step.again + 1e-9, self._by_timer, timer)
        for rank, pilot in self._pilots.items():
            operations = pilot.take_operations()
            if operations:
                self._at(_MESSAGE, self._do, rank, operations)

    def _by_timer(self, timer: object) -> None:
        if timer is self._timer:
            self._changed()

    # -- pilots

    def _do(self, rank: int, operations: list[Any]) -> None:
        for name, *arguments in operations:
            if name == "run":
                job = self._running[rank][arguments[0]] = _Job(self.tasks[arguments[0]])
                self._queues[rank].add(job)  # type: ignore[arg-type]
            elif name == "release":
                self._admit(rank)
                self._release(rank, *arguments)
            else:
                assert name == "give_back"
                waiting = [job for job in self._running[rank].values() if job.state == PENDING]
                for job in waiting:
                    job.state = ENDED
                    del self._running[rank][job.id]
                self._tell(rank, {"back": [job.id for job in waiting]})
        self._admit(rank)

    def _release(self, rank: int, shape: Shape, count: int) -> None:
        queue = self._queues[rank].of(shape)
        before = queue.leaving
        left = queue.withdraw_any(count)
        self._left(rank, left)
        more = count - (len(left) + queue.leaving - before)
        if more:
            self._tell(rank, {"stay": [(shape, more)]})

    def _admit(self, rank: int) -> None:
        while (job := self._queues[rank].take()) is not None:
            job.state = RUNNING
            self.tasks[job.id].started = self.now
            self._at(self.tasks[job.id].seconds, self._task_ends, rank, job)

    def _task_ends(self, rank: int, job: Any) -> None:
        job.state = ENDED
        del self._running[rank][job.id]
        self._at(_MESSAGE, self._task_ended, rank, self.tasks[job.id])
        self._left(rank, self._queues[rank].give_back(job))
        self._admit(rank)

    def _task_ended(self, rank: int, task: SimTask) -> None:
        task.ended = True
        self._pilots[rank].taken_from(task)
        self._changed()

    def _left(self, rank: int, numbers: list[int]) -> None:
        for number in numbers:
            self._tell(rank, {"left": [number]})
            self._at(_END, self._job_ends, self._holders[number])

    def _tell(self, rank: int, told: Told) -> None:
        self._at(_MESSAGE, self._hear, rank, told)

    def _hear(self, rank: int, told: Told) -> None:
        pilot = self._pilots[rank]
        pilot.hear(told, int)
        if "held" in told:
            for job in pilot.holders:
                self._instance.told_of(job)
        for task_id in reversed(told.get("back", [])):
            if task_id in pilot.tasks:
                task = self.tasks[task_id]
                pilot.taken_from(task)
                task.came_back()
                self._lines[task.shape].add(task, again=True)
        self._changed()

    # -- Flux

    def _submit(self, spec: Any, shape: Shape, seconds: float | None) -> FluxJob:
        job = FluxJob(len(self.jobs) + 1, shape, seconds, self.now)
        self.jobs[job.number] = job
        self._event(job, "submit", spec)
        self._event(job, "priority")
        self._line.append(job)
        self._at(_STEP, self._serve)
        return job

    def _event(self, job: FluxJob, name: str, spec: Any = None) -> None:
        nodes = ((job.rank, job.shape),) if name == "alloc" else ()
        change = self._instance.job_event(Event(job.number, name, self.now, {"priority": 16}, spec, nodes))
        if change is not None and change.stage is Stage.WAITS:
            self._sharing.answered(change.holder.shape)
        self._changed()

    def _serve(self) -> None:
        while self._line:
            job = self._line[0]
            job.rank = next((rank for rank, free in self.free.items() if free.holds(job.shape)), -1)
            if job.rank < 0:
                return
            del self._line[0]
            self.free[job.rank] = self.free[job.rank].plus(job.shape, -1)
            job.started = self.now
            self._event(job, "alloc")
            if job.seconds is None:
                self._at(_START, self._holder_comes, job)
            else:
                self._at(job.seconds, self._job_ends, job)

    def _holder_comes(self, job: FluxJob) -> None:
        number = len(self._holders) + 1
        self._holders[number] = job
        self._queues[job.rank].of(job.shape).add_core(number)
        self._tell(job.rank, {"held": [(number, str(job.number), job.shape)]})
        self._admit(job.rank)

    def _job_ends(self, job: FluxJob) -> None:
        job.ended = self.now
        self.free[job.rank] = self.free[job.rank].plus(job.shape)
        self._event(job, "finish")
        self._event(job, "clean")
        self._at(_STEP, self._serve)
        self.check()

    def _cancel(self, number: int) -> None:
        job = self.jobs[number]
        if job in self._line:
            self._line.remove(job)
            job.ended = self.now
            self._event(job, "clean")
            self._at(_STEP, self._serve)

    def check(self) -> None:
        """Each core and each GPU is of one task, or of one job of Flux's own, at most."""
        for rank, has in self.nodes.items():
            used = NOTHING
            for job in self.jobs.values():
                if job.rank == rank and job.seconds is not None and job.started is not None and job.ended is None:
                    used = used.plus(job.shape)
            for task in self._running[rank].values():
                if task.state == RUNNING:
                    used = used.plus(task.plan)
            assert has.holds(used), "a core or a GPU is promised twice"
