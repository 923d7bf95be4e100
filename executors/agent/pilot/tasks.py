"""The tasks of pilots, each from when it is taken until it is forgotten: what is told and kept of it on its way."""

from __future__ import annotations

import hashlib
import logging
from typing import Any, Dict, List, Optional

from ..engine import SharedEnvironment, Submission
from .ledger import Ledger
from .line import Line, crowded, place_for_next
from .messages import TaskEvent
from .remote_pilot import RemotePilot
from .reports import Reports
from .shape import Shape
from .takes import slot_of
from .task import Task

log = logging.getLogger("agent")


class Tasks:
    """All tasks, the lines of those that wait, and which pilot has which of the others.

    What is kept on disk is there after `write`, but for new tasks, which are there at once.
    """

    def __init__(self, ledger: Ledger, reports: Reports) -> None:
        #: Of those that wait, by their shapes.
        self.lines: Dict[Shape, Line] = {}
        self._ledger = ledger
        self._reports = reports
        self._tasks: Dict[str, Task] = {}
        self._count = 0

    def get(self, task_id: str) -> Optional[Task]:
        return self._tasks.get(task_id)

    # -- taken, by this agent or by one before it

    def take(self, epoch: int, submissions: List[Submission]) -> List[str]:
        """Put new tasks into the line; their ids. ``epoch`` is this agent's. Raises OSError; then none is taken."""
        tasks = [self._new(epoch, submission) for submission in submissions]
        self._ledger.take(tasks)
        for task in tasks:
            self._know(task)
            self._wait(task)
        return [task.id for task in tasks]

    def _new(self, epoch: int, submission: Submission) -> Task:
        self._count += 1
        task = Task("p%d.%d" % (epoch, self._count), submission.key, submission.digest, submission.name)
        slot = slot_of(submission.jobspec)
        assert slot is not None  # see `takes.why_flux`
        task.shape = slot
        task.submission = submission
        if submission.environment is not None:
            task.environment = _reference(submission.environment)
        return task

    def _wait(self, task: Task, again: bool = False) -> None:
        """See `Line.add`."""
        self.lines.setdefault(task.shape, Line()).add(task, again)

    def _know(self, task: Task) -> None:
        self._tasks[task.id] = task
        self._reports.exists(task)
        urgency = 16 if task.submission is None else task.submission.urgency
        self._reports.tell(task, "submit", {"urgency": urgency})
        self._reports.tell(task, "depend", {})
        self._reports.tell(task, "priority", {"priority": urgency})

    def recover(self, task: Task) -> None:
        """A former agent has taken this task. One of the next four is called with it then."""
        self._count = max(self._count, int(task.id.rpartition(".")[2]))
        self._know(task)

    def found_in(self, task: Task, pilot: RemotePilot, events: List[TaskEvent]) -> None:
        """A pilot has it, or has had it."""
        task.ended = False  # its end is told again, by this agent
        self._given(task, pilot)
        self.apply(pilot, [[task.id, *event] for event in events])

    def found_waiting(self, task: Task) -> None:
        task.came_back()
        self._wait(task)

    def found_lost(self, task: Task) -> None:
        self._except(task, "lost", "the pilot that had it, on rank %d, is gone" % task.rank)

    def found_ended(self, task: Task, kind: str, note: str) -> None:
        """The former agent has ended it by this exception, of which its server may not have told."""
        self._except(task, kind, note)

    # -- sent to pilots, and given back by them

    def send(self, pilots: List[RemotePilot]) -> bool:
        """Give pilots, all of which can be used, what they have room for. Returns what `write` does."""
        sent: Dict[int, List[Task]] = {}
        by_rank = {pilot.rank: pilot for pilot in pilots}
        for shape, line in self.lines.items():
            pools = [pilot.pool(shape) for pilot in pilots]
            while line.first is not None:
                task = line.first
                pool = place_for_next(pools)
                if pool is None:
                    break
                self._given(task, by_rank[pool.rank])
                line.left()
                sent.setdefault(pool.rank, []).append(task)
            else:
                for pool in crowded(pools):
                    by_rank[pool.rank].give_back()
        for rank, tasks in sent.items():
            self._ledger.sent(rank, by_rank[rank].mark, [task.id for task in tasks])
        is_written = self.write()
        for rank, tasks in sent.items():
            if is_written:
                for task in tasks:
                    by_rank[rank].run(task)
            else:  # a later agent must not take them for tasks that were never sent
                self._take_back(by_rank[rank], tasks)
        return is_written

    def _given(self, task: Task, pilot: RemotePilot) -> None:
        task.sent_to(pilot.rank, pilot.mark)
        pilot.given(task)

    def given_back(self, pilot: RemotePilot, ids: List[str]) -> None:
        """A pilot has not begun these."""
        self._take_back(pilot, [self._tasks[one] for one in ids if one in pilot.tasks])

    def _take_back(self, pilot: RemotePilot, tasks: List[Task]) -> None:
        self._ledger.back([task.id for task in tasks])
        for task in reversed(tasks):
            pilot.taken_from(task)
            task.came_back()
            self._wait(task, again=True)
            if task.withdrawn:
                self.end(task, "cancel", task.withdrawn)

    def withdraw(self, task: Task, pilot: RemotePilot, note: str) -> None:
        """Cancel a task that a pilot has."""
        task.withdrawn = note
        pilot.cancel(task, note)

    # -- what becomes of them

    def apply(self, pilot: RemotePilot, events: List[List[Any]]) -> None:
        """What a pilot tells: (task, name, timestamp, context)."""
        ended: List[str] = []
        for task_id, name, timestamp, context in events:
            task = self._tasks.get(task_id)
            if task is None or task.ended:
                continue
            self._reports.put((task_id, name, timestamp, context))
            if name == "start":
                self._drop_submission(task)
            elif name == "clean":
                self._drop_submission(task)
                task.ended = True
                pilot.taken_from(task)
                ended.append(task_id)
        if ended:
            self._ledger.ended(ended)

    def lost_with(self, pilot: RemotePilot, note: str) -> None:
        """A pilot is gone, with all that it had."""
        for task in [self._tasks[one] for one in pilot.tasks]:
            self.end(task, "lost", note)

    def end_waiting(self, kind: str, note: str) -> None:
        """End all that wait; see `end`."""
        for line in self.lines.values():
            for task in line.all():
                self.end(task, kind, note)

    def end(self, task: Task, kind: str, note: str) -> None:
        """End a task by an exception. No pilot has it, or its pilot cannot tell of it any more."""
        if task.ended:
            return
        waited = task.waits
        self._except(task, kind, note)
        if waited:
            self.lines[task.shape].left()

    def _except(self, task: Task, kind: str, note: str) -> None:
        self._drop_submission(task)
        task.ended = True
        self._ledger.exception(kind, note, task.id)
        self._reports.tell(task, "exception", {"type": kind, "severity": 0, "note": note})
        self._reports.tell(task, "clean", {})

    def _drop_submission(self, task: Task) -> None:
        """It is never sent again."""
        if task.submission is not None and task.submission.secret_env:
            self._ledger.remove_secret(task.id)
        task.submission = None

    def forget(self, task: Task) -> None:
        """Nobody asks for it any more."""
        del self._tasks[task.id]
        self._ledger.forget(task)

    # -- the disk

    def write(self) -> bool:
        """Returns whether all that a later agent has to know is on disk; if not, it is to be tried again."""
        try:
            self._ledger.flush()
        except OSError as err:
            log.warning("tasks wait, since what a later agent has to know cannot be written: %s", err.strerror)
            return False
        return True


def _reference(environment: SharedEnvironment) -> str:
    """A short name of an environment, the same for equal ones."""
    return hashlib.sha256(environment.text().encode("utf-8", "surrogatepass")).hexdigest()[:16]
