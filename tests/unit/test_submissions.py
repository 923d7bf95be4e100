"""One key, one job: `Submissions` with an engine that answers when a test says so."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest

from executors.agent.engine import EngineError, Submission
from executors.agent.protocol.jobs import Job, JobTable
from executors.agent.protocol.submissions import Submissions, parse_submission
from executors.agent.wire import SubmitAnswer

JOBSPEC = {"tasks": [{"command": ["true"]}], "attributes": {"system": {}}}


def item(key: str | None = None, digest: str = "") -> dict[str, Any]:
    return {"jobspec": JOBSPEC, "key": key, "digest": digest}


class Engine:
    """Keeps what it was given; ids come by `accept` and `refuse`."""

    def __init__(self) -> None:
        self.given: list[Submission] = []
        self.answers: list[asyncio.Future[str]] = []
        self.failure: OSError | None = None

    def submit(self, submissions: list[Submission]) -> list[Awaitable[str]]:
        if self.failure is not None:
            raise self.failure
        answers: list[asyncio.Future[str]] = [asyncio.get_running_loop().create_future() for _ in submissions]
        self.given += submissions
        self.answers += answers
        return list(answers)


class Agent:
    def __init__(self) -> None:
        self.engine = Engine()
        self.table = JobTable("epoch")
        self.submissions = Submissions(self.engine.submit, self.table, {"HOME": "/home"})

    async def submit(self, *items: dict[str, Any], **environments: Any) -> asyncio.Task[list[SubmitAnswer]]:
        task = asyncio.ensure_future(self.submissions.submit(list(items), environments.get("environments", [])))
        await asyncio.sleep(0)
        return task


def test_a_key_that_is_known_is_answered_with_its_job() -> None:
    async def run() -> None:
        agent = Agent()
        agent.table.add(Job("f1", "k", "digest"))
        task = await agent.submit(item("k", "another digest"))
        assert await task == [{"id": "f1", "known": True, "digest": "digest"}]
        assert agent.engine.given == [] and agent.submissions.in_progress == 0

    asyncio.run(run())


def test_a_key_that_stands_twice_makes_one_job_in_one_request_and_in_two() -> None:
    async def run() -> None:
        agent = Agent()
        first = await agent.submit(item("k", "d"), item("k", "e"))
        second = await agent.submit(item("k", "f"))
        assert len(agent.engine.given) == 1 and agent.submissions.in_progress == 2
        agent.engine.answers[0].set_result("f1")
        assert await first == [
            {"id": "f1", "known": False, "digest": "d"},
            {"id": "f1", "known": True, "digest": "d"},
        ]
        assert await second == [{"id": "f1", "known": True, "digest": "d"}]

    asyncio.run(run())


def test_a_wrong_item_spoils_no_other() -> None:
    async def run() -> None:
        agent = Agent()
        task = await agent.submit({"jobspec": {}}, item())
        agent.engine.answers[0].set_result("f1")
        refused, taken = await task
        assert refused == {"error": "jobspec: not a jobspec V1 object"}
        assert taken["id"] == "f1" and "f1" in agent.table.jobs

    asyncio.run(run())


def test_who_waits_for_a_key_hears_that_it_was_refused() -> None:
    async def run() -> None:
        agent = Agent()
        first, second = await agent.submit(item("k")), await agent.submit(item("k"))
        agent.engine.answers[0].set_exception(EngineError("no such queue"))
        assert await first == await second == [{"error": "no such queue"}]

    asyncio.run(run())


def test_a_refused_key_may_be_submitted_again_while_its_first_request_goes_on() -> None:
    async def run() -> None:
        agent = Agent()
        first = await agent.submit(item("k"), item("slow"))
        agent.engine.answers[0].set_exception(EngineError("no room"))
        await asyncio.sleep(0)
        second, third = await agent.submit(item("k")), await agent.submit(item("k"))
        agent.engine.answers[1].set_result("f1")
        assert (await first)[0] == {"error": "no room"}
        agent.engine.answers[2].set_result("f2")
        assert [answer["id"] for answer in [*await second, *await third]] == ["f2", "f2"]

    asyncio.run(run())


def test_an_engine_that_fails_leaves_no_key_behind() -> None:
    async def run() -> None:
        agent = Agent()
        agent.engine.failure = OSError("gone")
        task = await agent.submit(item("k"))
        with pytest.raises(OSError, match="gone"):
            await task
        assert agent.submissions.in_progress == 0
        agent.engine.failure = None
        again = await agent.submit(item("k"))
        agent.engine.answers[0].set_result("f1")
        assert (await again)[0]["id"] == "f1"

    asyncio.run(run())


def test_items_share_the_requests_environments_over_the_agents_own() -> None:
    async def run() -> None:
        agent = Agent()
        both = [dict(item(), environment=0), dict(item(), environment=0)]
        await agent.submit(*both, environments=[{"A": "1", "HOME": None}])
        one, other = (submission.environment for submission in agent.engine.given)
        assert one is other and one is not None and one.values == {"A": "1"}

    asyncio.run(run())


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"jobspec": None}, "jobspec: not a jobspec"),
        ({"key": ""}, "key: must be a string"),
        ({"key": "x" * 257}, "key: must be a string"),
        ({"urgency": 32}, "urgency: 32 is not"),
        ({"urgency": True}, "urgency: True is not"),
        ({"secret_env": {"A": "a\0"}}, "secret_env: must map"),
        ({"secret_env": {"a b": "1"}}, "secret_env: 'a b' cannot be the name"),
        ({"environment": 1}, "environment: 1 is not the index"),
        ({"name": "n" * 70_000}, "name: is longer than"),
    ],
)
def test_an_item_that_is_wrong_says_where(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(EngineError, match=problem):
        parse_submission({**item("k"), **change}, [])
