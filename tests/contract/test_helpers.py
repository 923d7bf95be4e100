"""Programs beside the jobs: one of each name on a node, outside of any job, until they end or the instance does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from executors import AgentError, Session
from tests.support.jobs import run
from tests.support.sessions import Opener
from tests.support.waiting import wait_for

#: Says that it is there, and waits.
PROGRAM = 'echo "$$ $WORD ${FLUX_JOB_ID:-none}" >> "$1"; exec sleep 1000'


def start(session: Session, name: str, path: Path, program: str = PROGRAM) -> None:
    session.start_helper(name, ["/bin/sh", "-c", program, "sh", str(path)], {"WORD": "word"}).result(60)


def lines_of(path: Path, count: int) -> list[list[str]]:
    def lines() -> list[str]:
        return path.read_text().splitlines() if path.exists() else []

    wait_for(lambda: len(lines()) == count, "the helper runs")
    return [line.split() for line in lines()]


def test_a_helper_runs_once_in_a_jobs_environment_and_ends_with_the_instance(
    opener: Opener, tmp_path: Path, is_alive: Callable[[int], bool]
) -> None:
    session = opener()
    start(session, "one", tmp_path / "one")
    [[pid, word, job]] = lines_of(tmp_path / "one", 1)
    assert (word, job) == ("word", "none") and is_alive(int(pid))
    start(session, "one", tmp_path / "one")
    start(session, "two", tmp_path / "two")
    lines_of(tmp_path / "two", 1)
    assert len(lines_of(tmp_path / "one", 1)) == 1
    assert run(session, "true").ok  # it holds no core
    session.close()
    wait_for(lambda: not is_alive(int(pid)), "it ends with the instance")


def test_a_helper_that_has_ended_is_started_again(opener: Opener, tmp_path: Path) -> None:
    session = opener()
    start(session, "short", tmp_path / "short", 'echo "$$ x x" >> "$1"; exit 3')
    lines_of(tmp_path / "short", 1)

    def again() -> bool:
        # Its end is told a moment after it.
        start(session, "short", tmp_path / "short", 'echo "$$ x x" >> "$1"; exit 3')
        return len((tmp_path / "short").read_text().splitlines()) > 1

    wait_for(again, "it runs again")


@pytest.mark.parametrize("command", [[], [1]])
def test_a_request_that_is_none_is_refused(session: Session, command: object) -> None:
    with pytest.raises(AgentError, match="command"):
        session.start_helper("bad", command, {}).result(60)  # type: ignore[arg-type]
