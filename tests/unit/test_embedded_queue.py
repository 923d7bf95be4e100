"""Who runs next on one machine: the embedded engine's queue, without processes."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from executors.agent.embedded.job import ENDED, RUNNING, LocalJob
from executors.agent.embedded.plan import read_jobspec
from executors.agent.embedded.queue import Queue
from executors.agent.engine import Submission


def job(name: str, cores: int = 1, gpus: int = 0, urgency: int = 16) -> LocalJob:
    parts = [{"type": "core", "count": cores}, *([{"type": "gpu", "count": gpus}] if gpus else [])]
    spec = {
        "version": 1,
        "resources": [{"type": "slot", "count": 1, "label": "task", "with": parts}],
        "tasks": [{"command": ["true"], "slot": "task", "count": {"per_slot": 1}}],
        "attributes": {"system": {}},
    }
    return LocalJob(name, read_jobspec(spec, "/"), Submission(spec, urgency), "/spool")


def run_all(queue: Queue) -> list[str]:
    taken = []
    while (one := queue.take()) is not None:
        one.state = RUNNING
        taken.append(one.id)
    return taken


def test_jobs_go_in_order_of_urgency_and_then_as_they_came() -> None:
    queue = Queue(range(10), [])
    for name, urgency in [("a", 16), ("b", 20), ("c", 16), ("d", 1)]:
        queue.add(job(name, urgency=urgency))
    assert run_all(queue) == ["b", "a", "c", "d"]


def test_the_head_of_the_line_blocks_the_others() -> None:
    queue = Queue(range(2), [])
    first, wide, small = job("first"), job("wide", cores=2), job("small")
    for one in (first, wide, small):
        queue.add(one)
    assert run_all(queue) == ["first"]
    queue.give_back(first)
    assert run_all(queue) == ["wide"]
    queue.give_back(wide)
    assert run_all(queue) == ["small"]


def test_a_job_that_has_ended_in_the_line_blocks_nobody() -> None:
    queue = Queue(range(1), [])
    wide, small = job("wide", gpus=1), job("small")
    queue.add(wide)
    queue.add(small)
    assert run_all(queue) == []
    wide.state = ENDED
    assert run_all(queue) == ["small"]


def test_each_gpu_is_one_jobs() -> None:
    queue = Queue(range(4), [3, 1])
    jobs = [job(name, gpus=1) for name in "abc"]
    for one in jobs:
        queue.add(one)
    assert run_all(queue) == ["a", "b"]
    assert sorted(jobs[0].gpus + jobs[1].gpus) == [1, 3]
    queue.give_back(jobs[0])
    assert run_all(queue) == ["c"] and jobs[2].gpus == jobs[0].gpus


def test_output_of_a_job_lies_in_the_spool_unless_it_names_a_file() -> None:
    one = job("e1a2-7")
    assert (one.output_path("stdout"), one.output_path("stderr")) == ("/spool/7.out", "/spool/7.err")


sizes = st.lists(st.tuples(st.integers(1, 4), st.integers(0, 2), st.integers(1, 31)), max_size=12)


@given(sizes, st.randoms(use_true_random=False))
def test_no_core_and_no_gpu_is_given_twice_and_every_job_runs(
    given_: list[tuple[int, int, int]], chance: random.Random
) -> None:
    queue = Queue(range(4), [0, 1])
    waiting = [job(str(number), *size) for number, size in enumerate(given_)]
    for one in waiting:
        queue.add(one)
    running: list[LocalJob] = []
    done: list[str] = []
    while len(done) < len(waiting):
        while (taken := queue.take()) is not None:
            taken.state = RUNNING
            running.append(taken)
        assert running, "the machine is free, and nobody runs"
        cores = [core for one in running for core in one.cores]
        assert len(cores) == len(set(cores)) <= 4
        gpus = [gpu for one in running for gpu in one.gpus]
        assert len(gpus) == len(set(gpus))
        over = running.pop(chance.randrange(len(running)))
        queue.give_back(over)
        done.append(over.id)
    assert sorted(done, key=int) == [one.id for one in waiting]


def test_cores_go_when_they_are_free_and_those_first_that_are_free_first() -> None:
    queue = Queue(range(3), [])
    one, two = job("one"), job("two")
    for each in (one, two):
        queue.add(each)
    assert run_all(queue) == ["one", "two"]
    assert queue.withdraw_any(2) == [2]
    assert queue.leaving == 1
    assert queue.give_back(two) == [1]
    queue.add(job("three"))
    assert run_all(queue) == []
    assert queue.leaving == 0
    assert queue.give_back(one) == []
    assert run_all(queue) == ["three"]


def test_a_core_that_is_taken_away_counts_for_one_that_was_to_go() -> None:
    queue = Queue(range(2), [])
    one, two = job("one"), job("two")
    for each in (one, two):
        queue.add(each)
    run_all(queue)
    assert queue.withdraw_any(1) == []
    assert queue.excuse_one() and not queue.excuse_one()
    assert not queue.withdraw_core(one.cores[0])
    assert queue.give_back(two) == []
    assert queue.give_back(one) == [0]
    queue.add_core(7)
    assert queue.withdraw_core(7)
    assert queue.withdraw_any(5) == [1], "there are no more"
    assert queue.leaving == 0
