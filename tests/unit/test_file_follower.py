"""How a file that a job writes is followed, on a loop whose clock stands still."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from executors.agent import file_follower
from executors.agent.engine import ACTIVE, RAN
from executors.agent.file_follower import FileFollower
from executors.agent.protocol.followers import Followers
from tests.support.readers import Reader


@pytest.fixture(autouse=True)
def _never_looks_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_follower, "_INTERVAL", 1e6)


def test_the_rest_is_read_when_the_job_ends_and_not_at_the_next_look(tmp_path: Path) -> None:
    async def follow() -> Reader:
        path, reader, state = tmp_path / "out", Reader(), [ACTIVE]
        path.write_bytes(b"first\n")
        followers = Followers()
        follower = FileFollower(str(path), 0, reader, lambda: state[0])
        followers.add("f1", follower)
        await asyncio.sleep(0.01)
        with path.open("ab") as more:
            more.write(b"last\n")
        followers.job_ended("f2")
        await asyncio.sleep(0.01)
        assert reader.got == [(0, b"first\n")], "another job's end is nothing to it"
        state[0] = RAN
        followers.job_ended("f1")
        await asyncio.sleep(0.01)
        return reader

    reader = asyncio.run(follow())
    assert reader.got == [(0, b"first\n"), (6, b"last\n"), (11, None)]


def test_a_follower_that_was_stopped_hears_no_more(tmp_path: Path) -> None:
    async def follow() -> Reader:
        reader = Reader()
        followers = Followers()
        follower = FileFollower(str(tmp_path / "none"), 0, reader, lambda: ACTIVE)
        followers.add("f1", follower)
        await asyncio.sleep(0.01)
        follower.stop()
        followers.job_ended("f1")
        await asyncio.sleep(0.01)
        return reader

    assert asyncio.run(follow()).got == []
