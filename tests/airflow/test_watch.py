"""The session that all triggers of a process share: opened once, closed by the last, also if one is cancelled."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator

import pytest

from airflow_provider_flux.triggers.reading import RateLimit
from airflow_provider_flux.triggers.watch import watching
from executors import JobRequest, RunConfig, RunId, Session, join_session, load_config, open_session
from tests.support.sessions import ask, lose


@pytest.fixture
def config() -> RunConfig:
    return load_config(None, environ={}, options={"run.provisioner": "local", "run.engine": "embedded"})


@pytest.fixture
def session(config: RunConfig) -> Iterator[Session]:
    with open_session(RunId("test", uuid.uuid4().hex), config) as found:
        yield found


@pytest.fixture(autouse=True)
def _no_linger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_provider_flux.triggers.watch._LINGER", 0.0)


async def _clients(session: Session, wanted: int) -> None:
    async with asyncio.timeout(30):
        # Nobody tells who has left.
        while (await asyncio.to_thread(ask, session, "info"))["clients"] != wanted:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


def test_many_share_one_and_the_last_closes_it(session: Session, config: RunConfig) -> None:
    opened = 0

    async def opener() -> Session:
        nonlocal opened
        opened += 1
        return await asyncio.to_thread(join_session, session.run_name, config)

    async def one(job: str) -> bool:
        async with watching(session.run_name, opener) as watch:
            return (await watch.job(job).result).ok

    async def many() -> None:
        handles = session.submit([JobRequest(argv=["true"]) for _ in range(50)])
        ids = [str(handle.wait_submitted(30)) for handle in handles]
        assert all(await asyncio.gather(*map(one, ids)))
        await _clients(session, 1)

    asyncio.run(many())
    assert opened == 1


def test_who_is_cancelled_while_it_opens_leaves_no_session(session: Session, config: RunConfig) -> None:
    async def cancelled() -> None:
        opening, go, opened = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def opener() -> Session:
            opening.set()
            await go.wait()
            found = await asyncio.to_thread(join_session, session.run_name, config)
            opened.set()
            return found

        async def use() -> None:
            async with watching(session.run_name, opener):
                await asyncio.Event().wait()

        task = asyncio.ensure_future(use())
        await opening.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go.set()
        await opened.wait()
        await _clients(session, 1)

    asyncio.run(cancelled())


def test_a_lost_session_is_closed_and_replaced(session: Session, config: RunConfig) -> None:
    async def lost() -> None:
        async def opener() -> Session:
            return await asyncio.to_thread(join_session, session.run_name, config)

        async with watching(session.run_name, opener) as first:
            lose(first.session, "the test says so")
            async with watching(session.run_name, opener) as second:
                assert second.session is not first.session
                await _clients(session, 2)  # this test's, and the second
        await _clients(session, 1)

    asyncio.run(lost())


def test_a_failure_to_open_is_told_to_all_and_tried_again(session: Session, config: RunConfig) -> None:
    async def failing() -> None:
        fails = True

        async def opener() -> Session:
            if fails:
                raise ConnectionError("away")
            return await asyncio.to_thread(join_session, session.run_name, config)

        async def use() -> None:
            async with watching(session.run_name, opener):
                pass

        results = await asyncio.gather(use(), use(), return_exceptions=True)
        assert [str(one) for one in results] == ["away", "away"]
        fails = False
        await use()
        await _clients(session, 1)

    asyncio.run(failing())


def test_a_budget_is_spent_and_comes_back() -> None:
    now = 0.0
    budget = RateLimit(rate=10, burst=100, clock=lambda: now)
    assert budget.wait(60) == 0
    assert budget.wait(60) == pytest.approx(2.0)
    now = 7.0
    assert budget.wait(50) == 0
    now = 1000.0
    assert budget.wait(100) == 0
    assert budget.wait(1) == pytest.approx(0.1)
