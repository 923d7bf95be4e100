"""What a new agent makes of the pilots and tasks that the one before it has left: no process, no Flux."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from pathlib import Path
from typing import Any

import pytest

from executors.agent.engine import Entry, RecoveredJob, Submission
from executors.agent.pilot.instance import Event, Instance
from executors.agent.pilot.ledger import Ledger
from executors.agent.pilot.remote_pilot import RemotePilot
from executors.agent.pilot.reports import Reports
from executors.agent.pilot.shape import Shape
from executors.agent.pilot.takeover import Found, found, take_over
from executors.agent.pilot.task import Task
from executors.agent.pilot.tasks import Tasks

JOBSPEC = {"resources": [{"type": "slot", "count": 1, "with": [{"type": "core", "count": 1}]}]}
START = ["start", 1.0, {}]
RAN = [START, ["finish", 2.0, {"status": 0}], ["clean", 3.0, {}]]

CORE = Shape(1, 0)


def pilot(mark: str, **events: Any) -> RemotePilot:
    one = RemotePilot(1)
    one.hear({"inventory": list(events.items())}, int)
    one.hear({"complete": True, "mark": mark, "holders": [(1, "7", CORE)], "pid": 8, "to_leave": []}, int)
    return one


def task(rank: int = -1, mark: str = "", ended: bool = False, exception: tuple[str, str] | None = None) -> Task:
    one = Task("x", None, "", "")
    one.sent_to(rank, mark)
    one.ended = ended or exception is not None
    one.exception = exception
    return one


@pytest.mark.parametrize(
    ("one", "there", "what"),
    [
        (task(), None, Found.WAITS),
        (task(1, "m"), pilot("m", x=[START]), Found.THERE),
        (task(1, "m", ended=True), pilot("m", x=RAN), Found.THERE),
        (task(1, "m"), pilot("m"), Found.WAITS),
        (task(1, "m"), None, Found.LOST),
        (task(1, "m"), pilot("another", x=[START]), Found.LOST),
        (task(1, "m", ended=True), pilot("m"), Found.LOST),
        (task(exception=("cancel", "")), None, Found.ENDED),
        (task(1, "m", exception=("lost", "")), None, Found.ENDED),
    ],
    ids=[
        "was never sent", "runs", "has run", "was sent and has not arrived", "its pilot is gone",
        "its pilot was replaced", "was forgotten by its pilot", "was cancelled in the line",
        "was lost before",
    ],
)  # fmt: skip
def test_what_becomes_of_a_task(one: Task, there: RemotePilot | None, what: Found) -> None:
    assert found(one, there) is what


class Left:
    """Pilots that a former agent has left, and those that are started."""

    def __init__(self, *there: RemotePilot) -> None:
        self.pilots = {one.rank: one for one in there}
        self.started: list[int] = []
        self.is_open = False

    async def attach(self, ranks: Iterable[int]) -> None:
        self.asked = sorted(ranks)

    def open(self) -> None:
        self.is_open = True

    def start(self, rank: int) -> Awaitable[None]:
        self.started.append(rank)
        return asyncio.get_running_loop().create_future()


class Told:
    """An agent's tasks, and what its server is told of them."""

    def __init__(self, directory: Path) -> None:
        self.entries: list[Entry] = []
        self.jobs: list[str] = []
        self.reports = Reports()
        self.reports.begin(self.entries.extend, self.exists)
        self.tasks = Tasks(Ledger(str(directory)), self.reports)

    def exists(self, job: RecoveredJob) -> None:
        self.jobs.append(job.id)

    def events(self, task_id: str) -> list[str]:
        self.reports.flush()
        return [name for one, name, _, _ in self.entries if one == task_id][3:]  # after those of the line


def holder(instance: Instance, rank: int, job: int = 7) -> None:
    jobspec = {"attributes": {"user": {"fxh": {"suffix": "fxp", "named": -1, "shape": CORE}}}}
    instance.job_event(Event(job, "submit", 0.0, {}, jobspec, ()))
    instance.job_event(Event(job, "alloc", 0.0, {}, None, ((rank, CORE),)))


def test_an_end_that_was_told_is_told_again_as_it_was(tmp_path: Path) -> None:
    async def body() -> None:
        first = Told(tmp_path)
        [taken] = first.tasks.take(1, [Submission(JOBSPEC)])
        one = first.tasks.get(taken)
        assert one is not None
        first.tasks.end(one, "cancel", "not wanted")
        assert first.tasks.write()
        for _ in range(2):
            again = Told(tmp_path)
            await take_over(Ledger(str(tmp_path)).read(), again.tasks, Left(), Instance("fxp"))
            assert again.events(taken) == ["exception", "clean"]
            assert [context for _, name, _, context in again.entries if name == "exception"] == [
                {"type": "cancel", "severity": 0, "note": "not wanted"}
            ]
            assert again.tasks.lines == {}
            assert again.tasks.write()

    asyncio.run(body())


def test_each_task_is_told_of_and_what_waits_is_in_the_line(tmp_path: Path) -> None:
    async def body() -> None:
        first = Told(tmp_path)
        taken = first.tasks.take(1, [Submission(JOBSPEC, 16, name=str(number)) for number in range(4)])
        assert taken == ["p1.1", "p1.2", "p1.3", "p1.4"]
        living, gone = pilot("m"), RemotePilot(2)
        gone.hear({"complete": True, "mark": "n", "holders": [(1, "8", CORE)], "pid": 8, "to_leave": []}, int)
        living.hear({"held": [(2, "9", CORE)]}, int)
        assert first.tasks.send([living, gone])
        assert {task_id: one.tasks for one in (living, gone) for task_id in one.tasks}.keys() == {*taken}
        there = {one for one in taken if one in living.tasks}
        runs, *never_arrived = sorted(there)

        again = Told(tmp_path)
        left = Left(pilot("m", **{runs: [START]}))
        instance = Instance("fxp")
        holder(instance, 2)
        former = Ledger(str(tmp_path)).read()
        await take_over(former, again.tasks, left, instance)
        assert (left.asked, left.is_open, left.started) == ([1, 2], True, [2])
        assert again.jobs == taken
        assert again.events(runs) == ["start"]
        assert [one.id for one in again.tasks.lines[CORE].all()] == never_arrived
        for lost in set(taken) - there:
            assert again.events(lost) == ["exception", "clean"]
        assert left.pilots[1].tasks == {runs}
        assert again.tasks.take(2, [Submission(JOBSPEC)]) == ["p2.5"]

    asyncio.run(body())
