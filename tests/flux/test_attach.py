"""The provisioner attach: a guest in an instance that somebody else has started."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from executors import AgentError, JobRequest, ProvisionError, RunId, Session, load_config, open_session
from executors.agent.pilot.short_jobs import MANY
from executors.provision.local.rundir import base_directory
from tests.processes import alive
from tests.support.environment import environment
from tests.support.sessions import ask
from tests.support.waiting import wait_for

ROOT = Path(__file__).parents[2]

LIMIT = 60.0


class Instance:
    """A Flux instance that is not ours."""

    def __init__(self, directory: Path, *options: str) -> None:
        uri = directory / "uri"
        # Its initial program says where it is, and lives until it is told to end.
        program = f"flux getattr local-uri > {uri}.new && mv {uri}.new {uri} && cat"
        self.process = subprocess.Popen(
            ["flux", "start", *options, "sh", "-c", program], stdin=subprocess.PIPE, env=environment()
        )
        wait_for(uri.exists, "the instance is up")
        self.uri = uri.read_text().strip()
        self.environ = {**environment(), "FLUX_URI": self.uri}

    def flux(self, *arguments: str) -> str:
        done = subprocess.run(["flux", *arguments], env=self.environ, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def end(self) -> int:
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(LIMIT)


def left(session: Session) -> list[Path]:
    """Directories of a session's run."""
    return [path for path in base_directory(environment()).glob(session.run_name + "*") if path.is_dir()]


@pytest.fixture
def instance(engine: str, tmp_path: Path) -> Iterator[Instance]:
    one = Instance(tmp_path)
    yield one
    assert one.end() == 0


def attach(instance: Instance, run: str, lines: list[str] | None = None, **settings: object) -> Session:
    options = {f"run.{key}": value for key, value in settings.items()}
    config = load_config(environ=instance.environ, options=options)
    report_progress = (lines if lines is not None else []).append
    return open_session(RunId("attach", run), config, environ=instance.environ, report_progress=report_progress)


def test_flux_uri_means_attach_and_is_said_in_one_line(instance: Instance) -> None:
    lines: list[str] = []
    with attach(instance, "said", lines) as session:
        assert session.hello.attached
        assert session.submit([JobRequest(argv=["true"])])[0].result(LIMIT).ok
    assert lines[0] == f"provisioner: attach (FLUX_URI is set): {instance.uri}"


def test_the_instance_and_the_jobs_of_others_are_left_alone(instance: Instance) -> None:
    other = instance.flux("submit", "sleep", "1000")
    with attach(instance, "alone") as session:
        [mine] = session.submit([JobRequest(argv=["sleep", "1000"])])
        wait_for(lambda: mine.state == "RUN", "it runs")
        assert other not in [job.id for job in session.jobs()]
    assert mine.result(LIMIT).outcome.name == "CANCELLED"
    assert instance.flux("jobs", "-no", "{status}", other) == "RUN"
    assert not left(session)
    instance.flux("cancel", other)


def test_a_guest_agent_ends_by_its_time_out_and_the_instance_goes_on(instance: Instance) -> None:
    session = attach(instance, "idle", idleTimeout=1)
    assert left(session)
    session.leave()
    wait_for(lambda: not left(session), "the agent has gone")
    assert instance.flux("getattr", "size") == "1"
    assert instance.process.poll() is None


def test_a_guest_has_no_pilots_unless_they_are_asked_for(instance: Instance) -> None:
    with attach(instance, "auto", pilot="auto") as session:
        handles = session.submit([JobRequest(argv=["true"]) for _ in range(2 * MANY)])
        assert all(handle.result(LIMIT).ok for handle in handles)
        assert session.submit_one(JobRequest(argv=["true"])).result(LIMIT).ok
        assert "pilot-holder" not in instance.flux("jobs", "-ano", "{name}")


def test_a_guest_never_drains(instance: Instance) -> None:
    with attach(instance, "drain") as session, pytest.raises(AgentError, match="not created by this program"):
        ask(session, "drain", ranks="0")
    assert "drain" not in instance.flux("resource", "drain", "-no", "{ranks} {state}")


def test_closing_right_after_submitting_leaves_no_job_behind(instance: Instance) -> None:
    for delay in (0.0, 0.01, 0.03, 0.1):
        session = attach(instance, f"quick-{delay}")
        handles = session.submit([JobRequest(argv=["sleep", "300"]) for _ in range(100)])
        time.sleep(delay)
        session.close()
        assert {handle.result(0).outcome.name for handle in handles} <= {"CANCELLED"}
        assert instance.flux("jobs", "-no", "{id}") == ""


def test_two_runs_share_an_instance(instance: Instance) -> None:
    with attach(instance, "one") as one, attach(instance, "two") as two:
        first, second = one.submit([JobRequest(argv=["true"])])[0], two.submit([JobRequest(argv=["true"])])[0]
        assert first.result(LIMIT).ok and second.result(LIMIT).ok
        assert one.hello.instance == two.hello.instance
        assert [job.id for job in one.jobs()] == [first.id]


@pytest.mark.parametrize("way", ["killed", "ended"])
def test_an_instance_that_ends_ends_its_jobs_with_the_reason(engine: str, tmp_path: Path, way: str) -> None:
    instance = Instance(tmp_path)
    session = attach(instance, "ending")
    [job] = session.submit([JobRequest(argv=["sleep", "1000"])])
    wait_for(lambda: job.state == "RUN", "it runs")
    if way == "killed":
        instance.process.kill()
        instance.process.communicate()
    else:
        instance.end()
    result = job.result(LIMIT)
    # An instance that ends in order cancels its jobs itself.
    assert result.outcome.name in (["UNKNOWN"] if way == "killed" else ["UNKNOWN", "CANCELLED"])
    assert result.exception is not None
    wait_for(lambda: session.lost is not None, "the loss is noticed")
    wait_for(lambda: not left(session), "the agent has gone by itself")
    session.close()


def test_an_agent_left_in_another_instance_is_not_used(engine: str, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one, two = Instance(tmp_path / "a"), Instance(tmp_path / "b")
    with attach(one, "same") as first, attach(two, "same") as second:
        assert first.run_name == second.run_name and first.hello.instance != second.hello.instance
    assert one.end() == two.end() == 0


@pytest.mark.parametrize(
    ("uri", "words"),
    [("", "FLUX_URI is not set, so there is no instance to attach to"), ("local:///no/such/place", "no/such/place")],
)
def test_nothing_to_attach_to_is_said_at_once(engine: str, uri: str, words: str) -> None:
    environ = {**environment(), **({"FLUX_URI": uri} if uri else {})}
    config = load_config(environ=environ, options={"run.provisioner": "attach"})
    with pytest.raises(ProvisionError, match=words):
        open_session(RunId("attach", "nowhere"), config, environ=environ)


GUEST = """
import os, sys
from executors import RunId, load_config, open_session, GuestError
try:
    open_session(RunId("guest", "run"), load_config())
except GuestError as err:
    print(err)
"""


def test_a_guest_of_a_system_instance_is_told_the_way(engine: str, need: Callable[[str], None]) -> None:
    need("root")  # to be two users
    with tempfile.TemporaryDirectory(prefix="guest-", dir="/tmp") as place:
        directory = Path(place)
        directory.chmod(0o755)
        shutil.copytree(ROOT / "executors", directory / "executors", ignore=shutil.ignore_patterns("__pycache__"))
        (directory / "access.toml").write_text("[access]\nallow-guest-user = true\n")
        (directory / "run").mkdir(mode=0o755)
        instance = Instance(directory, f"-c{directory}/access.toml", f"-Srundir={directory}/run")
        python = shutil.which("python3", path="/usr/bin:/usr/local/bin")
        assert python is not None and sys.version_info >= (3, 11)
        done = subprocess.run(
            [python, "-c", GUEST], cwd="/", user="nobody", group="nogroup", extra_groups=[],
            env={"PATH": instance.environ["PATH"], "FLUX_URI": instance.uri, "PYTHONPATH": str(directory)},
            capture_output=True, text=True, timeout=LIMIT,
        )  # fmt: skip
        assert instance.end() == 0
    assert "can be read by its owner only" in done.stdout, done.stderr
    assert "flux alloc" in done.stdout and "flux batch" in done.stdout


def test_a_helper_is_on_every_broker_and_ends_with_its_agent(engine: str, tmp_path: Path) -> None:
    instance = Instance(tmp_path, "--test-size=3")
    said = tmp_path / "said"
    program = 'echo "$$ $(flux getattr rank)" >> "$1"; exec sleep 1000'
    with attach(instance, "helper") as session:
        command = ["sh", "-c", program, "sh", str(said)]
        for _ in range(2):
            session.start_helper("one", command, {}).result(LIMIT)
            wait_for(lambda: said.exists() and len(said.read_text().splitlines()) >= 3, "it is on every broker")
        pids, ranks = zip(*(line.split() for line in said.read_text().splitlines()), strict=True)
        assert sorted(ranks) == ["0", "1", "2"] and all(alive(int(pid)) for pid in pids)
    wait_for(lambda: not any(alive(int(pid)) for pid in pids), "they end with the agent")
    assert instance.flux("getattr", "size") == "3"
    assert instance.end() == 0
