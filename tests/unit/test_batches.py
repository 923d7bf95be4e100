"""What one thread collects for another."""

from __future__ import annotations

import threading
from collections.abc import Callable

from executors.agent.flux.batches import Batches


class Loop:
    """Runs what it was asked for when a test says so."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], None]] = []

    def soon(self, function: Callable[[], None]) -> None:
        self.calls.append(function)

    def run(self) -> None:
        calls, self.calls = self.calls, []
        for call in calls:
            call()


def test_many_items_cost_the_loop_one_call() -> None:
    loop, taken = Loop(), list[list[int]]()
    batches = Batches(loop.soon, taken.append)
    for item in range(5):
        batches.put(item)
    assert len(loop.calls) == 1
    loop.run()
    batches.put(5)
    loop.run()
    assert taken == [[0, 1, 2, 3, 4], [5]]


def test_items_wait_until_it_is_open_and_keep_their_order() -> None:
    loop, taken = Loop(), list[list[int]]()
    batches = Batches(loop.soon, taken.append, is_open=False)
    batches.put(1)
    loop.run()
    batches.put(2)
    loop.run()
    assert taken == []
    batches.open()
    batches.put(3)
    loop.run()
    assert taken == [[1, 2], [3]]


def test_nothing_is_lost_between_two_threads() -> None:
    loop, taken = Loop(), list[int]()
    batches = Batches(loop.soon, taken.extend)

    def put() -> None:
        for item in range(20_000):
            batches.put(item)

    writer = threading.Thread(target=put)
    writer.start()
    while writer.is_alive():
        loop.run()
    loop.run()
    assert taken == list(range(20_000))
