"""What an agent has a pilot do with tasks and cores, and what the pilot remembers of its tasks."""

from __future__ import annotations

import asyncio
from typing import Any, Callable, Dict, List, Optional, Tuple

from ..engine import ACTIVE, FAILED_TO_RUN, MAY_WAIT, RAN, WAITED_FOR, EngineError, Entry, SharedEnvironment, Submission
from .messages import TaskEvent
from .shape import Shape
from .telling import Telling
from .worker import Worker

#: Events of a task that its agent writes itself, since it has the line of those that wait.
_OF_THE_LINE = frozenset(["submit", "depend", "priority"])


class Duties:
    """The operations of a ``call`` (see `messages`), by their names."""

    def __init__(self, worker: Worker, telling: Telling) -> None:
        self._worker = worker
        self._telling = telling
        self._environments: Dict[str, SharedEnvironment] = {}
        #: The events of each task that is not forgotten, for an agent that comes later.
        self._events: Dict[str, List[TaskEvent]] = {}
        self._operations: Dict[str, Callable[..., None]] = {
            "environment": self._environment,
            "run": self._run,
            "cancel": self._cancel,
            "kill": self._kill,
            "release": self._release,
            "give_back": self._give_back,
            "forget": self._forget,
        }

    def do(self, operation: List[Any]) -> None:
        """Raises EngineError."""
        name, *arguments = operation
        self._operations[name](*arguments)

    def not_begun(self, operations: List[List[Any]]) -> List[str]:
        """The tasks that operations would have begun, had they been done."""
        return [operation[1] for operation in operations if operation[0] == "run" and operation[1] not in self._events]

    # -- operations

    def _environment(self, reference: str, values: Dict[str, str]) -> None:
        self._environments[reference] = SharedEnvironment(values)

    def _run(
        self, task: str, urgency: int, reference: str, jobspec: Dict[str, Any], secret: Optional[Dict[str, str]]
    ) -> None:
        if task in self._events:
            return  # a former agent had sent it, and the present one did not wait for the inventory
        self._events[task] = []
        environment = self._environments[reference] if reference else None
        self._worker.take(task, Submission(jobspec, urgency, secret_env=secret, environment=environment))

    def _cancel(self, task: str, note: str) -> None:
        self._worker.cancel(task, note)

    def _kill(self, task: str, signum: int) -> None:
        answer = self._worker.kill(task, signum)
        assert isinstance(answer, asyncio.Future)
        error = answer.exception()
        if isinstance(error, EngineError):
            raise error

    def _release(self, shape: List[int], count: int) -> None:
        more_than_are_here = count - self._worker.release(Shape(*shape), count)
        if more_than_are_here:
            self._telling.tell("stay", [(shape, more_than_are_here)])

    def _give_back(self) -> None:
        ids = self._worker.give_back()
        for task in ids:
            del self._events[task]
        self._telling.tell("back", ids)

    def _forget(self, task: str) -> None:
        self._events.pop(task, None)
        self._worker.forget(task)

    # -- what is remembered

    def forget_environments(self) -> None:
        """An agent that attaches sends those that it needs."""
        self._environments.clear()

    def inventory(self) -> List[Tuple[str, List[TaskEvent]]]:
        """All events so far of each task that is not forgotten."""
        return list(self._events.items())

    def happened(self, entries: List[Entry]) -> None:
        """The worker's tasks have come so far."""
        told: List[Any] = []
        for task, name, timestamp, context in entries:
            if name not in _OF_THE_LINE and task in self._events:
                self._events[task].append([name, timestamp, context])
                told.append([task, name, timestamp, context])
        if any(event[1] in WAITED_FOR for event in told):
            self._telling.tell_now("events", told)
        elif told:
            self._telling.tell_within(MAY_WAIT, "events", told)

    def progress(self, task: str) -> str:
        """How far a task is, see `Progress`."""
        names = [event[0] for event in self._events.get(task, ())]
        if "clean" not in names:
            return ACTIVE
        return RAN if "start" in names else FAILED_TO_RUN
