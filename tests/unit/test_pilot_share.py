"""How cores are shared between pilots and Flux's own jobs, and which tasks pilots take: pure."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executors import JobRequest
from executors.agent.engine import Submission
from executors.agent.pilot.instance import Change, Event, Instance, Stage
from executors.agent.pilot.line import Line, place_for
from executors.agent.pilot.shape import CORE, Shape
from executors.agent.pilot.share import Decision, Demand, Held, Need, NodeShare, decide, gather, need_of
from executors.agent.pilot.sharing import LINGER, PATIENCE, TURN, Sharing, Step
from executors.agent.pilot.takes import holders_for, slot_of, why_flux
from executors.agent.pilot.task import Task
from executors.job import NO_INPUT, Defaults, Environments, prepare_submission

NODES = [Shape(2, 2), Shape(4, 0)]


def jobspec(**fields: Any) -> dict[str, Any]:
    request = JobRequest(argv=fields.pop("argv", ["true"]), **fields)
    return prepare_submission(request, Defaults(), Environments({}), "/").jobspec


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"cores_per_task": 4},
        {"cores_per_task": 2, "gpus_per_task": 2},
        {"stdout": "/tmp/a", "stderr": "/tmp/b"},
        {"duration": 5.0, "name": "x"},
    ],
)
def test_a_plain_task_goes_to_a_pilot(fields: dict[str, Any]) -> None:
    assert why_flux(jobspec(**fields), 16, NODES, True) is None


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"queue": "debug"}, "attribute or shell option queue"),
        ({"bank": "mine"}, "attribute or shell option bank"),
        ({"constraint": {"hostlist": ["a"]}}, "attribute or shell option constraints"),
        ({"nodes": 1}, "nodes, several tasks, or something else than cores and GPUs"),
        ({"nodes": 2, "tasks": 2, "exclusive": True}, "nodes, several tasks, or something else than cores and GPUs"),
        ({"tasks": 2}, "nodes, several tasks, or something else than cores and GPUs"),
        ({"cores_per_task": 5}, "it needs more cores or GPUs than a node has"),
        ({"cores_per_task": 3, "gpus_per_task": 2}, "it needs more cores or GPUs than a node has"),
        ({"gpus_per_task": 3}, "it needs more cores or GPUs than a node has"),
        ({"gpus_per_task": 1, "tasks": 2}, "nodes, several tasks, or something else than cores and GPUs"),
        ({"argv": ["flux", "start", "true"]}, "it may start an instance of Flux"),
        ({"argv": ["/usr/bin/flux", "batch", "x"]}, "it may start an instance of Flux"),
        ({"stdout": "/tmp/{{id}}.out"}, "the path of its output is a template"),
        ({"attributes": {"system.shell.options.mpi": "none"}}, "attribute or shell option mpi"),
        ({"attributes": {"system.dependencies": []}}, "attribute or shell option dependencies"),
        ({"attributes": {"user.mine": 1}}, "attribute or shell option user"),
    ],
)
def test_what_only_flux_gives_goes_to_flux(fields: dict[str, Any], why: str) -> None:
    assert why_flux(jobspec(**fields), 16, NODES, True) == why


def test_a_held_job_and_a_jobspec_of_another_form_go_to_flux() -> None:
    assert why_flux(jobspec(), 0, NODES, True) == "it is held"
    assert why_flux({"version": 1}, 16, NODES, True) == "its jobspec is not of the usual form"


def test_an_empty_input_is_no_reason() -> None:
    assert why_flux(jobspec(attributes=NO_INPUT), 16, NODES, True) is None


def test_tasks_with_gpus_are_fluxes_until_it_has_given_one() -> None:
    """Its own simple scheduler gives none, though it knows of them."""
    assert why_flux(jobspec(gpus_per_task=1), 16, NODES, False) == "Flux has given no job here a GPU yet"
    assert why_flux(jobspec(), 16, NODES, False) is None
    told = Told(4)
    for job, gpus in [(1, 0), (2, 1)]:
        assert not told.instance.gives_gpus
        told.event(job, "submit", jobspec={**jobspec(gpus_per_task=gpus), "attributes": {}})
        told.event(job, "alloc", ranks=(0,))
    assert told.instance.gives_gpus


def test_the_cores_and_gpus_of_a_task_are_known() -> None:
    assert slot_of(jobspec(cores_per_task=3)) == Shape(3, 0)
    assert slot_of(jobspec(cores_per_task=3, gpus_per_task=2)) == Shape(3, 2)
    assert slot_of(jobspec(tasks=2)) is None
    core, gpu = {"type": "core", "count": 1}, {"type": "gpu", "count": 1}
    for inside in ([gpu], [core, core], [core, {"type": "memory", "count": 1}], [core, {"type": "gpu", "count": 0}]):
        assert slot_of({"resources": [{"type": "slot", "count": 1, "with": inside}]}) is None
    assert holders_for(Shape(3, 0)) == (CORE, 3)
    assert holders_for(Shape(3, 2)) == (Shape(3, 2), 1)


@pytest.mark.parametrize(
    ("fields", "need"),
    [
        ({}, Need(1, 1, False)),
        ({"tasks": 3, "cores_per_task": 2}, Need(3, 2, False)),
        ({"tasks": 4, "nodes": 2}, Need(2, 2, True)),
        ({"tasks": 2, "nodes": 2, "exclusive": True}, Need(2, 0, True)),
        ({"tasks": 2, "gpus_per_task": 3}, Need(2, 1, False, 3)),
        ({"tasks": 4, "nodes": 2, "gpus_per_task": 1}, Need(2, 2, True, 2)),
    ],
)
def test_what_a_waiting_job_needs_is_read_of_its_resources(fields: dict[str, Any], need: Need) -> None:
    assert need_of(jobspec(**fields)["resources"]) == need


def node(cores: int, held: int, fresh: int, usable: bool = True) -> NodeShare:
    return NodeShare(Shape(cores, 0), {CORE: Held(held, fresh)}, usable)


def of_cores(nodes: dict[int, NodeShare], wanted: int, pending: int, needs: list[Need]) -> Decision:
    return decide(nodes, {CORE: Demand(wanted, pending, needs)})[CORE]


def test_tasks_ask_for_a_core_each_and_for_no_more_than_there_are() -> None:
    nodes = {0: node(2, 0, 0), 1: node(2, 0, 0), 2: node(2, 0, 0, usable=False)}
    assert of_cores(nodes, 3, 0, []).ask == 3
    assert of_cores(nodes, 100, 0, []).ask == 4
    assert of_cores(nodes, 100, 4, []) == (0, 0, {})
    assert of_cores(nodes, 1, 4, []).withdraw == 3


def test_a_waiting_job_gets_room_where_it_needs_it_and_that_is_asked_for_again_behind_it() -> None:
    nodes = {0: node(2, 2, 0), 1: node(4, 4, 0)}
    assert of_cores(nodes, 100, 0, [Need(1, 3, False)]) == (3, 0, {1: 3})
    assert of_cores(nodes, 100, 0, [Need(2, 0, True)]) == (6, 0, {0: 2, 1: 4})
    assert of_cores(nodes, 100, 0, [Need(3, 1, False), Need(1, 2, False)]) == (5, 0, {0: 2, 1: 3})
    assert of_cores(nodes, 100, 0, [Need(1, 2, False, rank=0)]) == (2, 0, {0: 2})


def test_a_job_that_can_never_run_here_takes_no_core_away() -> None:
    nodes = {0: node(2, 2, 0)}
    assert of_cores(nodes, 100, 0, [Need(1, 3, False), Need(1, 1, False)]) == (0, 0, {})
    assert of_cores(nodes, 100, 0, [Need(1, 1, False, gpus=1), Need(1, 1, False)]) == (0, 0, {})


def test_a_core_that_has_run_no_task_yet_stays_and_a_drained_node_loses_all() -> None:
    nodes = {0: node(2, 2, 2), 1: node(2, 2, 2, usable=False)}
    assert of_cores(nodes, 100, 0, [Need(1, 2, False)]).release == {1: 2}


GPU = Shape(2, 1)


def test_tasks_with_gpus_get_holders_of_their_shape_and_the_others_ask_for_what_is_left() -> None:
    nodes = {0: NodeShare(Shape(8, 2), {}, True), 1: NodeShare(Shape(4, 0), {}, True)}
    decisions = decide(nodes, {CORE: Demand(100, 0, []), GPU: Demand(100, 0, [])})
    assert {shape: one.ask for shape, one in decisions.items()} == {CORE: 8, GPU: 2}
    decisions = decide(nodes, {CORE: Demand(100, 0, []), GPU: Demand(1, 0, [])})
    assert {shape: one.ask for shape, one in decisions.items()} == {CORE: 10, GPU: 1}
    full = {0: NodeShare(Shape(2, 1), {}, True)}
    decisions = decide(full, {CORE: Demand(100, 0, []), GPU: Demand(100, 0, [])})
    assert decisions[CORE].ask == 1, "tasks without GPUs always ask for one"


def test_holders_of_several_shapes_give_no_more_than_what_is_needed_those_of_a_core_first() -> None:
    has = Shape(4, 2)
    nodes = {0: NodeShare(has, {CORE: Held(2, 0), Shape(1, 1): Held(2, 0)}, True)}

    def released(*needs: Need) -> dict[Shape, dict[int, int]]:
        demand = Demand(100, 0, needs)
        return {shape: one.release for shape, one in decide(nodes, {CORE: demand, Shape(1, 1): demand}).items()}

    assert released(Need(1, 1, False)) == {CORE: {0: 1}, Shape(1, 1): {}}
    assert released(Need(1, 3, False)) == {CORE: {0: 2}, Shape(1, 1): {0: 1}}
    assert released(Need(1, 1, False, 1)) == {CORE: {}, Shape(1, 1): {0: 1}}
    assert released(Need(1, 0, True)) == {CORE: {0: 2}, Shape(1, 1): {0: 2}}


def test_cores_for_a_wide_task_are_gathered_where_most_are_held() -> None:
    nodes = {0: node(4, 1, 0), 1: node(4, 2, 0), 2: node(2, 2, 0)}
    assert gather(nodes, 3, {}) == {1: 1, 0: 2}
    assert gather(nodes, 3, {1: 1}) == {0: 2}
    assert gather(nodes, 2, {}) == {}


class Told:
    """What Flux has told of an instance, and the pilots there, for `Sharing`."""

    def __init__(self, cores: int, gpus: int = 0) -> None:
        self.instance = Instance("fxp")
        nodes = [(0, Shape(cores, gpus))]
        self.instance.resource_event("restart", {"online": "0"}, nodes, lambda text: {int(text)})
        self.sharing = Sharing(self.instance)
        self.lines: dict[Shape, Line] = {}
        self.pilot = Pilot({})
        self.count = 0

    def step(self, now: float) -> Step:
        step = self.sharing.next_step(now, self.lines, {0: self.pilot})
        return step._replace(again=None if step.again is None else round(step.again, 3))

    def waits(self, holders: int = 1, shape: Shape = CORE) -> Task:
        task = Task("x", None, "", "")
        task.shape, task.holders = shape, holders
        task.submission = Submission({}, 16)
        self.lines.setdefault(shape, Line()).add(task)
        return task

    def event(self, job: int, name: str, now: float = 0.0, **more: Any) -> Change | None:
        context = {"priority": 16} if name == "priority" else {}
        return self.instance.job_event(Event(job, name, now, context, more.get("jobspec"), more.get("ranks", ())))

    def holder(self, named: int = -1, shape: Shape = CORE) -> int:
        """A holder that was asked for is told of by Flux."""
        self.count += 1
        tag = {"suffix": "fxp", "named": named, "shape": [*shape]}
        change = self.event(self.count, "submit", jobspec={"attributes": {"user": {"fxh": tag}}})
        assert change is not None and change.stage is Stage.WAITS
        self.sharing.answered(change.holder.shape, change.holder.named)
        return self.count


def test_what_was_asked_for_is_not_asked_for_again_and_what_is_not_needed_is_withdrawn() -> None:
    told = Told(4)
    tasks = [told.waits() for _ in range(2)]
    assert told.step(0.0) == Step([], {(CORE, -1): 2}, {}, None)
    assert told.sharing.is_asking
    assert told.step(0.0).ask == {}
    first, second = told.holder(), told.holder()
    assert not told.sharing.is_asking
    assert told.step(0.0).ask == {}
    tasks[0].ended = True
    told.lines[CORE].left(tasks[0])
    assert told.step(0.0).withdraw == [second]
    told.event(second, "clean")
    assert told.step(0.0) == Step([], {}, {}, None)
    assert told.event(first, "alloc", ranks=(0,)) == Change(first, Stage.BEGAN, told.instance.holders[first])
    assert told.instance.has_holder_on(0) and not told.instance.has_holder_on(1)


def test_what_flux_refuses_may_be_asked_for_again() -> None:
    told = Told(4)
    told.waits()
    assert told.step(0.0).ask == {(CORE, -1): 1}
    told.sharing.answered(CORE, -1)
    assert told.step(0.0).ask == {(CORE, -1): 1}


def test_cores_without_tasks_are_kept_for_a_while_unless_a_job_waits_in_flux() -> None:
    told = Told(4)
    told.pilot = Pilot({CORE: Place(2, 0)})
    assert told.step(100.0) == Step([], {}, {}, LINGER)
    assert told.step(100.0 + LINGER / 2).release == {}
    assert told.step(100.0 + LINGER).release == {(0, CORE): 2}
    told.waits()
    told.step(200.0)
    told.lines = {}
    assert told.step(300.0).release == {}, "the while begins with the last task"
    told.event(9, "submit", jobspec=jobspec_of_one_core())
    told.event(9, "priority", 300.0)
    assert told.step(300.0) == Step([], {}, {}, PATIENCE)
    assert told.step(300.0 + PATIENCE).release == {(0, CORE): 2}


def test_a_wide_task_has_cores_gathered_for_it_on_a_node() -> None:
    told = Told(4)
    told.pilot = Pilot({CORE: Place(1, 0)})
    told.waits(3)
    assert told.step(0.0).ask == {(CORE, -1): 2, (CORE, 0): 2}
    told.holder(0)
    assert told.step(0.0).ask == {}


def jobspec_of_one_core() -> dict[str, Any]:
    return {**jobspec(), "attributes": {"system": {}}}


class Place:
    fresh = 0

    def __init__(self, held: int, load: int) -> None:
        self.held, self.load = held, load


class Pilot:
    def __init__(self, pools: dict[Shape, Place]) -> None:
        self.pools = pools


def test_holders_of_another_shape_make_room_at_once_without_tasks_and_take_turns_with_them() -> None:
    told = Told(2, gpus=1)
    told.pilot = Pilot({CORE: Place(2, 0)})
    told.waits(shape=GPU)
    assert told.step(0.0) == Step([], {(GPU, -1): 1}, {}, LINGER)
    waits = told.holder(shape=GPU)
    told.event(waits, "priority", 0.0)
    assert told.step(0.0).again == PATIENCE
    assert told.step(PATIENCE).release == {(0, CORE): 2}
    told.pilot = Pilot({CORE: Place(2, 2)})
    told.waits()
    assert told.step(PATIENCE) == Step([], {}, {}, round(TURN - PATIENCE, 3))
    assert told.step(TURN) == Step([], {(CORE, -1): 1}, {(0, CORE): 2}, None)
    told.event(waits, "alloc", ranks=(0,))
    told.pilot = Pilot({CORE: Place(0, 0), GPU: Place(1, 1)})
    behind = told.holder()
    told.event(behind, "priority", TURN)
    assert told.step(TURN) == Step([], {}, {}, TURN)
    assert told.step(2 * TURN).release == {(0, GPU): 1}


def test_a_pilot_is_sent_what_fits_and_one_task_more_for_each_core() -> None:
    assert place_for(1, [Place(2, 3)]) is not None
    assert place_for(1, [Place(2, 4)]) is None
    assert place_for(2, [Place(2, 0)]) is not None
    assert place_for(2, [Place(2, 1)]) is None
    assert place_for(1, [Place(0, 0)]) is None
    free = Place(2, 0)
    assert place_for(1, [Place(2, 2), free]) is free


class Holder:
    """In the simulation."""

    def __init__(self, node: int, shape: Shape) -> None:
        self.node = node
        self.shape = shape
        #: Tasks that it has run.
        self.ran = 0
        self.is_running = False
        self.is_leaving = False


class Simulation:
    """An instance whose scheduler is first in, first out, with pilots that follow the rule; a step is a moment."""

    def __init__(self, nodes: list[Shape], chance: random.Random) -> None:
        self.nodes = nodes
        self.chance = chance
        self.free = list(nodes)
        #: Flux's line: the need of a job, or the shape of a holder.
        self.line: list[tuple[int, Need | Shape]] = []
        self.count = 0
        self.running: list[tuple[int, list[tuple[int, Shape]]]] = []
        self.holders: list[Holder] = []
        self.started: set[int] = set()
        #: Tasks that wait, and those that have run, by the shape of their holders.
        self.tasks: dict[Shape, int] = {}
        self.ran: dict[Shape, int] = {}

    def submit(self, one: Need | Shape) -> int:
        self.count += 1
        self.line.append((self.count, one))
        return self.count

    def schedule(self) -> None:
        while self.line:
            number, one = self.line[0]
            places = self.placed(one)
            if places is None:
                return
            self.line.pop(0)
            for node, each in places:
                self.free[node] = less(self.free[node], each)
            if isinstance(one, Shape):
                self.holders.append(Holder(places[0][0], one))
            else:
                self.started.add(number)
                self.running.append((number, places))

    def placed(self, one: Need | Shape) -> list[tuple[int, Shape]] | None:
        need = Need(1, one.cores, False, one.gpus) if isinstance(one, Shape) else one
        free = list(self.free)
        places: list[tuple[int, Shape]] = []
        for node in sorted(range(len(free)), key=lambda node: -free[node].cores):
            each = Shape(need.cores, need.gpus) if need.cores else self.nodes[node]
            while free[node].holds(each) and len(places) < need.times:
                free[node] = less(free[node], each)
                places.append((node, each))
                if need.apart:
                    break
        return places if len(places) == need.times else None

    def pilots(self) -> None:
        for holder in self.holders:
            if not holder.is_running and not holder.is_leaving and self.tasks[holder.shape]:
                holder.is_running = True
                self.tasks[holder.shape] -= 1
        nodes = {}
        for node, has in enumerate(self.nodes):
            here = [holder for holder in self.holders if holder.node == node and not holder.is_leaving]
            held = {}
            for shape, waiting in self.tasks.items():
                of_it = [holder for holder in here if holder.shape == shape]
                held[shape] = Held(len(of_it), sum(1 for holder in of_it if holder.ran == 0) if waiting else 0)
            nodes[node] = NodeShare(has, held, True)
        for shape, decision in decide(nodes, {shape: self.demand(shape) for shape in self.tasks}).items():
            self.follow(shape, decision)

    def demand(self, shape: Shape) -> Demand:
        wanted = self.tasks[shape] + sum(1 for one in self.holders if one.shape == shape and one.is_running)
        needs = [
            Need(1, one.cores, False, one.gpus) if isinstance(one, Shape) else one
            for _, one in self.line if one != shape
        ]  # fmt: skip
        return Demand(wanted, sum(1 for _, one in self.line if one == shape), needs)

    def follow(self, shape: Shape, decision: Decision) -> None:
        for number in [number for number, one in reversed(self.line) if one == shape][: decision.withdraw]:
            self.line = [one for one in self.line if one[0] != number]
        for node, count in decision.release.items():
            here = [one for one in self.holders if one.node == node and one.shape == shape and not one.is_leaving]
            for holder in [one for one in here if one.ran][:count]:
                holder.is_leaving = True
        for _ in range(decision.ask):
            self.submit(shape)

    def step(self) -> None:
        for holder in self.holders:
            if holder.is_running and self.chance.random() < 0.5:
                holder.ran += 1
                holder.is_running = False
                self.ran[holder.shape] = self.ran.get(holder.shape, 0) + 1
        for holder in [one for one in self.holders if one.is_leaving and not one.is_running]:
            self.free[holder.node] = more(self.free[holder.node], holder.shape)
            self.holders.remove(holder)
        for job in [one for one in self.running if self.chance.random() < 0.3]:
            for node, each in job[1]:
                self.free[node] = more(self.free[node], each)
            self.running.remove(job)
        self.pilots()
        self.schedule()
        self.check()

    def check(self) -> None:
        used = [less(has, free) for has, free in zip(self.nodes, self.free, strict=True)]
        for _, places in self.running:
            for node, each in places:
                used[node] = less(used[node], each)
        for holder in self.holders:
            used[holder.node] = less(used[holder.node], holder.shape)
        assert used == [Shape(0, 0)] * len(used), "each core and GPU is free, a holder's, or a job's of Flux"


def less(one: Shape, other: Shape) -> Shape:
    assert one.holds(other), "a core or a GPU is promised twice"
    return Shape(one.cores - other.cores, one.gpus - other.gpus)


def more(one: Shape, other: Shape) -> Shape:
    return Shape(one.cores + other.cores, one.gpus + other.gpus)


def fits(nodes: list[Shape], one: Need | Shape) -> bool:
    """Whether this instance can serve it when it is empty."""
    return Simulation(nodes, random.Random()).placed(one) is not None


def shapes(most_cores: int) -> st.SearchStrategy[Shape]:
    return st.builds(Shape, st.integers(1, most_cores), st.integers(0, 2))


@settings(max_examples=100, deadline=None)
@given(
    st.lists(shapes(4), min_size=1, max_size=3),
    st.lists(st.builds(Need, st.integers(1, 4), st.integers(0, 4), st.booleans(), st.integers(0, 2)), max_size=6),
    st.lists(st.builds(Shape, st.integers(1, 3), st.integers(1, 2)), max_size=2),
    st.randoms(use_true_random=False),
)
def test_no_job_of_flux_and_no_task_starves_and_no_core_is_promised_twice(
    nodes: list[Shape], wishes: list[Need], kinds: list[Shape], chance: random.Random
) -> None:
    simulation = Simulation(nodes, chance)
    for shape in [CORE, *kinds]:
        if fits(nodes, shape):
            simulation.tasks[shape] = 1_000_000  # there are always tasks that wait
    jobs = []
    for need in [one for one in wishes if fits(nodes, one)]:
        for _ in range(chance.randrange(20)):
            simulation.step()
        jobs.append(simulation.submit(need))
    for _ in range(3000):
        if simulation.started.issuperset(jobs):
            break
        simulation.step()
    assert simulation.started.issuperset(jobs), "a job of Flux starves"
    before = dict(simulation.ran)
    for _ in range(300):  # and under a stream of jobs of Flux, each of the whole instance, tasks of all kinds run on
        if not any(isinstance(one, Need) for _, one in simulation.line):
            simulation.submit(Need(len(nodes), 0, True))
        simulation.step()
    assert all(simulation.ran[shape] > before.get(shape, 0) for shape in simulation.tasks), "tasks starve"


def test_tasks_of_several_kinds_run_beside_each_other_where_all_fit() -> None:
    """Holders are made once, and do not take turns."""
    simulation = Simulation([Shape(4, 2)], random.Random(1))
    simulation.tasks = {CORE: 1_000_000, Shape(1, 1): 1_000_000}
    for _ in range(200):
        simulation.step()
    assert simulation.count == 4
    assert {shape: ran > 150 for shape, ran in simulation.ran.items()} == {CORE: True, Shape(1, 1): True}


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
    assert (line.holders, bool(line)) == (0, False)
    tasks[0].rank = -1
    line.add(tasks[0])
    tasks[2].rank = -1
    line.add(tasks[2], again=True)
    assert line.first is tasks[2]
    tasks[2].ended = True
    line.left(tasks[2])
    assert [task.id for task in line.all()] == ["a"]
