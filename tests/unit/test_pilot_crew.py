"""How pilots come, are lost and replaced. No process, no Flux."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from executors.agent.engine import EndReason, EngineError, Entry, Submission
from executors.agent.pilot.crew import Crew
from executors.agent.pilot.instance import Event, Instance
from executors.agent.pilot.ledger import Ledger
from executors.agent.pilot.messages import Answer, Told
from executors.agent.pilot.reports import Reports
from executors.agent.pilot.shape import Shape
from executors.agent.pilot.task import Task
from executors.agent.pilot.tasks import Tasks

JOBSPEC = {"resources": [{"type": "slot", "count": 1, "with": [{"type": "core", "count": 1}]}]}
CORE = Shape(1, 0)
COMPLETE: Told = {"complete": True, "mark": "m", "holders": [(1, "7", CORE)], "pid": 8, "to_leave": []}


class Way:
    """To pilots: what is asked, by rank, and how to answer."""

    def __init__(self) -> None:
        self.failed: dict[int, Callable[[str], None]] = {}
        self.told: dict[int, Callable[[Told], None]] = {}
        self.lost: dict[int, Callable[[str], None]] = {}
        self.started: list[int] = []
        self.killed: list[tuple[int, int]] = []
        self.calls: list[tuple[int, list[Any], Callable[[Answer], None], Callable[[str], None]]] = []

    def start(self, rank: int, failed: Callable[[str], None]) -> None:
        self.started.append(rank)
        self.failed[rank] = failed

    def attach(self, rank: int, is_starting: bool, told: Callable[[Told], None], lost: Callable[[str], None]) -> None:
        self.told[rank], self.lost[rank] = told, lost

    def call(
        self, rank: int, operations: list[Any], answered: Callable[[Answer], None], lost: Callable[[str], None]
    ) -> None:
        self.calls.append((rank, operations, answered, lost))

    def end_by_force(self, rank: int, pid: int) -> None:
        self.killed.append((rank, pid))

    def number_of(self, job_id: str) -> int:
        return int(job_id)


class Agent:
    """A crew, with what it owns and what owns it."""

    def __init__(self, directory: Path) -> None:
        self.entries: list[Entry] = []
        self.reports = Reports()
        self.reports.begin(self.entries.extend, lambda _job: None)
        self.tasks = Tasks(Ledger(str(directory)), self.reports)
        self.instance = Instance("fxp")
        self.instance.resource_event("restart", {"online": "0"}, [(0, CORE)], lambda _: {0, 1, 2})
        self.way = Way()
        self.crew = Crew(self.way, self.instance, self.tasks, self)
        self.changes = 0
        self.off = ""

    def changed(self) -> None:
        self.changes += 1

    def turn_off(self, reason: str) -> None:
        self.off = reason

    def holder(self, rank: int, job: int = 7) -> None:
        jobspec = {"attributes": {"user": {"fxh": {"suffix": "fxp", "named": -1, "shape": CORE}}}}
        self.instance.job_event(Event(job, "submit", 0.0, {}, jobspec, ()))
        self.instance.job_event(Event(job, "alloc", 0.0, {}, None, ((rank, CORE),)))

    def open(self, rank: int = 0) -> None:
        """A pilot is there, and no former agent has left anything."""
        self.crew.open()
        self.crew.start(rank)
        self.way.told[rank](COMPLETE)

    def sent(self) -> Task:
        """A task that the pilot has."""
        [task_id] = self.tasks.take(1, [Submission(JOBSPEC)])
        self.tasks.send(self.crew.usable())
        self.crew.flush()
        task = self.tasks.get(task_id)
        assert task is not None and task.rank >= 0
        return task

    def told(self, task: Task) -> list[str]:
        self.reports.flush()
        return [name for one, name, _, _ in self.entries if one == task.id][3:]


Run = Callable[[Callable[[Agent], Awaitable[None]]], None]


@pytest.fixture
def agent(tmp_path: Path) -> Run:
    def run(body: Callable[[Agent], Awaitable[None]]) -> None:
        async def on_loop() -> None:
            await body(Agent(tmp_path))

        asyncio.run(on_loop())

    return run


def test_a_start_is_over_when_the_pilot_has_told_what_it_has(agent: Run) -> None:
    async def body(one: Agent) -> None:
        started = asyncio.ensure_future(one.crew.start(0))
        one.way.told[0]({"inventory": []})
        await asyncio.sleep(0)
        assert not started.done() and not one.crew.usable()
        one.way.told[0](COMPLETE)
        await started
        assert [pilot.rank for pilot in one.crew.usable()] == [0]
        assert (one.crew.holders(), one.off) == ({7}, "")

    agent(body)


@pytest.mark.parametrize("how", ["is refused", "never answers", "is ending"])
def test_a_pilot_that_does_not_come_is_waited_for_no_more(agent: Run, how: str) -> None:
    async def body(one: Agent) -> None:
        started = one.crew.start(0)
        if how == "is refused":
            one.way.failed[0]("no such program")
        elif how == "never answers":
            one.way.lost[0]("Function not implemented")
        else:
            one.way.told[0]({"error": "it is ending"})
        await started
        assert not one.crew.pilots

    agent(body)


def test_an_agent_that_takes_over_does_not_wait_for_pilots_that_are_gone(agent: Run) -> None:
    async def body(one: Agent) -> None:
        attached = asyncio.ensure_future(one.crew.attach([0, 1, 2]))
        await asyncio.sleep(0)
        one.way.told[0]({"inventory": [("x", [["start", 1.0, {}]])]})
        one.way.told[0](COMPLETE)
        one.way.told[0]({"events": [["x", "finish", 2.0, {}]]})
        one.way.lost[1]("Function not implemented")
        one.way.told[2]({"error": "it is ending"})
        await attached
        assert [*one.crew.pilots] == [0]
        assert one.crew.pilots[0].inventory == {"x": [["start", 1.0, {}], ["finish", 2.0, {}]]}
        assert one.way.started == []
        one.crew.open()
        assert one.crew.pilots[0].inventory == {}

    agent(body)


def test_after_some_starts_that_fail_in_a_row_it_is_given_up(agent: Run) -> None:
    async def body(one: Agent) -> None:
        for _ in range(2):
            one.crew.start(1)
            one.way.failed[1]("no")
        one.open()
        one.way.told[0]({"ended": True})
        for left in (2, 1, 0):
            assert one.off == ""
            one.crew.start(1)
            one.way.failed[1]("no")
            assert bool(one.off) == (left == 0)

    agent(body)


def test_starts_that_fail_beside_a_pilot_that_works_are_no_reason_to_give_up(agent: Run) -> None:
    async def body(one: Agent) -> None:
        one.open()
        for _ in range(5):
            one.crew.start(1)
            one.way.failed[1]("no")
        assert one.off == ""

    agent(body)


def test_a_pilot_that_is_lost_loses_its_tasks_and_is_replaced_where_a_holder_waits_for_it(agent: Run) -> None:
    async def body(one: Agent) -> None:
        one.open()
        one.holder(0)
        task = one.sent()
        [(rank, operations, _, lost)] = one.way.calls
        assert (rank, [operation[0] for operation in operations]) == (0, ["run"])
        before = one.changes
        lost("No route to host")
        assert one.told(task) == ["exception", "clean"]
        assert one.way.started == [0, 0] and not one.crew.usable()
        assert one.changes > before
        one.way.lost[0]("this one is starting")
        assert not one.crew.usable()

    agent(body)


def test_a_start_that_fails_where_a_core_is_held_is_tried_again(agent: Run) -> None:
    """Nothing else would start a pilot there, and what waits would wait for ever."""

    async def body(one: Agent) -> None:
        one.crew.open()
        one.holder(0)
        one.crew.start(0)
        for left in (2, 1, 0):
            assert (one.off, list(one.crew.pilots)) == ("", [0])
            one.way.failed[0]("there is one on this node")
            assert bool(one.off) == (left == 0)
        assert (one.way.started, list(one.crew.pilots)) == ([0, 0, 0], [])

    agent(body)


def test_what_the_former_process_of_a_node_says_late_is_not_taken_for_its_successors(agent: Run) -> None:
    async def body(one: Agent) -> None:
        one.open()
        one.holder(0)
        former = one.way.told[0]
        former({"ended": True})
        one.way.told[0](COMPLETE)
        task = one.sent()
        former({"events": [[task.id, "clean", 1.0, {}]], "ended": True})
        assert one.told(task) == [] and one.crew.usable()

    agent(body)


def test_nothing_is_started_at_the_end(agent: Run) -> None:
    async def body(one: Agent) -> None:
        one.open()
        one.holder(0)
        one.crew.start_no_more()
        one.crew.end(EndReason.SIGNAL)
        assert one.way.calls[-1][1] == [["end", "signal"]]
        one.way.told[0]({"ended": True})
        assert (one.way.started, [*one.crew.pilots]) == ([0], [])

    agent(body)


def test_a_pilot_that_ends_before_it_could_be_listened_to_is_not_waited_for(agent: Run) -> None:
    async def body(one: Agent) -> None:
        one.crew.open()
        one.crew.start(0)
        one.crew.start_no_more()
        one.crew.end(EndReason.REQUESTED)
        [(rank, operations, answered, _)] = one.way.calls
        assert (rank, operations) == (0, [["end", "requested"]])
        before = one.changes
        answered({})
        assert (one.way.started, [*one.crew.pilots]) == ([0], [])
        assert one.changes > before

    agent(body)


def test_a_pilot_that_does_not_end_is_killed(agent: Run) -> None:
    async def body(one: Agent) -> None:
        one.open()
        one.open(1)
        one.crew.start_no_more()
        one.crew.end(EndReason.SIGNAL)
        one.way.told[0]({"ended": True})
        one.crew.end_by_force()
        assert one.way.killed == [(1, 8)]
        one.way.lost[1]("No route to host")
        assert not one.crew.pilots

    agent(body)


def test_a_pilot_that_has_come_while_it_was_told_to_end_is_waited_for(agent: Run) -> None:
    async def body(one: Agent) -> None:
        one.crew.open()
        one.crew.start(0)
        one.crew.start_no_more()
        one.crew.end(EndReason.REQUESTED)
        one.way.told[0](COMPLETE)
        one.way.calls[0][2]({})
        assert [*one.crew.pilots] == [0]
        one.way.told[0]({"ended": True})
        assert not one.crew.pilots

    agent(body)


def test_who_waits_for_the_end_hears_of_a_pilot_that_does_not_come(agent: Run) -> None:
    async def body(one: Agent) -> None:
        one.crew.open()
        one.crew.start(0)
        before = one.changes
        one.way.lost[0]("Function not implemented")
        assert one.changes > before and not one.crew.pilots

    agent(body)


def test_a_signal_is_answered_as_the_pilot_answers_it(agent: Run) -> None:
    async def body(one: Agent) -> None:
        one.open()
        task = one.sent()
        one.crew.pilots[0].release(CORE, 1)
        first, second, third = (one.crew.kill(task, 15) for _ in range(3))
        calls = one.way.calls[-3:]
        assert [operations for _, operations, _, _ in calls] == [[["kill", task.id, 15]]] * 3
        calls[0][2]({})
        await first
        calls[1][2]({"errors": {"0": ["it has not begun", "not-possible"]}})
        with pytest.raises(EngineError, match="it has not begun"):
            await second
        calls[2][3]("No route to host")
        with pytest.raises(EngineError, match="the pilot is gone: No route to host"):
            await third
        with pytest.raises(EngineError, match="is not running"):
            await one.crew.kill(task, 15)

    agent(body)


def test_a_pilot_whose_holder_has_ended_unheard_is_asked_whether_it_lives(agent: Run) -> None:
    async def body(one: Agent) -> None:
        one.open()
        one.crew.holder_ended(0, 8)
        one.crew.holder_ended(5, 7)
        assert one.way.calls == []
        one.crew.holder_ended(0, 7)
        assert [(rank, operations) for rank, operations, _, _ in one.way.calls] == [(0, [])]

    agent(body)
