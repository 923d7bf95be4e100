"""The agent is killed for good, at every stage of a job's life: what is reported is true, and nothing is left."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from pathlib import Path

import pytest

from executors import JobRequest, Outcome
from executors.provision.rundir import base_directory
from tests.contract.conftest import Opener, environment
from tests.contract.test_sessions import counted, wait_for

LIMIT = 60.0


def processes(run: str, *words: bytes) -> list[int]:
    """Pids whose command line names the run and one of the words; any process of the run where none are given."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                argv = (entry / "cmdline").read_bytes().split(b"\0")
                if any(run.encode() in word for word in argv) and (not words or set(words) & set(argv[:6])):
                    found.append(int(entry.name))
    return found


def kill_agent(run: str) -> None:
    # The supervisor first, or it would start another one.
    for word in (b"supervise", b"serve"):
        for pid in processes(run, word):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("delay", [0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8])
def test_an_agent_that_dies_at_any_moment_never_makes_a_success(opener: Opener, tmp_path: Path, delay: float) -> None:
    session = opener(f"dies-{delay}")
    killer = threading.Timer(delay, kill_agent, [session.run_name])
    killer.start()
    paths = [tmp_path / str(index) for index in range(40)]
    handles = session.submit([counted(path) for path in paths])
    [endless] = session.submit([JobRequest(argv=["sleep", "1000"])])
    results = [handle.result(LIMIT) for handle in handles]
    for path, result in zip(paths, results, strict=True):
        ran = path.read_text() if path.exists() else ""
        assert ran in ("", "ran\n")
        assert ran or result.outcome is not Outcome.COMPLETED
        if not result.ok:
            assert result.outcome in (Outcome.UNKNOWN, Outcome.CANCELLED, Outcome.LOST, Outcome.SIGNALED)
            assert result.exception is not None or result.outcome is Outcome.SIGNALED
    assert not endless.result(LIMIT).ok
    assert session.lost
    killer.join()
    session.close()
    wait_for(lambda: not processes(session.run_name), "all processes of the run have ended")
    assert not (base_directory(environment()) / session.run_name).exists()


def test_what_is_asked_of_a_lost_session_is_refused_at_once(opener: Opener) -> None:
    session = opener("lost")
    kill_agent(session.run_name)
    wait_for(lambda: session.lost is not None, "the loss is noticed")
    [handle] = session.submit([JobRequest(argv=["true"])])
    result = handle.result(LIMIT)
    assert result.outcome in (Outcome.CANCELLED, Outcome.UNKNOWN) and result.exception is not None
    session.close()
