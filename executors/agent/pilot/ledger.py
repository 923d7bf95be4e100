"""What an agent's successor has to know of the tasks that pilots take: a file that is written before they are sent.

A record is a JSON line. The file is in segments: one goes when all tasks that it began with are forgotten.
"""

from __future__ import annotations

import json
import os
from typing import Any, Dict, List, Optional, Set

from ..engine import SharedEnvironment, Submission
from .shape import Shape
from .task import Task

#: Bytes after which the next segment is begun.
SEGMENT = 4 * 1024 * 1024


class Ledger:
    """``directory``: the agent's own, private one."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._fd = -1
        self._segment = 0
        self._size = 0
        self._lines: List[str] = []
        self._environments: Set[str] = set()
        #: Tasks that are not forgotten, of each segment.
        self._counts: Dict[int, int] = {}

    def next_epoch(self) -> int:
        """The epoch of this agent: one more than that of the agent before it, and on disk. Raises OSError."""
        path = os.path.join(self._directory, "pilot.epoch")
        try:
            with open(path, encoding="ascii") as text:
                epoch = int(text.read()) + 1
        except FileNotFoundError:
            epoch = 1
        with open(path + ".new", "w", encoding="ascii") as text:
            text.write(str(epoch))
        os.rename(path + ".new", path)
        return epoch

    def read(self) -> List[Task]:
        """What a former agent has written, in the order in which it was taken."""
        tasks: Dict[str, Task] = {}
        environments: Dict[str, SharedEnvironment] = {}
        for number in self._numbers():
            self._segment = number
            with open(self._path(number), encoding="utf-8", errors="surrogateescape") as lines:
                for line in lines:
                    if line.endswith("\n"):  # else the agent died while it wrote, and has not sent it
                        self._apply(json.loads(line), tasks, environments, number)
        for task in tasks.values():
            self._counts[task.segment] = self._counts.get(task.segment, 0) + 1
        self._drop_empty()
        return list(tasks.values())

    def _apply(
        self, record: List[Any], tasks: Dict[str, Task], environments: Dict[str, SharedEnvironment], number: int
    ) -> None:
        kind = record[0]
        if kind == "environment":
            environments[record[1]] = SharedEnvironment(record[2])
        elif kind == "task":
            _, task_id, key, digest, name, urgency, shape, reference, jobspec, has_secret = record
            task = tasks[task_id] = Task(task_id, key, digest, name)
            task.shape, task.environment, task.segment = Shape(*shape), reference, number
            secret = self._read_secret(task_id) if has_secret else None
            task.submission = Submission(
                jobspec, urgency, key, digest, name, secret, environment=environments.get(reference)
            )
        else:
            for task in (tasks[one] for one in record[-1] if one in tasks):
                if kind == "sent":
                    task.sent_to(record[1], record[2])
                elif kind == "back":
                    task.came_back()
                elif kind == "ended":
                    task.ended = True
                elif kind == "exception":
                    task.ended = True
                    task.exception = (record[1], record[2])

    # -- writing; but for `take`, nothing is on disk before `flush`

    def take(self, tasks: List[Task]) -> None:
        """Write down new tasks. Raises OSError where that cannot be done; then it is as before."""
        self.flush()
        added: List[Task] = []
        try:
            for task in tasks:
                self._add(task)
                added.append(task)
            self.flush()
        except OSError:
            self._lines = []
            self._environments = set()  # they may not be on disk
            for task in tasks:
                self.remove_secret(task.id)
            for task in added:
                self._counts[task.segment] -= 1
            raise

    def _add(self, task: Task) -> None:
        submission = task.submission
        assert submission is not None
        if self._fd < 0 or self._size > SEGMENT:
            self._begin()
        if submission.environment is not None and task.environment not in self._environments:
            self._environments.add(task.environment)
            self._put(["environment", task.environment, submission.environment.values])
        if submission.secret_env:
            self._write_secret(task.id, submission.secret_env)
        task.segment = self._segment
        self._counts[self._segment] += 1
        self._put(["task", task.id, task.key, task.digest, task.name, submission.urgency, task.shape,
                   task.environment, submission.jobspec, bool(submission.secret_env)])  # fmt: skip

    def sent(self, rank: int, mark: str, ids: List[str]) -> None:
        self._put(["sent", rank, mark, ids])

    def back(self, ids: List[str]) -> None:
        """A pilot has given these back without having begun them."""
        self._put(["back", ids])

    def ended(self, ids: List[str]) -> None:
        """A pilot has told of their ends."""
        self._put(["ended", ids])

    def exception(self, kind: str, note: str, task_id: str) -> None:
        """The agent has ended this one by an exception."""
        self._put(["exception", kind, note, [task_id]])

    def flush(self) -> None:
        """Raises OSError; what could not be written waits for the next time."""
        if not self._lines:
            return
        if self._fd < 0:
            self._begin()
        data = "".join(self._lines).encode("utf-8", "surrogateescape")
        end = os.lseek(self._fd, 0, os.SEEK_END)
        try:
            left = data
            while left:
                left = left[os.write(self._fd, left) :]
        except OSError:
            os.ftruncate(self._fd, end)  # no half line, which the next one would continue
            raise
        self._lines = []
        self._size += len(data)

    def forget(self, task: Task) -> None:
        """Nobody asks for this task any more."""
        self._counts[task.segment] -= 1
        if not self._counts[task.segment] and task.segment != self._segment:
            self._drop_empty()

    def remove_secret(self, task_id: str) -> None:
        try:
            os.unlink(self._secret_path(task_id))
        except FileNotFoundError:
            pass

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    # -- how

    def _put(self, record: List[Any]) -> None:
        self._lines.append(json.dumps(record, separators=(",", ":"), ensure_ascii=True) + "\n")

    def _begin(self) -> None:
        pending, self._lines = self._lines, []
        if self._fd >= 0:
            self._lines = pending
            self.flush()
            pending = []
            os.close(self._fd)
        self._segment += 1
        self._counts[self._segment] = 0
        self._environments = set()
        self._size = 0
        self._fd = os.open(self._path(self._segment), os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._lines = pending
        self._drop_empty()

    def _drop_empty(self) -> None:
        """Oldest first: a later segment may say of a task of an earlier one that it was sent."""
        for number in self._numbers():
            if self._counts.get(number, 0) or (number == self._segment and self._fd >= 0):
                return
            self._counts.pop(number, None)
            os.unlink(self._path(number))

    def _numbers(self) -> List[int]:
        prefix = "pilot-tasks."
        return sorted(int(name[len(prefix) :]) for name in os.listdir(self._directory) if name.startswith(prefix))

    def _path(self, number: int) -> str:
        return os.path.join(self._directory, "pilot-tasks.%d" % number)

    def _secret_path(self, task_id: str) -> str:
        return os.path.join(self._directory, "pilot-secret.%s" % task_id)

    def _write_secret(self, task_id: str, secret: Dict[str, str]) -> None:
        fd = os.open(self._secret_path(task_id), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w", encoding="utf-8") as out:
            json.dump(secret, out)

    def _read_secret(self, task_id: str) -> Optional[Dict[str, str]]:
        try:
            with open(self._secret_path(task_id), encoding="utf-8") as text:
                secret: Dict[str, str] = json.load(text)
                return secret
        except FileNotFoundError:
            return None  # a pilot has it
