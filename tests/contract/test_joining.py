"""Who comes later: joins an instance by its name, takes up jobs that others submitted, and ends it for all."""

from __future__ import annotations

import queue
from pathlib import Path

import pytest

from executors import (
    JobRequest,
    Outcome,
    ProvisionError,
    RunConfig,
    RunId,
    Session,
    SessionClosedError,
    end_run,
    join_session,
    load_config,
    run_name,
)
from tests.support.environment import engine_options, environment
from tests.support.jobs import wait_running
from tests.support.sessions import Opener, ask, directory_of
from tests.support.waiting import LIMIT, wait_for


@pytest.fixture
def config(engine: str) -> RunConfig:
    return load_config(environ={}, options=engine_options(engine))


def _job(session: Session, script: str) -> str:
    [handle] = session.submit([JobRequest(argv=["sh", "-c", script])])
    found = handle.wait_submitted(LIMIT)
    assert found is not None
    return found


def test_who_joins_hears_of_the_end_and_reads_the_output(opener: Opener, config: RunConfig, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    session = opener("joined")
    job = _job(session, f"echo one; while [ ! -e {gate} ]; do sleep 0.05; done; echo two; exit 3")
    joined = join_session(session.run_name, config, environ=environment())
    try:
        [handle] = joined.attach([job])
        pieces: queue.SimpleQueue[bytes | BaseException | None] = queue.SimpleQueue()
        joined.follow(job, "stdout", 0, pieces.put)
        assert pieces.get(timeout=LIMIT) == b"one\n"
        assert not handle.done()
        gate.touch()
        rest = b""
        while (piece := pieces.get(timeout=LIMIT)) is not None:
            assert isinstance(piece, bytes), piece
            rest += piece
        assert rest == b"two\n"
        assert handle.result(LIMIT).returncode == 3
        # One that has ended before is told just so.
        [late] = joined.attach([job])
        assert late.result(LIMIT).returncode == 3
    finally:
        joined.leave()


def test_a_job_that_nobody_knows_ends_as_unknown(session: Session) -> None:
    [handle] = session.attach(["f999999999"])
    assert handle.result(LIMIT).outcome is Outcome.UNKNOWN


def test_a_job_keeps_a_readers_place(session: Session) -> None:
    job = _job(session, "true")
    session.save_bookmark(job, "1:0,0,0")
    session.save_bookmark(job, "1:7,3,0")
    [found] = session.jobs_later(ids=[job]).result(LIMIT)
    assert (found.id, found.bookmark) == (job, "1:7,3,0")
    assert session.jobs(ids=["f999999999"]) == []


def test_an_ended_run_is_gone_for_all(opener: Opener, config: RunConfig, out: Path) -> None:
    session = opener("ended-by-another")
    [handle] = session.submit([JobRequest(argv=["sh", "-c", f"touch {out}; exec sleep 600"])])
    wait_running(handle, out)
    end_run(session.run_name, config, environ=environment())
    assert handle.result(LIMIT).outcome is Outcome.CANCELLED
    wait_for(lambda: not directory_of("ended-by-another").path.exists(), "it is still there")
    with pytest.raises(SessionClosedError):
        ask(session, "info")
    with pytest.raises(ProvisionError, match="no instance"):
        join_session(session.run_name, config, environ=environment())


def test_a_job_that_runs_already_is_told_at_once_to_who_asks_with_its_key(opener: Opener, out: Path) -> None:
    request = JobRequest(argv=["sh", "-c", f"touch {out}; exec sleep 600"], key="known")
    first, second = opener("known"), opener("known")
    [handle] = first.submit([request])
    wait_running(handle, out)
    [known] = second.submit([request])
    assert known.wait_submitted(LIMIT) == handle.id
    handle.cancel()


def test_ending_a_run_that_is_not_there_is_no_error(config: RunConfig) -> None:
    end_run(run_name(RunId("test", "never-was")), config, environ=environment())
