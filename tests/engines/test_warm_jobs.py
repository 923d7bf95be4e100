"""Warm jobs as an engine's jobs: cancelled, killed, over their time, measured; and their server with its instance."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from executors import JobHandle, JobRequest, Outcome, RunId, Session, load_config, open_session
from executors.agent import process_tree
from snakemake_executor_flux.warm import client
from tests.engines.warm_servers import SERVER, WHO, alive
from tests.processes import kill_agent
from tests.support.environment import environment
from tests.support.waiting import wait_for


def opened(engine: str) -> Session:
    environ = environment()
    config = load_config(environ=environ, options={"run.engine": engine, "run.provisioner": "local"})
    return open_session(RunId("test", uuid.uuid4().hex[:8]), config, environ=environ)


def started(session: Session) -> str:
    """A server that the engine has started: its socket."""
    name = f"fluxop-test-{uuid.uuid4().hex}"
    session.start_helper(name, [sys.executable, "-P", "-c", SERVER, name, "", "60"], {}).result(60)
    return name


@pytest.fixture(params=["embedded", "flux"], scope="module")
def session(request: pytest.FixtureRequest, need: Callable[[str], None]) -> Iterator[Session]:
    if request.param == "flux":
        need("flux")
    with opened(request.param) as session:
        yield session


@pytest.fixture(scope="module")
def server(session: Session, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A server that all tests share: its socket."""
    name = started(session)
    job = submit(session, name, tmp_path_factory.mktemp("first"), WHO)
    assert job.result(60).ok and "forked" in b"".join(job.output()).decode()
    return name


@pytest.fixture
def other(session: Session) -> Iterator[Session]:
    """A session with an instance of its own, which a test may end, on the same engine."""
    with opened(session.hello.engine) as other:
        yield other


def submit(session: Session, server: str, directory: Path, text: str, **more: object) -> JobHandle:
    program = directory / "job.py"
    program.write_text(text)
    # It is waited for as one that was asked for just now.
    words = [sys.executable, "-IS", client.__file__, server, "4e9", "1", sys.executable, str(program), str(directory)]
    return session.submit_one(JobRequest(argv=words, name="warm", **more))  # type: ignore[arg-type]


#: Starts a process, and two that hide in sessions of their own, one of which ignores TERM; and says who they are.
TREE = WHO + (
    "import os, subprocess\n"
    "a = subprocess.Popen(['sleep', '1000'])\n"
    "b = subprocess.Popen(['setsid', 'sh', '-c', 'trap \"\" TERM; sleep 1000 & wait; sleep 1000'])\n"
    "c = int(os.popen('(setsid sleep 1000 >/dev/null 2>&1 & echo $!)').read())\n"
    "open(sys.argv[1] + '/new', 'w').write(f'{os.getpid()} {os.getppid()} {a.pid} {b.pid} {c}')\n"
    "os.rename(sys.argv[1] + '/new', sys.argv[1] + '/pids')\n"
    "b.wait()\n"
)


@pytest.fixture
def tree(session: Session, server: str, tmp_path: Path) -> Iterator[list[int]]:
    """Processes of a job that runs: first those of its own session. What is left is killed."""
    path = tmp_path / "pids"
    wait_for(path.exists, "the job runs")
    pids = [int(word) for word in path.read_text().split()]
    assert all(map(alive, pids))
    yield pids
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def has_to_end(session: Session, tree: list[int]) -> list[int]:
    """Of a job that is told to end by TERM: Flux tells the task's process group, and leaves what is in others."""
    return tree if session.hello.engine == "embedded" else tree[:3]


@pytest.fixture
def job(session: Session, server: str, tmp_path: Path) -> JobHandle:
    return submit(session, server, tmp_path, TREE, duration=20.0)


def test_a_cancelled_job_leaves_nothing(session: Session, job: JobHandle, tree: list[int]) -> None:
    job.cancel()
    assert job.result(60).outcome is Outcome.CANCELLED
    wait_for(lambda: not any(map(alive, has_to_end(session, tree))), "all of it ends")


def test_a_job_over_its_time_leaves_nothing(session: Session, job: JobHandle, tree: list[int]) -> None:
    assert job.result(60).outcome is Outcome.TIMEOUT
    wait_for(lambda: not any(map(alive, has_to_end(session, tree))), "all of it ends")


def test_a_job_that_is_killed_leaves_nothing(job: JobHandle, tree: list[int]) -> None:
    job.kill(signal.SIGKILL)
    result = job.result(60)
    assert (result.outcome, result.signal) == (Outcome.SIGNALED, signal.SIGKILL)
    wait_for(lambda: not any(map(alive, tree)), "all of it ends")


@pytest.mark.parametrize("name", ["TERM", "USR1", "INT"])
def test_a_signal_reaches_a_job_and_its_answer_is_the_jobs_end(
    session: Session, server: str, tmp_path: Path, name: str
) -> None:
    text = WHO + (
        f"import signal\nsignal.signal(signal.SIG{name}, lambda *_: sys.exit(9))\n"
        "import time\nopen(sys.argv[1] + '/ready', 'w').close()\nwhile True: time.sleep(0.05)\n"
    )
    job = submit(session, server, tmp_path, text)
    wait_for((tmp_path / "ready").exists, "the job runs")
    job.kill(getattr(signal, f"SIG{name}"))
    assert job.result(60).returncode == 9


def test_usage_is_that_of_what_the_server_has_forked(session: Session, server: str, tmp_path: Path) -> None:
    text = WHO + "import time\nx = bytearray(150_000_000)\nwhile time.process_time() < 0.4: pass"
    result = submit(session, server, tmp_path, text, measure=True).result(60)
    assert result.ok and result.usage is not None
    assert result.usage.cpu is not None and result.usage.cpu >= 0.4
    assert result.usage.max_rss is not None and result.usage.max_rss > 140_000_000


def test_a_server_ends_with_its_instance(other: Session, tmp_path: Path) -> None:
    name = started(other)
    job = submit(other, name, tmp_path, WHO + "import os\nopen(sys.argv[1] + '/pid', 'w').write(str(os.getppid()))")
    assert job.result(60).ok
    assert f"@{name}" in Path("/proc/net/unix").read_text()
    other.close()
    wait_for(lambda: f"@{name}" not in Path("/proc/net/unix").read_text(), "the server is gone, with its socket")


def test_what_a_lost_agent_leaves_of_a_warm_job_is_what_it_leaves_of_any(other: Session, tmp_path: Path) -> None:
    """Under Flux the job goes on, and its server ends; the embedded engine's jobs end with it."""
    engine = other.hello.engine
    name = started(other)
    text = WHO + (
        "import os, time\nopen(sys.argv[1] + '/new', 'w').write(f'{os.getpid()} {os.getppid()}')\n"
        "os.rename(sys.argv[1] + '/new', sys.argv[1] + '/pids')\n"
        "while not os.path.exists(sys.argv[1] + '/go'): time.sleep(0.05)\nsys.exit(8)\n"
    )
    job = submit(other, name, tmp_path, text)
    wait_for((tmp_path / "pids").exists, "the job runs")
    pids = [int(word) for word in (tmp_path / "pids").read_text().split()]
    monitor = process_tree.read(pids[1])
    assert monitor is not None
    assert kill_agent(other.run_name, ["serve"])
    wait_for(lambda: not alive(monitor.ppid), "the server ends")
    if engine == "embedded":
        assert not job.result(60).ok
        wait_for(lambda: not any(map(alive, pids)), "all of the job ends")
    else:
        assert all(map(alive, pids))
        (tmp_path / "go").touch()
        assert job.result(60).returncode == 8
