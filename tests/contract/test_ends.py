"""Who may end an instance on this machine, what else ends it, and that nothing is left then."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from executors import (
    JobRequest,
    Outcome,
    ProvisionError,
    RunConfig,
    RunId,
    Session,
    TransportError,
    join_session,
    load_config,
    run_name,
)
from executors.agent.wire import EPOCH_VARIABLE
from executors.lifecycle.reap import reap
from executors.names import PLACE_VARIABLE
from executors.provision.local import usage
from executors.provision.local.provisioner import LocalProvisioner
from executors.provision.local.rundir import RunDirectory
from tests.processes import alive, of_run
from tests.support.environment import engine_environment, engine_options, environment
from tests.support.jobs import wait_running
from tests.support.sessions import Opener, agent_pid, directory_of
from tests.support.waiting import LIMIT, wait_for

#: A process that leaves its job in every way that there is: session, parent, files, environment.
DAEMON = """
import os, sys
path = sys.argv[1]
if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
os.chdir("/")
os.closerange(0, 256)
shell = "trap '' TERM HUP; echo $$ >$0.new; /bin/mv $0.new $0; while :; do /bin/sleep 1; done"
os.execve("/bin/sh", ["sh", "-c", shell, path], {})
"""


@pytest.fixture
def config(engine: str) -> RunConfig:
    return load_config(environ={}, options=engine_options(engine))


def keeper_of(session: Session) -> int:
    return keeper_process(session).pid


def keeper_process(session: Session) -> subprocess.Popen[bytes]:
    process: subprocess.Popen[bytes] = session._lifecycle._provisioner._process  # type: ignore[attr-defined]
    return process


def is_gone(session: Session) -> bool:
    return not list(of_run(session.run_name)) and not directory_of_name(session.run_name).exists()


def directory_of_name(name: str) -> Path:
    return directory_of("any").base / name


def run_script(text: str, engine: str, **more: str) -> subprocess.CompletedProcess[str]:
    environ = {**engine_environment(engine), **more}
    return subprocess.run(
        [sys.executable, "-c", text], env=environ, capture_output=True, text=True, timeout=LIMIT, check=False
    )


# -- nothing is left


def test_what_leaves_its_job_in_every_way_ends_with_the_instance(opener: Opener, tmp_path: Path) -> None:
    session = opener()
    [handle] = session.submit([JobRequest(argv=[sys.executable, "-c", DAEMON, str(tmp_path / "pid")])])
    wait_for((tmp_path / "pid").exists, "it runs")
    pid = int((tmp_path / "pid").read_text())
    assert EPOCH_VARIABLE.encode() not in Path(f"/proc/{pid}/environ").read_bytes()
    handle.result(LIMIT)
    session.close()
    assert not alive(pid)
    wait_for(lambda: is_gone(session), "nothing is left")


def test_a_killed_keeper_neither_ends_the_instance_nor_makes_room_for_another(opener: Opener, out: Path) -> None:
    first = opener("keeper")
    [job] = first.submit([JobRequest(argv=["sh", "-c", f"touch {out}; exec sleep 600"], key="one")])
    wait_running(job, out)
    os.kill(keeper_of(first), signal.SIGKILL)
    second = opener("keeper")
    assert second.hello.instance == first.hello.instance
    [same] = second.submit([JobRequest(argv=["sh", "-c", f"touch {out}; exec sleep 600"], key="one")])
    assert same.wait_submitted(LIMIT) == job.id
    second.close()
    assert not job.done()
    first.close()
    assert is_gone(first)


@pytest.mark.parametrize("group", [True, False])
def test_an_instance_that_is_told_to_end_leaves_nothing(opener: Opener, out: Path, group: bool) -> None:
    session = opener()
    [job] = session.submit([JobRequest(argv=["sh", "-c", f"touch {out}; exec sleep 600"])])
    wait_running(job, out)
    (os.killpg if group else os.kill)(keeper_of(session), signal.SIGTERM)
    assert job.result(LIMIT).outcome in (Outcome.LOST, Outcome.UNKNOWN, Outcome.CANCELLED)
    wait_for(lambda: is_gone(session), "it is gone")
    session.close()


@pytest.fixture
def place() -> Iterator[Path]:
    """pytest's own directories are too long for sockets."""
    with tempfile.TemporaryDirectory(prefix="ends-", dir="/tmp") as path:
        yield Path(path)


def test_a_client_that_is_killed_during_the_start_leaves_nothing(engine: str, place: Path) -> None:
    text = (
        "from executors import RunId, load_config, open_session\n"
        "open_session(RunId('test', 'killed'), load_config(options={'run.idleTimeout': 1}), report_progress=print)\n"
    )
    environ = engine_environment(engine)
    environ.update({PLACE_VARIABLE: str(place), "PYTHONUNBUFFERED": "1"})
    before = set(os.listdir("/tmp"))
    with subprocess.Popen([sys.executable, "-c", text], env=environ, stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        client.stdout.readline()  # it has begun one
        client.kill()
    left = place / "fluxop"
    wait_for(lambda: [one.name for one in left.iterdir()] == ["lock"], "nothing is left")
    assert not [name for name in set(os.listdir("/tmp")) - before if name.startswith("fluxop")]


# -- who may end it


def test_leaving_a_joined_session_leaves_the_instance(opener: Opener, config: RunConfig, out: Path) -> None:
    session = opener()
    [job] = session.submit([JobRequest(argv=["sh", "-c", f"touch {out}; exec sleep 600"])])
    wait_running(job, out)
    session.leave()
    with join_session(session.run_name, config, environ=environment()) as joined:
        [same] = joined.attach([str(job.id)])
    join_session(session.run_name, config, environ=environment()).close()
    last = join_session(session.run_name, config, environ=environment())
    assert not last.jobs()[0].result
    last.release()
    assert same.done()
    wait_for(lambda: is_gone(session), "nothing is left")


def test_joining_an_instance_that_ends_meanwhile_makes_none(config: RunConfig) -> None:
    directory = RunDirectory(directory_of("any").base, run_name(RunId("test", "ends-meanwhile")))
    fd = directory.create(b"")
    provisioner = LocalProvisioner(directory.path.name, config, environment(), "for the test")
    provisioner.find(LIMIT)
    ending = threading.Timer(0.3, os.close, [fd])
    ending.start()
    with pytest.raises(ProvisionError, match="just ended"):
        provisioner.wait_ready(print)
    ending.join()
    assert provisioner._process is None
    directory.remove()


def test_one_that_is_ending_is_not_joined(opener: Opener, config: RunConfig, out: Path) -> None:
    session = opener()
    told = out.with_suffix(".told")
    stubborn = f"trap 'touch {told}' TERM; touch {out}; while :; do sleep 1; done"
    [job] = session.submit([JobRequest(argv=["sh", "-c", stubborn])])
    wait_running(job, out)
    closing = threading.Thread(target=session.close)
    closing.start()
    # Who joined before that would use it, and it would not end.
    wait_for(told.exists, "its job is told to end")
    assert not _reconnect_options(session, config)
    closing.join()
    wait_for(lambda: is_gone(session), "nothing is left")


def _reconnect_options(session: Session, config: RunConfig) -> bool:
    try:
        join_session(session.run_name, config, environ=environment()).leave()
    except (ProvisionError, TransportError):
        return False
    return True


def test_what_is_used_is_not_reaped(opener: Opener, config: RunConfig) -> None:
    session = opener()
    assert not session._lifecycle.end_unused(by_force=True)
    [job] = session.submit([JobRequest(argv=["true"])])
    assert job.result(LIMIT).ok


def test_what_does_not_answer_is_not_reaped_while_it_is_used(
    opener: Opener, config: RunConfig, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = opener()
    socket = directory_of_name(session.run_name) / "agent.sock"
    assert usage.seen(socket) == "it has a client"
    [job] = session.submit([JobRequest(argv=["sh", "-c", f"touch {out}; exec sleep 600"])])
    wait_running(job, out)
    session.leave()
    wait_for(lambda: usage.seen(socket) == "it has a job", "only the job is seen")
    joined = join_session(session.run_name, config, environ=environment())
    agent = agent_pid(joined)
    os.kill(agent, signal.SIGSTOP)
    monkeypatch.setattr("executors.agent.wire.SILENCE_LIMIT", 0.2)
    monkeypatch.setattr("executors.client.Client.__init__.__kwdefaults__", {
        **_defaults(), "silence_limit": 0.2,
    })  # fmt: skip
    try:
        [one] = reap(config, environment(), wanted=lambda name: name == session.run_name)
        assert not one.ended and f"kill -CONT {agent}" in one.reason
    finally:
        os.kill(agent, signal.SIGCONT)
    monkeypatch.undo()
    joined.release()
    assert not directory_of_name(session.run_name).exists()


def _defaults() -> dict[str, object]:
    from executors.client import Client

    return dict(Client.__init__.__kwdefaults__ or {})


# -- a forked child

FORKS = """
import os, sys
from executors import ExecutorsError, JobRequest, RunId, load_config, open_session
from executors.errors import ForkedError

def child(function):
    pid = os.fork()
    if not pid:
        try:
            function()
        except ForkedError as err:
            print("refused" if str(os.getppid()) in str(err) else err, flush=True)
        except SystemExit:
            print("exits", flush=True)
        os._exit(0)
    os.waitpid(pid, 0)

with open_session(RunId("test", "forks-" + sys.argv[0] + str(os.getpid())), load_config()) as session:
    [job] = session.submit([JobRequest(argv=["sh", "-c", "while [ ! -e %s ]; do sleep 0.05; done"])])
    job.wait_submitted(60)

    def leave():
        with session:
            sys.exit(0)

    def end():
        with session:
            pass

    calls = [
        session.close, session.release, session.leave, job.cancel, job.result, session.nodes,
        lambda: session.submit([JobRequest(argv=["true"])]), lambda: session.cancel([job]),
        lambda: session.attach([job.id]), lambda: list(session.events()), lambda: list(job.output()),
        lambda: job.add_done_callback(print), lambda: session.acknowledge([job]), end, leave,
    ]
    for call in calls:
        child(call)
    pid = os.fork()
    if not pid:
        sys.exit(7)  # through the end of the block, and what Python does at its end
    print("code", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
    open(%r, "w").close()
    print(job.result(60).outcome, session.lost, flush=True)
"""


def test_a_forked_child_does_nothing_to_its_parents_instance(engine: str, out: Path) -> None:
    done = run_script(FORKS % (out, str(out)), engine)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:14] == ["refused"] * 14
    assert lines[14:] == ["exits", "code 7", "COMPLETED None"], done.stderr


# -- what a client brings along


def test_a_working_directory_that_is_gone_is_an_error_with_its_cure(
    opener: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(ProvisionError, match=r"working directory .* change to a directory that exists"):
        opener("gone")
    assert not directory_of("gone").path.exists()


def test_jobs_have_variables_that_are_not_text(engine: str, config: RunConfig) -> None:
    from executors import open_session

    told: list[str] = []
    value = b"Universit\xe9 'de\n\xff"
    environ = {**environment(), "SITE_NAME": os.fsdecode(value), "a-b": "\udce9", os.fsdecode(b"n\xe9"): "x"}
    with open_session(RunId("test", "bytes"), config, environ=environ, report_progress=told.append) as session:
        [job, other] = session.submit([
            JobRequest(argv=["printenv", "SITE_NAME"]),
            JobRequest(argv=["printenv", "SITE_NAME"], env={"SITE_NAME": "another"}),
        ])  # fmt: skip
        assert job.result(LIMIT).ok and other.result(LIMIT).ok
        assert b"".join(job.output()) == value + b"\n"
        assert b"".join(other.output()) == b"another\n"
    named = [line for line in told if "'a-b'" in line and "n\\udce9" in line]
    assert len(named) == (engine != "embedded")


# -- Ctrl-C

STUBBORN = """
import sys
from executors import JobRequest, RunId, load_config, open_session
with open_session(RunId("test", sys.argv[1]), load_config()) as session:
    script = "trap '' TERM INT; touch $0; while :; do sleep 1; done"
    [job] = session.submit([JobRequest(argv=["sh", "-c", script, sys.argv[2]])])
    print(flush=True)
    try:
        job.result()
    except KeyboardInterrupt:
        print("once", flush=True)
        raise
"""


def test_a_second_ctrl_c_does_not_wait_and_the_instance_ends_all_the_same(engine: str, out: Path) -> None:
    environ = engine_environment(engine)
    argv = [sys.executable, "-c", STUBBORN, f"twice-{engine}", str(out)]
    with subprocess.Popen(argv, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as client:
        assert client.stdout is not None
        client.stdout.readline()
        wait_for(out.exists, "the job runs")
        client.send_signal(signal.SIGINT)
        assert client.stdout.readline() == b"once\n"
        client.send_signal(signal.SIGINT)
        client.wait(LIMIT)
    name = run_name(RunId("test", f"twice-{engine}"))
    wait_for(lambda: not list(of_run(name)) and not directory_of_name(name).exists(), "nothing is left")


AT_THE_DOOR = """
import sys
from executors import JobRequest, RunId, Session, load_config, open_session
from executors.session.control import JobControl
def interrupted(*_):
    raise KeyboardInterrupt
with open_session(RunId("test", sys.argv[1]), load_config()) as session:
    session.submit([JobRequest(argv=["sleep", "600"])])
    # What a Ctrl-C does that comes when the session's own end has only just begun.
    setattr(Session if hasattr(Session, sys.argv[2]) else JobControl, sys.argv[2], interrupted)
"""


@pytest.mark.parametrize("place", ["close", "set_closed", "send_the_rest"])
def test_an_interruption_at_the_very_beginning_of_the_end_leaves_nothing(engine: str, place: str) -> None:
    environ = engine_environment(engine)
    run = f"door-{engine}-{place[:4]}"
    code = subprocess.run([sys.executable, "-c", AT_THE_DOOR, run, place], env=environ, stderr=subprocess.PIPE)
    assert code.returncode == -signal.SIGINT and b"KeyboardInterrupt" in code.stderr
    name = run_name(RunId("test", run))
    wait_for(lambda: not list(of_run(name)) and not directory_of_name(name).exists(), "nothing is left")


def test_a_keeper_whose_instance_does_not_follow_ends_it_by_force(opener: Opener, out: Path) -> None:
    session = opener()
    [job] = session.submit([JobRequest(argv=["sh", "-c", f"touch {out}; exec sleep 600"])])
    wait_running(job, out)
    agent = agent_pid(session)
    os.kill(agent, signal.SIGSTOP)
    keeper = keeper_process(session)
    keeper.send_signal(signal.SIGALRM)  # what comes when its patience with an ending agent is over
    with contextlib.suppress(TransportError):
        session.close()
    wait_for(lambda: is_gone(session) and not alive(agent), "nothing is left")
    assert keeper.wait(LIMIT) >= 0, "it has not been killed by it"
