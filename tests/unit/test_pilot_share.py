"""How cores are shared between pilots and Flux's own jobs, and which tasks pilots take: pure."""

from __future__ import annotations

from typing import Any

import pytest

from executors import JobRequest
from executors.agent.engine import Submission
from executors.agent.pilot.instance import Change, Event, Instance, Stage
from executors.agent.pilot.line import Line, place_for_next
from executors.agent.pilot.pool import Pool
from executors.agent.pilot.shape import Shape
from executors.agent.pilot.share import Claim, Demand, Gives, Held, Need, NodeShare, limits, need_of, room_for
from executors.agent.pilot.sharing import LINGER, PATIENCE, PAUSE, TURN, Sharing, Step
from executors.agent.pilot.takes import slot_of, why_flux
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
    """Schedulers know of GPUs that give none."""
    assert why_flux(jobspec(gpus_per_task=1), 16, NODES, False) == "Flux has given no job here a GPU yet"
    assert why_flux(jobspec(), 16, NODES, False) is None
    told = Told(4)
    for job, gpus in [(1, 0), (2, 1)]:
        assert not told.instance.gives_gpus
        told.job(job, gpus_per_task=gpus)
        told.event(job, "alloc", nodes=((0, Shape(1, gpus)),))
    assert told.instance.gives_gpus


def test_the_cores_and_gpus_of_a_task_are_known() -> None:
    assert slot_of(jobspec(cores_per_task=3)) == Shape(3, 0)
    assert slot_of(jobspec(cores_per_task=3, gpus_per_task=2)) == Shape(3, 2)
    assert slot_of(jobspec(tasks=2)) is None
    core, gpu = {"type": "core", "count": 1}, {"type": "gpu", "count": 1}
    for inside in ([gpu], [core, core], [core, {"type": "memory", "count": 1}], [core, {"type": "gpu", "count": 0}]):
        assert slot_of({"resources": [{"type": "slot", "count": 1, "with": inside}]}) is None


@pytest.mark.parametrize(
    ("fields", "need"),
    [
        ({}, Need(1, Shape(1, 0), False)),
        ({"tasks": 3, "cores_per_task": 2}, Need(3, Shape(2, 0), False)),
        ({"tasks": 4, "nodes": 2}, Need(2, Shape(2, 0), True)),
        ({"tasks": 2, "nodes": 2, "exclusive": True}, Need(2, Shape(0, 0), True)),
        ({"tasks": 2, "gpus_per_task": 3}, Need(2, Shape(1, 3), False)),
        ({"tasks": 4, "nodes": 2, "gpus_per_task": 1}, Need(2, Shape(2, 2), True)),
    ],
)
def test_what_a_waiting_job_needs_is_read_of_its_resources(fields: dict[str, Any], need: Need) -> None:
    assert need_of(jobspec(**fields)["resources"]) == need


CORE, GPU = Shape(1, 0), Shape(2, 1)


def node(has: Shape, *, free: int = 0, cores: int = 0, idle: int = 0, gpus: int = 0) -> NodeShare:
    """``cores`` and ``gpus``: holders of one core, and of the shape `GPU`."""
    held = {CORE: Held(cores, idle), GPU: Held(gpus, 0)}
    return NodeShare(has, Shape(free, 0), held)


def claim(times: int, cores: int, gpus: int = 0, *, apart: bool = False, gives: Gives = Gives.ALL) -> Claim:
    return Claim(Need(times, Shape(cores, gpus), apart), None, gives)


def test_a_waiting_job_gets_room_where_it_needs_it() -> None:
    nodes = {0: node(Shape(2, 0), cores=2), 1: node(Shape(4, 0), cores=4)}
    assert room_for([claim(1, 3)], nodes) == {(1, CORE): 3}
    assert room_for([claim(2, 0, apart=True)], nodes) == {(0, CORE): 2, (1, CORE): 4}
    assert room_for([claim(3, 1), claim(1, 2)], nodes) == {(1, CORE): 3, (0, CORE): 2}
    assert room_for([claim(2, 2, apart=True)], nodes) == {(1, CORE): 2, (0, CORE): 2}


def test_what_is_free_is_taken_first_and_what_others_have_is_not_counted() -> None:
    nodes = {0: node(Shape(4, 0), cores=4), 1: node(Shape(4, 0), free=1, cores=1)}
    assert room_for([claim(1, 1)], nodes) == {}
    assert room_for([claim(1, 2)], nodes) == {(0, CORE): 2}
    assert room_for([claim(1, 0, apart=True)], {1: nodes[1]}) == {}, "others have two cores there"


def test_a_job_that_has_no_room_now_takes_no_core_away_and_those_behind_it_wait() -> None:
    nodes = {0: node(Shape(2, 0), cores=2)}
    assert room_for([claim(1, 3), claim(1, 1)], nodes) == {}
    assert room_for([claim(1, 1, 1), claim(1, 1)], nodes) == {}
    assert room_for([claim(1, 3, gives=Gives.NONE), claim(1, 1)], nodes) == {(0, CORE): 1}, "it may find room by itself"


def test_room_is_made_where_the_constraint_of_a_job_lets_it_be() -> None:
    nodes = {0: node(Shape(2, 0), free=1, cores=1), 1: node(Shape(2, 0), cores=2)}
    assert room_for([Claim(Need(1, CORE, False, frozenset([1])), None, Gives.ALL)], nodes) == {(1, CORE): 1}
    assert room_for([Claim(Need(1, CORE, False, frozenset()), None, Gives.ALL), claim(1, 2)], nodes) == {}


def test_jobs_wait_in_the_order_of_their_priorities_and_their_constraints_are_read() -> None:
    instance = Instance("fxp")
    read: list[Any] = []

    def matching(constraint: Any) -> frozenset[int]:
        read.append(constraint)
        return frozenset([1])

    nodes = [(0, Shape(4, 0)), (1, Shape(4, 0))]
    instance.resource_event("restart", {"online": "0"}, nodes, lambda text: {int(text)}, matching)
    for job, (priority, fields) in enumerate([(16, {}), (20, {"constraint": {"hostlist": ["a"]}}), (16, {})]):
        instance.job_event(Event(job, "submit", 0.0, {}, jobspec(cores_per_task=1 + job, **fields), ()))
        instance.job_event(Event(job, "priority", 1.0, {"priority": priority}, None, ()))
    for _ in range(2):
        waiting = [(one.need.each.cores, one.need.ranks) for one in instance.waiting(True)]
        assert waiting == [(2, frozenset([1])), (1, None), (3, None)]
    assert read == [{"hostlist": ["a"]}]
    instance.job_event(Event(2, "priority", 2.0, {"priority": 31}, None, ()))
    assert [one.need.each.cores for one in instance.waiting(True)] == [3, 2, 1]
    assert instance.waiting(True)[0].since == 1.0


def test_holders_give_room_to_no_holder_of_their_shape_and_to_others_perhaps_only_idle_ones() -> None:
    nodes = {0: node(Shape(4, 1), cores=4, idle=1)}
    need = Need(1, CORE, False)
    assert room_for([Claim(need, CORE, Gives.ALL)], nodes) == {}
    assert room_for([Claim(need, GPU, Gives.IDLE)], nodes) == {(0, CORE): 1}
    assert room_for([Claim(Need(1, Shape(2, 0), False), GPU, Gives.IDLE)], nodes) == {}


def test_holders_of_several_shapes_give_no_more_than_what_is_needed_those_of_a_core_first() -> None:
    nodes = {0: node(Shape(6, 2), cores=2, gpus=2)}
    assert room_for([claim(1, 1)], nodes) == {(0, CORE): 1}
    assert room_for([claim(1, 3)], nodes) == {(0, CORE): 2, (0, GPU): 1}
    assert room_for([claim(1, 1, 1)], nodes) == {(0, GPU): 1}
    assert room_for([claim(1, 3, 1)], nodes) == {(0, CORE): 1, (0, GPU): 1}
    assert room_for([claim(1, 0, apart=True)], nodes) == {(0, CORE): 2, (0, GPU): 2}


def test_tasks_ask_for_no_more_than_others_leave_of_the_nodes() -> None:
    nodes = [Shape(2, 0), Shape(2, 0)]
    assert limits({CORE: Demand(3, 16)}, nodes, nodes) == {CORE: 3}
    assert limits({CORE: Demand(100, 16)}, nodes, nodes) == {CORE: 4}
    assert limits({CORE: Demand(100, 16)}, nodes, [Shape(2, 0), Shape(1, 0)]) == {CORE: 3}
    assert limits({CORE: Demand(100, 16)}, nodes, [Shape(0, 0), Shape(0, 0)]) == {CORE: 1}, "to have its turn"
    assert limits({Shape(3, 0): Demand(100, 16)}, nodes, nodes) == {Shape(3, 0): 0}


def test_the_more_urgent_and_then_the_larger_tasks_ask_first_and_each_shape_for_one() -> None:
    nodes = [Shape(8, 2), Shape(4, 0)]
    assert limits({CORE: Demand(100, 16), GPU: Demand(100, 16)}, nodes, nodes) == {CORE: 8, GPU: 2}
    assert limits({CORE: Demand(100, 16), GPU: Demand(1, 16)}, nodes, nodes) == {CORE: 10, GPU: 1}
    assert limits({CORE: Demand(100, 20), GPU: Demand(100, 16)}, nodes, nodes) == {CORE: 12, GPU: 1}
    full = [Shape(2, 1)]
    assert limits({CORE: Demand(100, 16), GPU: Demand(100, 16)}, full, full) == {CORE: 1, GPU: 1}


class Told:
    """What Flux has told of an instance, and the pilots there, for `Sharing`."""

    def __init__(self, cores: int, gpus: int = 0) -> None:
        self.instance = Instance("fxp")
        nodes = [(0, Shape(cores, gpus))]
        self.instance.resource_event("restart", {"online": "0"}, nodes, lambda text: {int(text)})
        self.sharing = Sharing(self.instance)
        self.lines: dict[Shape, Line] = {}
        self.pools: dict[Shape, Pool] = {}
        self.count = 0

    def step(self, now: float) -> Step:
        step = self.sharing.next_step(now, self.lines, {0: self})
        return step._replace(again=None if step.again is None else round(step.again, 3))

    def has(self, shape: Shape, held: int, load: int = 0) -> None:
        """The pilot has so many holders, with their tasks."""
        self.pools[shape] = Pool(0)
        self.pools[shape].load = load
        for number in range(held):
            self.pools[shape].came(number)
            self.event(self.holder(shape, told=True), "alloc", nodes=((0, shape),))

    def waits(self, shape: Shape = CORE) -> Task:
        task = Task("x", None, "", "")
        task.shape = shape
        task.submission = Submission({}, 16)
        self.lines.setdefault(shape, Line()).add(task)
        return task

    def event(self, job: int, name: str, now: float = 0.0, **more: Any) -> Change | None:
        context = {"priority": 16} if name == "priority" else {}
        return self.instance.job_event(Event(job, name, now, context, more.get("jobspec"), more.get("nodes", ())))

    def job(self, job: int, now: float = 0.0, **fields: Any) -> None:
        """One of others waits."""
        self.event(job, "submit", now, jobspec={**jobspec(**fields), "attributes": {"system": {}}})
        self.event(job, "priority", now)

    def holder(self, shape: Shape = CORE, *, told: bool = False) -> int:
        """A holder that was asked for is told of by Flux."""
        self.count += 1
        tag = {"suffix": "fxp", "shape": [*shape]}
        change = self.event(self.count, "submit", jobspec={"attributes": {"user": {"fxh": tag}}})
        assert change is not None and change.stage is Stage.WAITS
        self.sharing.answered(shape)
        if told:
            self.instance.told_of(self.count)
        return self.count


def test_what_was_asked_for_is_not_asked_for_again_and_what_is_not_needed_is_withdrawn() -> None:
    told = Told(4)
    tasks = [told.waits() for _ in range(2)]
    assert told.step(0.0) == Step([], {CORE: 2}, {}, None)
    assert told.sharing.is_asking
    assert told.step(0.0).ask == {}
    first, second = told.holder(), told.holder()
    assert not told.sharing.is_asking
    assert told.step(0.0).ask == {}
    tasks[0].ended = True
    told.lines[CORE].left()
    assert told.step(0.0).withdraw == [second]
    told.event(second, "clean")
    assert told.step(0.0).withdraw == []
    assert told.event(first, "alloc", nodes=((0, CORE),)) == Change(first, Stage.BEGAN, told.instance.holders[first])
    assert told.instance.has_holder_on(0) and not told.instance.has_holder_on(1)


def test_a_holder_counts_from_when_it_is_asked_for_until_it_ends() -> None:
    """Between its beginning in Flux and the pilot's word of it, too."""
    told = Told(4)
    told.waits()
    assert told.step(0.0).ask == {CORE: 1}
    job = told.holder()
    for name in ("priority", "alloc"):
        told.event(job, name, nodes=((0, CORE),))
        assert told.step(0.0).ask == {}
    told.instance.told_of(job)
    told.instance.told_of(job)
    assert told.step(0.0).ask == {CORE: 1}, "its pilot has let it go, as far as is known here"
    told.event(told.holder(), "finish")
    assert told.step(0.0).ask == {CORE: 1}


def test_what_flux_refuses_may_be_asked_for_again() -> None:
    told = Told(4)
    told.waits()
    assert told.step(0.0).ask == {CORE: 1}
    told.sharing.answered(CORE)
    assert told.step(0.0).ask == {CORE: 1}


def test_holders_without_tasks_are_kept_for_a_while_unless_a_job_waits_in_flux() -> None:
    told = Told(2)
    told.has(CORE, 2)
    assert told.step(100.0) == Step([], {}, {}, LINGER)
    assert told.step(100.0 + LINGER / 2).release == {}
    told.pools[CORE].load = 1
    assert told.step(100.0 + LINGER * 0.7).release == {}
    told.pools[CORE].load = 0
    assert told.step(100.0 + LINGER).release == {(0, CORE): 1}, "one has had a task meanwhile"
    told = Told(2)
    told.has(CORE, 2)
    told.job(9, 200.0)
    assert told.step(200.0).again == PATIENCE
    assert told.step(200.0 + PATIENCE).release == {(0, CORE): 1}


def test_a_drained_node_loses_all_its_holders() -> None:
    told = Told(2)
    told.has(CORE, 2, load=2)
    told.instance.drained.add(0)
    assert told.step(0.0).release == {(0, CORE): 2}


def test_holders_of_another_shape_make_room_after_a_pause_without_tasks_and_take_turns_with_them() -> None:
    told = Told(2, gpus=1)
    told.has(CORE, 2)
    told.waits(GPU)
    assert told.step(0.0).ask == {GPU: 1}
    told.event(told.holder(GPU), "priority")
    assert told.step(0.0).again == PATIENCE
    assert told.step(PATIENCE).release == {}, "the next task may be on its way"
    assert told.step(PAUSE).release == {(0, CORE): 2}
    told = Told(2, gpus=1)
    told.has(CORE, 2, load=4)
    told.waits(GPU)
    told.event(told.holder(GPU), "priority")
    assert told.step(PAUSE).release == {}
    assert told.step(TURN).release == {(0, CORE): 2}


def test_a_holder_that_others_jobs_wait_behind_gets_room_as_soon_as_they_do() -> None:
    told = Told(2, gpus=1)
    told.has(CORE, 2, load=4)
    told.waits(GPU)
    told.event(told.holder(GPU), "priority")
    told.job(50, 0.1)
    assert told.step(0.1).release == {}
    assert told.step(0.1 + PATIENCE).release == {(0, CORE): 2}


def test_what_is_to_go_is_waited_for_and_then_others_go_in_its_place() -> None:
    told = Told(4)
    told.has(CORE, 4, load=4)
    told.job(50, 0.0)
    assert told.step(1.0).release == {(0, CORE): 1}
    told.pools[CORE].leaving = 1
    assert told.step(1.5) == Step([], {}, {}, TURN / 2)
    assert told.step(1.0 + TURN).release == {(0, CORE): 1}


class Place:
    def __init__(self, held: int, load: int) -> None:
        self.held, self.load = held, load


def test_a_pilot_is_sent_what_fits_and_one_task_more_for_each_holder() -> None:
    assert place_for_next([Place(2, 3)]) is not None
    assert place_for_next([Place(2, 4)]) is None
    assert place_for_next([Place(0, 0)]) is None
    free = Place(2, 0)
    assert place_for_next([Place(2, 2), free]) is free


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
        line.left()
    assert order == ["b", "a", "c"]
    assert line.count == 0
    tasks[0].rank = -1
    line.add(tasks[0])
    tasks[2].rank = -1
    line.add(tasks[2], again=True)
    assert line.first is tasks[2]
    tasks[2].ended = True
    line.left()
    assert [task.id for task in line.all()] == ["a"]
