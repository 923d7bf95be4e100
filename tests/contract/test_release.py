"""What is left when a session is released, or its client is killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from executors import JobRequest, Outcome, SessionClosedError
from tests.processes import alive
from tests.support.environment import engine_environment
from tests.support.sessions import Opener, agent_pid, directory_of
from tests.support.waiting import LIMIT, wait_for


def test_nothing_is_left_after_a_session(opener: Opener) -> None:
    session = opener("tidy")
    pid = agent_pid(session)
    [handle] = session.submit([JobRequest(argv=["sleep", "600"])])
    wait_for(lambda: handle.id is not None, "the job is taken")
    session.close()
    assert handle.result(0).outcome is Outcome.CANCELLED
    assert not alive(pid)
    directory = directory_of("tidy")
    assert not directory.path.exists() and not directory.log.exists()
    with pytest.raises(SessionClosedError):
        session.submit([JobRequest(argv=["true"])])


def test_two_clients_of_one_run_share_its_instance(opener: Opener) -> None:
    one, two = opener("shared"), opener("shared")
    assert one.hello.instance == two.hello.instance and agent_pid(one) == agent_pid(two)
    one.close()
    [handle] = two.submit([JobRequest(argv=["true"])])
    assert handle.result(LIMIT).ok
    two.close()
    assert not directory_of("shared").path.exists()


def test_an_idle_instance_without_clients_ends(opener: Opener) -> None:
    session = opener("idle", idleTimeout=0.5)
    session.leave()
    wait_for(lambda: not directory_of("idle").path.exists(), "the instance ends and tidies up")


_CLIENT = """
import sys, time
from executors import *
config = load_config(options={"run.orphanTimeout": float(sys.argv[2])})
session = open_session(RunId("test", sys.argv[1]), config)
[handle] = session.submit([JobRequest(argv=["sh", "-c", sys.argv[3]], key="survivor")])
while handle.id is None: time.sleep(0.01)
print(handle.id, flush=True)
time.sleep(600)
"""


def _kill_client(engine: str, run: str, orphan: float, script: str) -> str:
    """Start a client, let it submit one job, kill it with SIGKILL; the job's id."""
    argv = [sys.executable, "-c", _CLIENT, run, str(orphan), script]
    with subprocess.Popen(argv, env=engine_environment(engine), stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        job_id = client.stdout.readline().strip()
        client.kill()
    return job_id


def test_after_kill_9_of_the_client_nothing_outlives_the_orphan_time_out(engine: str, tmp_path: Path) -> None:
    _kill_client(engine, "orphan", 1.0, f"echo $$ > {tmp_path}/pid; exec sleep 600")
    wait_for(lambda: not directory_of("orphan").path.exists(), "the instance ends and tidies up")
    if (tmp_path / "pid").exists():
        assert not alive(int((tmp_path / "pid").read_text() or 0))


def test_after_kill_9_of_the_client_the_next_one_finds_the_job(engine: str, opener: Opener, tmp_path: Path) -> None:
    go, out = tmp_path / "go", tmp_path / "out"
    script = f"echo ran >> {out}; while [ ! -e {go} ]; do sleep 0.05; done"
    job_id = _kill_client(engine, "resume", 600.0, script)
    session = opener("resume")
    assert [job.id for job in session.jobs(unacknowledged=True)] == [job_id]
    [handle] = session.submit([JobRequest(argv=["sh", "-c", script], key="survivor")])
    go.touch()
    assert handle.result(LIMIT).ok and handle.id == job_id
    assert out.read_text() == "ran\n"
    session.close()
