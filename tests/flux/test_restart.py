"""Agents that are killed inside a living instance: the supervisor starts them again, and no key is lost."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest

from executors import ExecutorsError, JobRequest
from tests.processes import alive
from tests.support.jobs import counted
from tests.support.sessions import Opener, agent_pid, directory_of
from tests.support.waiting import wait_for

LIMIT = 60.0


def test_keys_hold_across_a_restart_of_the_agent(opener: Opener, out: Path) -> None:
    session = opener("restart", auto_acknowledge=False)
    requests = [counted(out, key=f"restart-{index}") for index in range(300)]
    handles = session.submit(requests)
    os.kill(agent_pid(session), signal.SIGKILL)  # with submissions in flight
    again = session.submit(requests)
    assert all(handle.result(LIMIT * 2).ok for handle in [*handles, *again])
    assert [handle.id for handle in handles] == [handle.id for handle in again]
    assert out.read_text().count("ran") == 300
    session.close()


def test_acknowledgements_hold_across_a_restart_of_the_agent(opener: Opener, out: Path) -> None:
    session = opener("restart-ack")
    [first] = session.submit([counted(out, key="k")])
    assert first.result(LIMIT).ok
    wait_for(lambda: not session.jobs(unacknowledged=True), "the acknowledgement arrives")
    os.kill(agent_pid(session), signal.SIGKILL)
    [second] = session.submit([counted(out, key="k")])
    assert second.result(LIMIT).ok and second.id != first.id
    session.close()


@pytest.mark.parametrize("delay", [0.0, 0.01, 0.05, 0.1, 0.2, 0.4])
def test_an_agent_killed_at_any_moment_loses_nothing_and_runs_nothing_twice(
    opener: Opener, out: Path, delay: float
) -> None:
    session = opener(f"killed-{delay}")
    killer = threading.Timer(delay, lambda: os.kill(agent_pid(session), signal.SIGKILL))
    killer.start()
    handles = []
    for start in range(0, 100, 20):
        handles += session.submit([counted(out, key=f"{start}-{index}") for index in range(20)])
        time.sleep(0.02)
    results = [handle.result(LIMIT) for handle in handles]
    killer.join()
    assert all(result.ok for result in results), [result.describe() for result in results if not result.ok]
    assert out.read_text().count("ran") == 100
    session.close()


def test_an_agent_killed_again_and_again_ends_the_instance_with_the_reason(opener: Opener) -> None:
    session = opener("killed-often", auto_acknowledge=False)
    [job] = session.submit([JobRequest(argv=["sleep", "1000"])])
    wait_for(lambda: job.state == "RUN", "it runs")

    def kill() -> bool:
        if session.lost is None:
            try:
                os.kill(agent_pid(session), signal.SIGKILL)
            except (ExecutorsError, ProcessLookupError):
                pass  # between two agents
        return session.lost is not None

    wait_for(kill, "the supervisor gives up")
    result = job.result(LIMIT)
    assert result.outcome.name in ("UNKNOWN", "CANCELLED") and result.exception is not None
    session.close()


def test_jobs_that_an_agent_could_not_end_are_ended_by_its_supervisor(opener: Opener, tmp_path: Path) -> None:
    session = opener("left")
    [job] = session.submit([JobRequest(argv=["sh", "-c", f"echo $$ > {tmp_path}/pid; exec sleep 1000"])])
    session.submit([JobRequest(argv=["sleep", "1000"], cores_per_task=os.cpu_count() or 1)])  # one that waits
    wait_for(lambda: (tmp_path / "pid").exists() and bool((tmp_path / "pid").read_text()), "the job runs")
    agent = agent_pid(session)
    supervisor = psutil.Process(agent).parent()
    assert supervisor is not None
    os.kill(agent, signal.SIGSTOP)
    supervisor.send_signal(signal.SIGTERM)  # which the agent cannot follow any more
    os.kill(agent, signal.SIGKILL)
    assert job.result(LIMIT).outcome.name in ("UNKNOWN", "CANCELLED")
    session.close()
    directory = directory_of("left")
    wait_for(lambda: not directory.path.exists(), "the instance has ended")
    assert not alive(int((tmp_path / "pid").read_text()))
    assert not directory.log.exists()  # it ended in good order


def test_what_is_said_to_the_instance_is_not_said_to_jobs(opener: Opener) -> None:
    session = opener("env")
    [job] = session.submit([JobRequest(argv=["env"])])
    assert job.result(LIMIT).ok
    assert b"FLUX_DISABLE_JOB_CLEANUP" not in b"".join(job.output())  # an instance inside it cleans up
    session.close()
