"""The way of a task between the line, pilots and its end; and what is known of a pilot. No process, no Flux."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from executors.agent.engine import Entry, SharedEnvironment, Submission
from executors.agent.pilot.ledger import Ledger
from executors.agent.pilot.line import crowded
from executors.agent.pilot.remote_pilot import RemotePilot
from executors.agent.pilot.reports import Reports
from executors.agent.pilot.shape import Shape
from executors.agent.pilot.task import Task
from executors.agent.pilot.tasks import Tasks
from executors.agent.pilot.wakeup import Wakeup

CORE, GPU = Shape(1, 0), Shape(2, 1)


def submission(slot: Shape = CORE, **fields: Any) -> Submission:
    inside = [{"type": kind, "count": count} for kind, count in zip(("core", "gpu"), slot, strict=True) if count]
    return Submission({"resources": [{"type": "slot", "count": 1, "with": inside}]}, **fields)


def pilot(cores: int = 1, rank: int = 0, gpus: int = 0) -> RemotePilot:
    one = RemotePilot(rank)
    held = [(number, str(100 * rank + number), CORE if number < cores else GPU) for number in range(cores + gpus)]
    one.hear({"complete": True, "mark": f"mark-{rank}", "holders": held, "pid": 8, "to_leave": []}, int)
    return one


def load(one: RemotePilot) -> int:
    return one.pool(CORE).load


def names(one: RemotePilot) -> list[str]:
    return [operation[0] for operation in one.take_operations()]


class Agent:
    def __init__(self, directory: Path) -> None:
        self.entries: list[Entry] = []
        self.reports = Reports()
        self.reports.begin(self.entries.extend, lambda _job: None)
        self.tasks = Tasks(Ledger(str(directory)), self.reports)

    def take(self, *submissions: Submission) -> list[Task]:
        known = [self.tasks.get(one) for one in self.tasks.take(1, list(submissions))]
        return [one for one in known if one is not None]

    def told(self, task: Task) -> list[tuple[str, Any]]:
        """What is told of a task after the events of the line: names, and the type of an exception."""
        self.reports.flush()
        of_it = [(name, context.get("type")) for one, name, _, context in self.entries if one == task.id]
        return of_it[3:]


@pytest.fixture
def agent(tmp_path: Path) -> Callable[[Callable[[Agent], None]], None]:
    """Runs a function of an agent's tasks on a loop."""

    def run(body: Callable[[Agent], None]) -> None:
        async def on_loop() -> None:
            body(Agent(tmp_path))

        asyncio.run(on_loop())

    return run


Run = Callable[[Callable[[Agent], None]], None]


def test_a_task_is_sent_once_and_its_end_frees_its_place(agent: Run) -> None:
    def body(one: Agent) -> None:
        there = pilot()
        first, second, third = one.take(*[submission() for _ in range(3)])
        assert one.tasks.send([there])
        assert (there.tasks, load(there), one.tasks.lines[CORE].count) == ({first.id, second.id}, 2, 1)
        assert names(there) == ["run", "run"]
        one.tasks.apply(there, [[first.id, "start", 1.0, {}], [first.id, "clean", 2.0, {}]])
        one.tasks.apply(there, [[first.id, "clean", 3.0, {}]])
        assert one.told(first) == [("start", None), ("clean", None)]
        assert one.tasks.send([there])
        assert (there.tasks, one.tasks.lines[CORE].count) == ({second.id, third.id}, 0)

    agent(body)


def test_what_a_pilot_gives_back_goes_first_and_what_was_cancelled_ends_then(agent: Run) -> None:
    def body(one: Agent) -> None:
        there = pilot(2)
        first, second, third = one.take(*[submission() for _ in range(3)])
        one.tasks.send([there])
        later = one.take(submission())[0]
        one.tasks.withdraw(second, there, "not wanted")
        one.tasks.given_back(there, [second.id, third.id])
        assert [task.id for task in one.tasks.lines[CORE].all()] == [third.id, later.id]
        assert one.told(second) == [("exception", "cancel"), ("clean", None)]
        assert (there.tasks, load(there), one.tasks.lines[CORE].count) == ({first.id}, 1, 2)

    agent(body)


def test_what_was_on_a_pilot_that_is_gone_is_lost_and_what_waits_stays(agent: Run) -> None:
    def body(one: Agent) -> None:
        there = pilot()
        first, second, third = one.take(*[submission() for _ in range(3)])
        one.tasks.send([there])
        one.tasks.lost_with(there, "it is gone")
        assert one.told(first) == one.told(second) == [("exception", "lost"), ("clean", None)]
        assert one.tasks.lines[CORE].all() == [third]
        one.tasks.end_waiting("alloc", "no pilots")
        assert one.told(third) == [("exception", "alloc"), ("clean", None)]
        assert one.tasks.lines[CORE].count == 0

    agent(body)


def test_nothing_is_sent_before_it_is_on_disk(agent: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def body(one: Agent) -> None:
        def full(_fd: int, _data: bytes) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        there = pilot()
        [task] = one.take(submission())
        with monkeypatch.context() as patched:
            patched.setattr(os, "write", full)
            assert not one.tasks.send([there])
        assert (names(there), load(there), one.tasks.lines[CORE].all()) == ([], 0, [task])
        assert one.tasks.send([there])
        assert names(there) == ["run"]

    agent(body)


def test_a_secret_is_on_disk_until_its_task_has_begun(agent: Run, tmp_path: Path) -> None:
    def body(one: Agent) -> None:
        there = pilot()
        begun, cancelled = one.take(*[submission(secret_env={"TOKEN": "x"}) for _ in range(2)])
        assert len([*tmp_path.glob("pilot-secret.*")]) == 2
        one.tasks.end(cancelled, "cancel", "")
        one.tasks.send([there])
        assert [path.name for path in tmp_path.glob("pilot-secret.*")] == [f"pilot-secret.{begun.id}"]
        one.tasks.apply(there, [[begun.id, "start", 1.0, {}]])
        assert not [*tmp_path.glob("pilot-secret.*")]

    agent(body)


def test_an_environment_is_sent_once_to_each_pilot(agent: Run) -> None:
    def body(one: Agent) -> None:
        there = pilot(2)
        shared = SharedEnvironment({"A": "1"})
        one.take(*[submission(environment=shared) for _ in range(2)], submission(environment=SharedEnvironment({})))
        one.tasks.send([there])
        assert names(there) == ["environment", "run", "run", "environment", "run"]

    agent(body)


def test_tasks_that_wait_in_one_pilot_come_back_when_another_has_a_free_core(agent: Run) -> None:
    def body(one: Agent) -> None:
        full = pilot(1)
        one.take(submission(), submission())
        one.tasks.send([full])
        names(full)
        one.tasks.send([full])
        assert names(full) == []
        one.tasks.send([full, pilot(1, rank=1)])
        one.tasks.send([full, pilot(1, rank=1)])
        assert names(full) == ["give_back"], "it is asked once"
        full.hear({"back": []}, int)
        assert crowded([full.pool(CORE), pilot(1, rank=1).pool(CORE)]) == [full.pool(CORE)]

    agent(body)


def test_cores_of_a_pilot_come_and_go() -> None:
    one = RemotePilot(3)
    one.hear({"held": [(1, "11", CORE)]}, int)
    assert not one.pools, "it has not told all that it has"
    told: list[Any] = [(1, "11", CORE), (2, "12", CORE), (4, "14", GPU)]
    one.hear({"complete": True, "mark": "m", "holders": told, "pid": 8, "to_leave": [(CORE, 1), (GPU, 0)]}, int)
    assert (one.is_ready, one.mark, held(one), one.holders) == (True, "m", {CORE: 1, GPU: 1}, {11, 12, 14})
    one.hear({"held": [(3, "13", CORE)], "leaving": [1]}, int)
    assert held(one) == {CORE: 1, GPU: 1}
    one.hear({"left": [1, 2]}, int)
    assert (held(one), one.holders) == ({CORE: 1, GPU: 1}, {13, 14})
    one.release(CORE, 2)
    one.hear({"stay": [(CORE, 1)]}, int)
    assert (held(one), names(one)) == ({CORE: 0, GPU: 1}, ["release"])


def held(one: RemotePilot) -> dict[Shape, int]:
    return {shape: pool.held for shape, pool in one.pools.items()}


def test_holders_without_a_task_are_idle_and_those_that_leave_keep_theirs() -> None:
    one = pilot(3)
    pool = one.pool(CORE)
    assert (pool.held, pool.idle, pool.staying) == (3, 3, 0)
    for number in range(2):
        task = Task(str(number), None, "", "")
        task.shape = CORE
        one.given(task)
    assert (pool.held, pool.idle, pool.staying) == (3, 1, 2)
    one.release(CORE, 2)
    one.hear({"left": [2]}, int)
    assert (pool.held, pool.leaving, pool.idle, pool.staying) == (1, 1, 0, 1)


def test_tasks_with_gpus_have_holders_and_a_line_of_their_own(agent: Run) -> None:
    def body(one: Agent) -> None:
        there = pilot(1, gpus=1)
        plain = one.take(*[submission() for _ in range(3)])
        wide, gpu, waits = one.take(submission(Shape(2, 0)), *[submission(GPU) for _ in range(2)])
        last = one.take(submission(GPU))[0]
        one.tasks.send([there])
        assert there.tasks == {plain[0].id, plain[1].id, gpu.id, waits.id}, "one for each holder, and one that waits"
        assert one.tasks.lines[CORE].all() == [plain[2]] and one.tasks.lines[GPU].all() == [last]
        assert one.tasks.lines[Shape(2, 0)].all() == [wide]
        assert (one.tasks.lines[CORE].count, one.tasks.lines[GPU].count) == (1, 1)
        one.tasks.apply(there, [[gpu.id, "start", 1.0, {}], [gpu.id, "clean", 2.0, {}]])
        one.tasks.send([there])
        assert last.id in there.tasks and plain[2].waits
        names(there)
        there.release(GPU, 1)
        assert names(there) == ["release", "give_back"], "those that wait for a core are given back, too"

    agent(body)


def task_of_a_core() -> Task:
    task = Task("x", None, "", "")
    task.shape = CORE
    return task


def test_a_pilot_without_cores_gives_back_what_waits_there() -> None:
    one = pilot(1)
    one.given(task_of_a_core())
    one.release(CORE, 1)
    assert names(one) == ["release", "give_back"]
    another = pilot(1)
    another.given(task_of_a_core())
    another.hear({"leaving": [0]}, int)
    assert names(another) == ["give_back"]


def test_a_function_is_called_once_for_all_who_want_it_soon() -> None:
    async def body() -> None:
        calls: list[int] = []
        wakeup = Wakeup(lambda: calls.append(1))
        wakeup.soon()
        wakeup.soon()
        wakeup.after(3600.0)
        wakeup.after(0.0)
        wakeup.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert calls == [1]

    asyncio.run(body())
