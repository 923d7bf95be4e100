"""Tasks of pilots and Flux's own jobs have their turns: neither waits for ever, and few holders are made."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executors.agent.pilot.shape import Shape
from tests.support.simulated_pilots import FluxJob, SimTask, Simulation

CORE, GPU = Shape(1, 0), Shape(1, 1)
#: Seconds in which what can run has begun, however long other tasks and jobs are.
SOON = 3.0


def waited(one: SimTask | FluxJob) -> float:
    """Seconds until it began."""
    assert one.started is not None, f"{one} has not begun"
    return one.started - one.submitted


def test_a_job_of_flux_gets_a_core_though_another_one_runs_for_long() -> None:
    simulation = Simulation(Shape(2, 0))
    simulation.job(CORE, 600.0)
    simulation.flood(CORE, 0.2, until=60.0)
    simulation.run(5.0)
    job = simulation.job(CORE, 1.0)
    simulation.run(20.0)
    assert waited(job) < SOON


def test_a_task_with_a_gpu_gets_one_though_a_job_of_flux_has_the_other() -> None:
    simulation = Simulation(Shape(4, 2))
    simulation.job(Shape(2, 1), 600.0)
    simulation.flood(CORE, 0.2, until=60.0)
    simulation.run(5.0)
    task = simulation.task(Shape(2, 1), 1.0)
    simulation.run(20.0)
    assert waited(task) < SOON


def test_a_task_with_a_gpu_gets_one_of_another_node_than_a_long_task_of_its_shape() -> None:
    simulation = Simulation(Shape(4, 1), Shape(4, 1))
    simulation.flood(CORE, 0.2, until=60.0)
    simulation.run(5.0)
    first = simulation.task(Shape(2, 1), 600.0)
    simulation.run(10.0)
    second = simulation.task(Shape(2, 1), 1.0)
    simulation.run(30.0)
    assert waited(first) < SOON and waited(second) < SOON


def test_what_is_to_go_with_a_long_task_is_in_nobodys_way() -> None:
    """A holder whose task takes long counts for no job that waits, nor does one that could not be had block Flux."""
    simulation = Simulation(Shape(4, 1), Shape(4, 1))
    simulation.task(Shape(2, 1), 600.0)
    simulation.run(1.0)
    simulation.flood(CORE, 0.2, until=400.0)
    simulation.run(30.0)
    task = simulation.task(Shape(2, 1), 1.0)
    simulation.run(40.0)
    job = simulation.job(CORE, 1.0)
    simulation.run(60.0)
    assert waited(task) < SOON and waited(job) < SOON


def test_a_wide_task_runs_between_narrow_ones_and_jobs_of_flux() -> None:
    simulation = Simulation(Shape(2, 0))
    simulation.job(CORE, 6.0)
    simulation.run(0.7)
    simulation.task(CORE, 3.0)
    simulation.run(1.4)
    wide = simulation.task(Shape(2, 0), 0.1)
    simulation.run(1.8)
    job = simulation.job(Shape(2, 0), 0.1)
    simulation.run(20.0)
    assert wide.ended and job.ended is not None


def test_a_wide_task_waits_for_no_node_that_is_full_of_others_jobs() -> None:
    simulation = Simulation(Shape(2, 0), Shape(2, 0))
    simulation.job(Shape(2, 0), 600.0)
    simulation.job(CORE, 3.0)
    simulation.run(1.0)
    wide = simulation.task(Shape(2, 0), 0.1)
    job = simulation.job(CORE, 1.0)
    simulation.run(10.0)
    assert wide.ended and waited(job) < 3.0 + SOON


@pytest.mark.parametrize("one", [CORE, GPU, Shape(2, 0)])
def test_a_task_has_one_holder(one: Shape) -> None:
    simulation = Simulation(Shape(4, 2))
    simulation.task(one, 3.0)
    simulation.run(2.0)
    assert simulation.holders_asked == 1
    assert simulation.free[0] == Shape(4, 2).plus(one, -1)


def test_holders_without_a_task_go_though_others_have_one() -> None:
    simulation = Simulation(Shape(8, 0))
    for _ in range(200):
        simulation.task(CORE, 0.05)
    simulation.task(CORE, 600.0)
    simulation.run(30.0)
    assert simulation.free[0] == Shape(7, 0)


def test_a_task_that_comes_while_jobs_of_flux_take_all_runs_with_the_first_core_that_comes() -> None:
    simulation = Simulation(Shape(2, 0))
    for second in range(40):
        simulation.run(second / 4)
        simulation.job(Shape(2, 0), 0.25)
    task = simulation.task(CORE, 0.1)
    simulation.run(30.0)
    assert task.ended and simulation.holders_asked <= 2


def test_tasks_of_several_shapes_run_beside_each_other_where_all_fit() -> None:
    simulation = Simulation(Shape(4, 2))
    simulation.flood(CORE, 0.1, until=20.0)
    simulation.flood(GPU, 0.1, until=20.0)
    simulation.run(20.0)
    ended = Counter(task.shape for task in simulation.tasks.values() if task.ended)
    assert simulation.holders_asked <= 6
    assert min(ended[CORE], ended[GPU]) > 300


@pytest.mark.parametrize(
    ("node", "first", "second"),
    [
        (Shape(4, 0), CORE, Shape(4, 0)),
        (Shape(8, 0), CORE, Shape(2, 0)),
        (Shape(2, 2), CORE, GPU),
        (Shape(4, 1), Shape(3, 1), GPU),
        (Shape(8, 4), Shape(2, 2), Shape(4, 1)),
    ],
)
def test_shapes_that_do_not_fit_beside_each_other_take_turns_of_a_second(
    node: Shape, first: Shape, second: Shape
) -> None:
    simulation = Simulation(node)
    simulation.flood(first, 0.1, until=60.0, waiting=30)
    simulation.flood(second, 0.1, until=60.0, waiting=10)
    simulation.run(60.0)
    ended = Counter(task.shape for task in simulation.tasks.values() if task.ended)
    assert min(ended[first], ended[second]) > 100, "one of them has had few turns"
    assert simulation.holders_asked <= 66 * max(node.times(first), node.times(second)), "turns come too often"


@pytest.mark.parametrize(("narrow", "wide"), [(20, 16), (16, 20)])
def test_more_urgent_tasks_have_most_of_the_cores(narrow: int, wide: int) -> None:
    simulation = Simulation(Shape(8, 0))
    simulation.flood(CORE, 0.1, until=30.0, urgency=narrow)
    simulation.flood(Shape(2, 0), 0.1, until=30.0, urgency=wide)
    simulation.run(30.0)
    used = Counter[Shape]()
    for task in simulation.tasks.values():
        used[task.shape] += task.shape.cores * task.ended
    more, less = (CORE, Shape(2, 0)) if narrow > wide else (Shape(2, 0), CORE)
    assert used[more] > 2 * used[less] > 0


def test_a_job_of_flux_each_second_costs_few_holders() -> None:
    simulation = Simulation(Shape(8, 0))
    simulation.flood(CORE, 0.1, until=60.0)
    jobs = []
    for second in range(5, 45):
        simulation.run(float(second))
        jobs.append(simulation.job(CORE, 0.5))
    simulation.run(60.0)
    assert max(map(waited, jobs)) < 1.0
    assert simulation.holders_asked <= 8 + 4 * len(jobs)


KINDS = [CORE, GPU, Shape(2, 0), Shape(4, 0), Shape(2, 1), Shape(3, 1), Shape(1, 2)]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.builds(Shape, st.sampled_from([2, 4]), st.integers(0, 2)), min_size=1, max_size=3),
    st.lists(st.sampled_from(KINDS), min_size=1, max_size=4),
    st.integers(0, 1_000_000),
)
def test_every_task_and_every_job_of_flux_ends(nodes: list[Shape], kinds: list[Shape], seed: int) -> None:
    chance = random.Random(seed)
    kinds = [one for one in kinds if any(node.holds(one) for node in nodes)] or [CORE]
    simulation = Simulation(*nodes)
    now = 0.0
    tasks, jobs = [], []
    for _ in range(60):
        now += chance.expovariate(3.0)
        simulation.run(now)
        if chance.random() < 0.2:
            jobs.append(simulation.job(chance.choice([*kinds, nodes[0]]), chance.choice([0.1, 1.0, 5.0])))
        else:
            tasks.append(simulation.task(chance.choice(kinds), chance.choice([0.05, 0.3, 2.0])))
        simulation.check()
    simulation.run(now + 400.0)
    assert all(task.ended for task in tasks), "a task waits for ever"
    assert all(job.ended is not None for job in jobs), "a job of Flux waits for ever"
    assert simulation.free == simulation.nodes, "something is held that no task needs"
