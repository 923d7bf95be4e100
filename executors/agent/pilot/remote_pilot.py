"""What the agent knows of the pilot of one node: what that has said, and what it is to be told next. Pure."""

from __future__ import annotations

from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Set

from .messages import TaskEvent, Told
from .pool import Pool
from .shape import Shape
from .task import Task


class RemotePilot:
    """``rank``: of its node's broker."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        #: Its inventory is complete.
        self.is_ready = False
        #: What the processes of its tasks carry, see `messages.Told`.
        self.mark = ""
        self.pid = 0
        #: All events of each task that it had when this agent came, until the agent has taken that over.
        self.inventory: Dict[str, List[TaskEvent]] = {}
        #: Ids of the tasks that it was sent and that have not ended.
        self.tasks: Set[str] = set()
        self._pools: Dict[Shape, Pool] = {}
        #: Its holders by their numbers there: their jobs in Flux (None: that is not known), and their shapes.
        self._jobs: Dict[int, Optional[int]] = {}
        self._shapes: Dict[int, Shape] = {}
        self._environments: Set[str] = set()
        self._operations: List[Any] = []
        self._gives_back = False

    @property
    def pools(self) -> Mapping[Shape, Pool]:
        """Its holders, by shape, once its inventory is complete."""
        return self._pools if self.is_ready else {}

    def pool(self, shape: Shape) -> Pool:
        if shape not in self._pools:
            self._pools[shape] = Pool(self.rank)
        return self._pools[shape]

    @property
    def holders(self) -> Set[int]:
        """Its holders' jobs in Flux."""
        return {job for job in self._jobs.values() if job is not None}

    # -- what it says

    def hear(self, told: Told, number_of: Callable[[str], Optional[int]]) -> None:
        """All but what it says of tasks. ``number_of`` reads an id of a job."""
        self.inventory.update(told.get("inventory", ()))
        if "complete" in told:
            self.mark = told["mark"]
            self.pid = told["pid"]
            self.is_ready = True
            self._came(told["holders"], number_of)
            self._to_leave(told["to_leave"])
        self._came(told.get("held", ()), number_of)
        for number in told.get("leaving", ()):
            self.pool(self._shapes[number]).leaving += 1
        self._to_leave((shape, -count) for shape, count in told.get("stay", ()))
        for number in told.get("left", ()):
            self._jobs.pop(number, None)
            self.pool(self._shapes.pop(number)).left(number)
        if told.get("leaving"):
            self._give_back_without_holders()
        if "back" in told:
            self._gives_back = False

    def _came(self, holders: Iterable[Any], number_of: Callable[[str], Optional[int]]) -> None:
        for number, job, shape in holders:
            self._jobs[number] = number_of(job)
            self._shapes[number] = Shape(*shape)
            self.pool(Shape(*shape)).came(number)

    def _to_leave(self, counts: Iterable[Any]) -> None:
        for shape, count in counts:
            self.pool(Shape(*shape)).leaving += count

    def remember(self, events: List[List[Any]]) -> None:
        """Events that come before its inventory was taken over belong to that."""
        for task, *event in events:
            self.inventory.setdefault(task, []).append(event)

    # -- its tasks

    def given(self, task: Task) -> None:
        self.tasks.add(task.id)
        self.pool(task.shape).load += 1

    def taken_from(self, task: Task) -> None:
        """A task that it has not got any more, if it had it."""
        if task.id in self.tasks:
            self.tasks.discard(task.id)
            self.pool(task.shape).load -= 1

    # -- what it is to be told: operations, see `messages`

    def run(self, task: Task) -> None:
        submission = task.submission
        assert submission is not None
        if submission.environment is not None and task.environment not in self._environments:
            self._environments.add(task.environment)
            self._operations.append(["environment", task.environment, submission.environment.values])
        secret = submission.secret_env or None
        self._operations.append(["run", task.id, submission.urgency, task.environment, submission.jobspec, secret])

    def cancel(self, task: Task, note: str) -> None:
        self._operations.append(["cancel", task.id, note])

    def kill(self, task: Task, signum: int) -> None:
        self._operations.append(["kill", task.id, signum])

    def forget(self, task: Task) -> None:
        self._operations.append(["forget", task.id])

    def release(self, shape: Shape, count: int) -> None:
        """Let holders of a shape go, those first whose task ends first."""
        if count > 0:
            self.pool(shape).leaving += count
            self._operations.append(["release", shape, count])
            self._give_back_without_holders()

    def give_back(self) -> None:
        """Give the tasks back that wait for a holder; it is asked once, until it has answered."""
        if not self._gives_back:
            self._gives_back = True
            self._operations.append(["give_back"])

    def _give_back_without_holders(self) -> None:
        if any(pool.load and pool.held <= 0 for pool in self.pools.values()):
            self._operations.append(["give_back"])

    def end(self, reason: str) -> None:
        """``reason``: an `EndReason`'s value."""
        self._operations.append(["end", reason])

    @property
    def has_operations(self) -> bool:
        return bool(self._operations)

    def take_operations(self) -> List[Any]:
        """What it is to be told now, and only once."""
        operations, self._operations = self._operations, []
        return operations
