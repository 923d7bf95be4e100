"""Agents that die, and what sessions say of their jobs."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from executors import JobRequest, Outcome
from tests.support.jobs import wait_running
from tests.support.sessions import Opener, agent_pid
from tests.support.waiting import LIMIT


def test_a_dead_agent_ends_or_resumes_every_job_and_never_lies(engine: str, opener: Opener, tmp_path: Path) -> None:
    session = opener("dead-agent")
    go = tmp_path / "go"
    script = f"echo ran >> {tmp_path}/out; while [ ! -e {go} ]; do sleep 0.05; done"
    [running] = session.submit([JobRequest(argv=["sh", "-c", script])])
    wait_running(running, tmp_path / "out")
    os.kill(agent_pid(session), signal.SIGKILL)
    if engine != "embedded":
        # The supervisor starts a new agent; the jobs belong to Flux, or to a pilot, and go on.
        [later] = session.submit([JobRequest(argv=["true"])])
        assert later.result(LIMIT).ok
        go.touch()
        assert running.result(LIMIT).ok
    else:
        result = running.result(LIMIT)
        assert result.outcome is Outcome.UNKNOWN
        assert result.exception is not None and result.exception.note
        go.touch()
    assert (tmp_path / "out").read_text() == "ran\n"
    session.close()
