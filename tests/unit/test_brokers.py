"""Brokers that do not come are told once, and nobody is told of those that do."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, cast

import pytest

from executors.client import Client
from executors.errors import TransportError
from executors.lifecycle import brokers
from executors.lifecycle.brokers import BrokerWatch


class Agent:
    """Answers with one more rank that is up each time; ``never``: those that do not come."""

    def __init__(self, ranks: int, never: Collection[int] = (), away: bool = False) -> None:
        self.asked = 0
        self._ranks = ranks
        self._never = never
        self._away = away

    def request(self, op: str) -> dict[str, Any]:
        assert op == "resources"
        if self._away:
            raise TransportError("cut")
        self.asked += 1
        there = [rank <= self.asked and rank not in self._never for rank in range(self._ranks)]
        return {"nodes": [{"rank": rank, "up": up} for rank, up in enumerate(there)]}


class Wants:
    """A provisioner of so many brokers."""

    def __init__(self, wanted: int) -> None:
        self._wanted = set(range(wanted))
        self.asked = 0

    def lacks(self, ranks: Collection[int]) -> bool:
        return bool(self._wanted - set(ranks))

    def losses(self) -> dict[str, str]:
        """One more each time that somebody asks, from the second on."""
        self.asked += 1
        return {f"pod-{at}": f"rank {at} was lost (OOMKilled)" for at in range(1, self.asked)}

    def unconnected(self, ranks: Collection[int]) -> list[str]:
        missing = sorted(self._wanted - set(ranks))
        return [f"{len(missing)} are not connected", *(f"  rank {rank}: its words" for rank in missing)]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(brokers, "_LOOKS", (0.0,) * 6)
    monkeypatch.setattr(brokers, "_LATER", (0.0,) * 4)


def told(agent: Agent, wanted: int) -> list[str]:
    said: list[str] = []
    watch = BrokerWatch(Wants(wanted), cast(Client, agent), said.append)
    watch.start()
    watch.wait()
    return said


def test_brokers_that_come_are_waited_for_and_not_told() -> None:
    agent = Agent(4)
    assert told(agent, 4) == [] and agent.asked == 3


def test_one_that_may_grow_lacks_only_what_is_wanted_now() -> None:
    assert told(Agent(8, never=range(2, 8)), 2) == []


def test_brokers_that_do_not_come_are_told_once_with_their_own_words() -> None:
    [line] = told(Agent(3, never=[1]), 3)
    assert line.startswith("warning: ") and "rank 1: its words" in line and "rank 2" not in line


def test_who_cannot_ask_says_nothing() -> None:
    assert told(Agent(2, away=True), 2) == []


def test_why_a_broker_was_lost_is_told_once_and_before_the_end() -> None:
    said: list[str] = []
    watch = BrokerWatch(Wants(2), cast(Client, Agent(2)), said.append)
    watch.start()
    watch.job_was_lost()
    watch.stop()
    assert said == ["warning: rank 1 was lost (OOMKilled)"]
    watch.job_was_lost()
    watch.stop()
    assert said[1:] == ["warning: rank 2 was lost (OOMKilled)"]
