"""What the agent knows of the pilot of one node: what that has said, and what it is to be told next. Pure."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Optional, Set

from .messages import TaskEvent, Told
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
        #: Ids of the tasks that it was sent and that have not ended; their cores.
        self.tasks: Set[str] = set()
        self.load = 0
        #: The job in Flux that holds each of its cores, by their numbers there; None: it is not known.
        self._held: Dict[int, Optional[int]] = {}
        #: So many of its cores are to go.
        self._leaving = 0
        #: Tasks that have ended here, and how many had when a core came: with more, each core has had one.
        self._ended = 0
        self._ended_before: Dict[int, int] = {}
        self._environments: Set[str] = set()
        self._operations: List[Any] = []
        self._gives_back = False

    @property
    def cores(self) -> int:
        """That it has, and is not about to let go."""
        return len(self._held) - self._leaving if self.is_ready else 0

    @property
    def fresh(self) -> int:
        """Those of its cores that have run no task yet."""
        return min(self.cores, sum(1 for before in self._ended_before.values() if before == self._ended))

    @property
    def holders(self) -> Set[int]:
        """The jobs in Flux that hold its cores."""
        return {job for job in self._held.values() if job is not None}

    # -- what it says

    def hear(self, told: Told, number_of: Callable[[str], Optional[int]]) -> None:
        """All but what it says of tasks. ``number_of`` reads an id of a job."""
        self.inventory.update(told.get("inventory", ()))
        if "complete" in told:
            self.mark = told["mark"]
            self.pid = told["pid"]
            self.is_ready = True
            self._came(told["holders"], number_of)
            self._leaving = told["to_leave"]
        self._came(told.get("held", ()), number_of)
        self._leaving += len(told.get("leaving", ())) - sum(told.get("stay", ()))
        for core in told.get("left", ()):
            self._held.pop(core, None)
            self._ended_before.pop(core, None)
            self._leaving -= 1
        if told.get("leaving"):
            self._give_back_without_cores()
        if "back" in told:
            self._gives_back = False

    def _came(self, cores: Any, number_of: Callable[[str], Optional[int]]) -> None:
        for core, job in cores:
            self._held[core] = number_of(job)
            self._ended_before[core] = self._ended

    def remember(self, events: List[List[Any]]) -> None:
        """Events that come before its inventory was taken over belong to that."""
        for task, *event in events:
            self.inventory.setdefault(task, []).append(event)

    # -- its tasks

    def given(self, task: Task) -> None:
        self.tasks.add(task.id)
        self.load += task.cores

    def taken_from(self, task: Task) -> None:
        """A task that it has not got any more, if it had it."""
        if task.id in self.tasks:
            self.tasks.discard(task.id)
            self.load -= task.cores

    def has_run(self, task: Task) -> None:
        """A task has ended here."""
        self.taken_from(task)
        self._ended += 1

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

    def release(self, count: int) -> None:
        """Let cores go, those first whose task ends first."""
        if count > 0:
            self._leaving += count
            self._operations.append(["release", count])
            self._give_back_without_cores()

    def give_back(self) -> None:
        """Give the tasks back that wait for a core; it is asked once, until it has answered."""
        if not self._gives_back:
            self._gives_back = True
            self._operations.append(["give_back"])

    def _give_back_without_cores(self) -> None:
        if not self.cores and self.tasks:
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
