"""How cores are shared between pilots and Flux's own jobs, and which tasks pilots take: pure."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executors import JobRequest
from executors.agent.engine import Submission
from executors.agent.pilot.instance import PATIENCE, Change, Event, Instance, Stage
from executors.agent.pilot.line import Line, place_for
from executors.agent.pilot.share import Need, NodeShare, decide, gather, need_of
from executors.agent.pilot.sharing import LINGER, Sharing, Step
from executors.agent.pilot.takes import cores_of, why_flux
from executors.agent.pilot.task import Task
from executors.job import NO_INPUT, Defaults, Environments, prepare_submission


def jobspec(**fields: Any) -> dict[str, Any]:
    request = JobRequest(argv=fields.pop("argv", ["true"]), **fields)
    return prepare_submission(request, Defaults(), Environments({}), "/").jobspec


@pytest.mark.parametrize(
    "fields",
    [{}, {"cores_per_task": 4}, {"stdout": "/tmp/a", "stderr": "/tmp/b"}, {"duration": 5.0, "name": "x"}],
)
def test_a_plain_task_goes_to_a_pilot(fields: dict[str, Any]) -> None:
    assert why_flux(jobspec(**fields), 16, 4) is None


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"queue": "debug"}, "attribute or shell option queue"),
        ({"bank": "mine"}, "attribute or shell option bank"),
        ({"constraint": {"hostlist": ["a"]}}, "attribute or shell option constraints"),
        ({"nodes": 1}, "nodes, several tasks, or something else than cores"),
        ({"nodes": 2, "tasks": 2, "exclusive": True}, "nodes, several tasks, or something else than cores"),
        ({"tasks": 2}, "nodes, several tasks, or something else than cores"),
        ({"gpus_per_task": 1}, "nodes, several tasks, or something else than cores"),
        ({"cores_per_task": 5}, "it needs more cores than a node has"),
        ({"argv": ["flux", "start", "true"]}, "it may start an instance of Flux"),
        ({"argv": ["/usr/bin/flux", "batch", "x"]}, "it may start an instance of Flux"),
        ({"stdout": "/tmp/{{id}}.out"}, "the path of its output is a template"),
        ({"attributes": {"system.shell.options.mpi": "none"}}, "attribute or shell option mpi"),
        ({"attributes": {"system.dependencies": []}}, "attribute or shell option dependencies"),
        ({"attributes": {"user.mine": 1}}, "attribute or shell option user"),
    ],
)
def test_what_only_flux_gives_goes_to_flux(fields: dict[str, Any], why: str) -> None:
    assert why_flux(jobspec(**fields), 16, 4) == why


def test_a_held_job_and_a_jobspec_of_another_form_go_to_flux() -> None:
    assert why_flux(jobspec(), 0, 4) == "it is held"
    assert why_flux({"version": 1}, 16, 4) == "its jobspec is not of the usual form"


def test_an_empty_input_is_no_reason() -> None:
    assert why_flux(jobspec(attributes=NO_INPUT), 16, 4) is None


def test_the_cores_of_a_task_are_known() -> None:
    assert cores_of(jobspec(cores_per_task=3)) == 3
    assert cores_of(jobspec(tasks=2)) is None


@pytest.mark.parametrize(
    ("fields", "need"),
    [
        ({}, Need(1, 1, False)),
        ({"tasks": 3, "cores_per_task": 2}, Need(3, 2, False)),
        ({"tasks": 4, "nodes": 2}, Need(2, 2, True)),
        ({"tasks": 2, "nodes": 2, "exclusive": True}, Need(2, 0, True)),
    ],
)
def test_what_a_waiting_job_needs_is_read_of_its_resources(fields: dict[str, Any], need: Need) -> None:
    assert need_of(jobspec(**fields)["resources"]) == need


def test_tasks_ask_for_a_core_each_and_for_no_more_than_there_are() -> None:
    nodes = {0: NodeShare(2, 0, 0, True), 1: NodeShare(2, 0, 0, True), 2: NodeShare(2, 0, 0, False)}
    assert decide(nodes, 3, 0, []).ask == 3
    assert decide(nodes, 100, 0, []).ask == 4
    assert decide(nodes, 100, 4, []) == (0, 0, {})
    assert decide(nodes, 1, 4, []).withdraw == 3


def test_a_waiting_job_gets_room_where_it_needs_it_and_that_is_asked_for_again_behind_it() -> None:
    nodes = {0: NodeShare(2, 2, 0, True), 1: NodeShare(4, 4, 0, True)}
    assert decide(nodes, 100, 0, [Need(1, 3, False)]) == (3, 0, {1: 3})
    assert decide(nodes, 100, 0, [Need(2, 0, True)]) == (6, 0, {0: 2, 1: 4})
    assert decide(nodes, 100, 0, [Need(3, 1, False), Need(1, 2, False)]) == (5, 0, {0: 2, 1: 3})


def test_a_job_that_can_never_run_here_takes_no_core_away() -> None:
    nodes = {0: NodeShare(2, 2, 0, True)}
    assert decide(nodes, 100, 0, [Need(1, 3, False), Need(1, 1, False)]) == (0, 0, {})


def test_a_core_that_has_run_no_task_yet_stays_and_a_drained_node_loses_all() -> None:
    nodes = {0: NodeShare(2, 2, 2, True), 1: NodeShare(2, 2, 2, False)}
    assert decide(nodes, 100, 0, [Need(1, 2, False)]).release == {1: 2}


def test_cores_for_a_wide_task_are_gathered_where_most_are_held() -> None:
    nodes = {0: NodeShare(4, 1, 0, True), 1: NodeShare(4, 2, 0, True), 2: NodeShare(2, 2, 0, True)}
    assert gather(nodes, 3, {}) == {1: 1, 0: 2}
    assert gather(nodes, 3, {1: 1}) == {0: 2}
    assert gather(nodes, 2, {}) == {}


class Told:
    """What Flux has told of an instance, and the pilots there, for `Sharing`."""

    def __init__(self, cores: int) -> None:
        self.instance = Instance("fxp")
        self.instance.resource_event("restart", {"online": "0"}, [(0, cores)], lambda text: {int(text)})
        self.sharing = Sharing(self.instance)
        self.line = Line()
        self.pilot = Place(0, 0)
        self.count = 0

    def step(self, now: float) -> Step:
        return self.sharing.next_step(now, self.line, {0: self.pilot})

    def waits(self, cores: int = 1) -> Task:
        task = Task("x", None, "", "")
        task.cores = cores
        task.submission = Submission({}, 16)
        self.line.add(task)
        return task

    def event(self, job: int, name: str, now: float = 0.0, **more: Any) -> Change | None:
        context = {"priority": 16} if name == "priority" else {}
        return self.instance.job_event(Event(job, name, now, context, more.get("jobspec"), more.get("ranks", ())))

    def holder(self, named: int = -1) -> int:
        """A holder that was asked for is told of by Flux."""
        self.count += 1
        tag = {"suffix": "fxp", "named": named}
        change = self.event(self.count, "submit", jobspec={"attributes": {"user": {"fxh": tag}}})
        assert change is not None and change.stage is Stage.WAITS
        self.sharing.answered(change.holder.named)
        return self.count


def test_what_was_asked_for_is_not_asked_for_again_and_what_is_not_needed_is_withdrawn() -> None:
    told = Told(4)
    tasks = [told.waits() for _ in range(2)]
    assert told.step(0.0) == Step([], {-1: 2}, {}, None)
    assert told.sharing.is_asking
    assert told.step(0.0).ask == {}
    first, second = told.holder(), told.holder()
    assert not told.sharing.is_asking
    assert told.step(0.0).ask == {}
    tasks[0].ended = True
    told.line.left(tasks[0])
    assert told.step(0.0).withdraw == [second]
    told.event(second, "clean")
    assert told.step(0.0) == Step([], {}, {}, None)
    assert told.event(first, "alloc", ranks=(0,)) == Change(first, Stage.BEGAN, told.instance.holders[first])
    assert told.instance.has_holder_on(0) and not told.instance.has_holder_on(1)


def test_what_flux_refuses_may_be_asked_for_again() -> None:
    told = Told(4)
    told.waits()
    assert told.step(0.0).ask == {-1: 1}
    told.sharing.answered(-1)
    assert told.step(0.0).ask == {-1: 1}


def test_cores_without_tasks_are_kept_for_a_while_unless_a_job_waits_in_flux() -> None:
    told = Told(4)
    told.pilot = Place(2, 0)
    assert told.step(100.0) == Step([], {}, {}, LINGER)
    assert told.step(100.0 + LINGER / 2).release == {}
    assert told.step(100.0 + LINGER).release == {0: 2}
    told.waits()
    told.step(200.0)
    told.line = Line()
    assert told.step(300.0).release == {}, "the while begins with the last task"
    told.event(9, "submit", jobspec=jobspec_of_one_core())
    told.event(9, "priority", 300.0)
    assert told.step(300.0) == Step([], {}, {}, PATIENCE)
    assert told.step(300.0 + PATIENCE).release == {0: 2}


def test_a_wide_task_has_cores_gathered_for_it_on_a_node() -> None:
    told = Told(4)
    told.pilot = Place(1, 0)
    told.waits(3)
    assert told.step(0.0).ask == {-1: 2, 0: 2}
    told.holder(0)
    assert told.step(0.0).ask == {}


def jobspec_of_one_core() -> dict[str, Any]:
    return {**jobspec(), "attributes": {"system": {}}}


class Place:
    fresh = 0

    def __init__(self, cores: int, load: int) -> None:
        self.cores, self.load = cores, load


def test_a_pilot_is_sent_what_fits_and_one_task_more_for_each_core() -> None:
    assert place_for(1, [Place(2, 3)]) is not None
    assert place_for(1, [Place(2, 4)]) is None
    assert place_for(2, [Place(2, 0)]) is not None
    assert place_for(2, [Place(2, 1)]) is None
    assert place_for(1, [Place(0, 0)]) is None
    free = Place(2, 0)
    assert place_for(1, [Place(2, 2), free]) is free


class Simulation:
    """An instance whose scheduler is first in, first out, with pilots that follow the rule; a step is a moment."""

    def __init__(self, cores: list[int], chance: random.Random) -> None:
        self.cores = cores
        self.chance = chance
        self.free = list(cores)
        #: Flux's line: a need of a job, or None for a holder.
        self.line: list[tuple[int, Need | None]] = []
        self.count = 0
        self.running: list[tuple[int, list[tuple[int, int]]]] = []
        #: (node, tasks that it has run, is running one, is leaving)
        self.holders: list[list[Any]] = []
        self.started: set[int] = set()
        self.tasks = 0
        self.ran = 0

    def submit(self, need: Need) -> int:
        self.count += 1
        self.line.append((self.count, need))
        return self.count

    def schedule(self) -> None:
        while self.line:
            number, need = self.line[0]
            places = self.placed(need)
            if places is None:
                return
            self.line.pop(0)
            for node, cores in places:
                self.free[node] -= cores
                assert self.free[node] >= 0, "a core is promised twice"
            if need is None:
                self.holders.append([places[0][0], 0, False, False])
            else:
                self.started.add(number)
                self.running.append((number, places))

    def placed(self, need: Need | None) -> list[tuple[int, int]] | None:
        if need is None:
            best = max(range(len(self.free)), key=lambda node: self.free[node])
            return [(best, 1)] if self.free[best] else None
        free = list(self.free)
        places: list[tuple[int, int]] = []
        for node in range(len(free)):
            cores = need.cores or self.cores[node]
            while free[node] >= cores and len(places) < need.times:
                free[node] -= cores
                places.append((node, cores))
                if need.apart:
                    break
        return places if len(places) == need.times else None

    def pilots(self) -> None:
        for holder in self.holders:
            if not holder[2] and not holder[3] and self.tasks:
                holder[2] = True
                self.tasks -= 1
        waiting = [need for _, need in self.line if need is not None]
        nodes = {}
        for node, cores in enumerate(self.cores):
            here = [holder for holder in self.holders if holder[0] == node and not holder[3]]
            fresh = sum(1 for holder in here if holder[1] == 0) if self.tasks else 0
            nodes[node] = NodeShare(cores, len(here), fresh, True)
        wanted = self.tasks + sum(1 for holder in self.holders if holder[2])
        pending = sum(1 for _, need in self.line if need is None)
        ask, withdraw, release = decide(nodes, wanted, pending, waiting)
        for number in [number for number, need in reversed(self.line) if need is None][:withdraw]:
            self.line = [one for one in self.line if one[0] != number]
        for node, count in release.items():
            for holder in [one for one in self.holders if one[0] == node and not one[3] and one[1]][:count]:
                holder[3] = True
        for _ in range(ask):
            self.count += 1
            self.line.append((self.count, None))

    def step(self) -> None:
        for holder in self.holders:
            if holder[2] and self.chance.random() < 0.5:
                holder[1], holder[2] = holder[1] + 1, False
                self.ran += 1
        for holder in [one for one in self.holders if one[3] and not one[2]]:
            self.free[holder[0]] += 1
            self.holders.remove(holder)
        for job in [one for one in self.running if self.chance.random() < 0.3]:
            for node, cores in job[1]:
                self.free[node] += cores
            self.running.remove(job)
        self.pilots()
        self.schedule()
        self.check()

    def check(self) -> None:
        used = [self.cores[node] - self.free[node] for node in range(len(self.cores))]
        for _, places in self.running:
            for node, cores in places:
                used[node] -= cores
        for holder in self.holders:
            used[holder[0]] -= 1
        assert not any(used), "each core is free, a holder's, or a job's of Flux"


def fitting(cores: list[int], wishes: Iterable[tuple[int, int, bool]]) -> list[Need]:
    """Needs that this instance can serve when it is empty."""
    needs = [Need(times, size, apart) for times, size, apart in wishes]
    return [need for need in needs if Simulation(cores, random.Random()).placed(need) is not None]


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=3),
    st.lists(st.tuples(st.integers(1, 4), st.integers(0, 4), st.booleans()), max_size=6),
    st.randoms(use_true_random=False),
)
def test_no_job_of_flux_and_no_task_starves_and_no_core_is_promised_twice(
    cores: list[int], wishes: list[tuple[int, int, bool]], chance: random.Random
) -> None:
    needs = fitting(cores, wishes)
    simulation = Simulation(cores, chance)
    simulation.tasks = 1_000_000  # there are always tasks that wait
    jobs = []
    for need in needs:
        for _ in range(chance.randrange(20)):
            simulation.step()
        jobs.append(simulation.submit(need))
    for _ in range(3000):
        if simulation.started.issuperset(jobs):
            break
        simulation.step()
    assert simulation.started.issuperset(jobs), "a job of Flux starves"
    before = simulation.ran
    for _ in range(100):  # and under a stream of jobs of Flux, each of the whole instance, tasks run on
        if not any(need is not None for _, need in simulation.line):
            simulation.submit(Need(len(cores), 0, True))
        simulation.step()
    assert simulation.ran > before, "tasks starve"


def test_the_line_goes_by_urgency_and_what_comes_back_goes_first() -> None:
    line, tasks = Line(), []
    for name, urgency in [("a", 16), ("b", 20), ("c", 16)]:
        task = Task(name, None, "", "")
        task.submission = Submission({}, urgency)
        tasks.append(task)
        line.add(task)
    order = []
    while (first := line.first) is not None:
        order.append(first.id)
        first.rank = 0
        line.left(first)
    assert order == ["b", "a", "c"]
    assert (line.cores, bool(line)) == (0, False)
    tasks[0].rank = -1
    line.add(tasks[0])
    tasks[2].rank = -1
    line.add(tasks[2], again=True)
    assert line.first is tasks[2]
    tasks[2].ended = True
    line.left(tasks[2])
    assert [task.id for task in line.all()] == ["a"]
