"""Sessions: keys, events, reconnecting, and what is left when a client or an agent ends in a bad way."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from executors import JobEvent, JobHandle, JobRequest, Outcome, RunId, Session, SessionClosedError
from executors.names import run_name
from executors.provision.rundir import RunDirectory, base_directory
from tests.contract.conftest import Opener, environment
from tests.contract.test_jobs import LIMIT, wait_running
from tests.processes import alive


def wait_for(condition: Callable[[], bool], what: str, limit: float = LIMIT) -> None:
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def directory_of(run: str) -> RunDirectory:
    return RunDirectory(base_directory(environment()), run_name(RunId("test", run)))


def agent_pid(session: Session) -> int:
    return int(session.request("info")["pid"])


def counted(path: Path, **fields: object) -> JobRequest:
    """A job that leaves one line for each time that it runs."""
    return JobRequest(argv=["sh", "-c", f"echo ran >> {path}"], **fields)  # type: ignore[arg-type]


# -- keys


def test_the_same_key_twice_runs_once(session: Session, out: Path) -> None:
    first, second = session.submit([counted(out, key="twice-a"), counted(out, key="twice-a")])
    assert first.result(LIMIT).ok and second.result(LIMIT).ok
    assert first.id == second.id
    assert out.read_text() == "ran\n"


def test_the_same_key_from_two_clients_at_once_runs_once(opener: Opener, out: Path) -> None:
    one, two = opener("shared-keys"), opener("shared-keys")
    requests = [counted(out, key=f"race-{index}") for index in range(50)]
    results: dict[int, list[str | None]] = {}

    def submit(which: int, session: Session) -> None:
        handles = session.submit(requests)
        assert all(handle.result(LIMIT).ok for handle in handles)
        results[which] = [handle.id for handle in handles]

    threads = [threading.Thread(target=submit, args=pair) for pair in enumerate((one, two))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    assert results[0] == results[1]
    assert out.read_text().count("ran") == 50
    one.close()
    two.close()


def test_an_acknowledged_key_is_a_new_job(opener: Opener, out: Path) -> None:
    session = opener(auto_acknowledge=False)
    [first] = session.submit([counted(out, key="again")])
    assert first.result(LIMIT).ok
    [second] = session.submit([counted(out, key="again")])
    assert second.result(LIMIT).ok and second.id == first.id
    second.acknowledge()
    wait_for(lambda: not session.unacknowledged(), "the acknowledgement arrives")
    [third] = session.submit([counted(out, key="again")])
    assert third.result(LIMIT).ok and third.id != first.id
    assert out.read_text() == "ran\nran\n"


# -- events and results


def test_events_of_a_job_come_in_order_and_once(session: Session) -> None:
    seen: list[JobEvent] = []
    stream = session.events()
    [handle] = session.submit([JobRequest(argv=["true"])])
    handle.result(LIMIT)
    for event in stream:
        if event.id == handle.id:
            seen.append(event)
            if event.name == "clean":
                break
    assert [event.name for event in seen] == ["submit", "alloc", "start", "finish", "clean"]
    sequences = [event.cursor.sequence for event in seen]
    assert sequences == sorted(set(sequences))


def test_events_can_be_taken_up_after_a_cursor(session: Session) -> None:
    [handle] = session.submit([JobRequest(argv=["true"])])
    handle.result(LIMIT)
    own = _until_clean(session, handle, None)
    rest = _until_clean(session, handle, own[1].cursor)
    assert rest == own[2:]


def _until_clean(session: Session, handle: JobHandle, after: object) -> list[JobEvent]:
    found = []
    for event in session.events(after):  # type: ignore[arg-type]
        if event.id == handle.id:
            found.append(event)
            if event.name == "clean":
                return found
    raise AssertionError("the stream of events ended early")


def test_callbacks_run_once_each_also_when_added_late(session: Session) -> None:
    called: list[str] = []
    done = threading.Event()
    [handle] = session.submit([JobRequest(argv=["true"])])
    handle.add_done_callback(lambda handle: called.append("early"))
    handle.result(LIMIT)

    def late(handle: JobHandle) -> None:
        called.append("late")
        done.set()

    handle.add_done_callback(late)
    assert done.wait(LIMIT)
    assert called == ["early", "late"]


def test_a_callback_that_raises_harms_nobody(session: Session, caplog: pytest.LogCaptureFixture) -> None:
    [handle] = session.submit([JobRequest(argv=["true"])])
    handle.add_done_callback(lambda handle: 1 / 0)  # type: ignore[arg-type]
    assert handle.result(LIMIT).ok
    [other] = session.submit([JobRequest(argv=["true"])])
    assert other.result(LIMIT).ok


def test_waiting_has_a_time_out(session: Session) -> None:
    [handle] = session.submit([JobRequest(argv=["sleep", "600"])])
    with pytest.raises(TimeoutError):
        handle.result(0.2)
    handle.cancel()
    handle.result(LIMIT)


def test_a_full_instance_is_filled_again_in_bursts_but_urgent_jobs_go_at_once(opener: Opener, tmp_path: Path) -> None:
    session = opener(max_in_flight=8)
    gates = [tmp_path / str(index) for index in range(8)]
    scripts = [f"until [ -e {gate} ]; do sleep 0.05; done" for gate in gates]
    held = session.submit([JobRequest(argv=["sh", "-c", script]) for script in scripts])
    waiting = session.submit([JobRequest(argv=["true"]) for _ in range(4)])
    wait_for(lambda: all(handle.id for handle in held), "the instance is full")
    gates[0].touch()
    assert held[0].result(LIMIT).ok
    [urgent] = session.submit([JobRequest(argv=["true"], urgency=20)])
    wait_for(lambda: urgent.id is not None, "the urgent job is submitted")
    assert not any(handle.id for handle in waiting)
    for gate in gates:
        gate.touch()
    assert all(handle.result(LIMIT).ok for handle in [*held, *waiting, urgent])


def test_more_jobs_than_may_be_in_flight_all_run(opener: Opener) -> None:
    session = opener(max_in_flight=3)
    handles = session.submit([JobRequest(argv=["true"]) for _ in range(20)])
    assert all(handle.result(LIMIT).ok for handle in handles)
    session.close()


# -- the end of a session


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
    session.close(release=False)
    wait_for(lambda: not directory_of("idle").path.exists(), "the instance ends and tidies up")


_CLIENT = """
import sys, time
from executors import *
environ = {k: v for k, v in __import__("os").environ.items() if not k.startswith("FLUX_")}
config = load_config(environ=environ, options={"run.engine": sys.argv[1], "run.provisioner": "local",
                     "run.orphanTimeout": float(sys.argv[3])})
session = open_session(RunId("test", sys.argv[2]), config, environ=environ)
[handle] = session.submit([JobRequest(argv=["sh", "-c", sys.argv[4]], key="survivor")])
while handle.id is None: time.sleep(0.01)
print(handle.id, flush=True)
time.sleep(600)
"""


def _kill_client(engine: str, run: str, orphan: float, script: str) -> str:
    """Start a client, let it submit one job, kill it with SIGKILL; the job's id."""
    argv = [sys.executable, "-c", _CLIENT, engine, run, str(orphan), script]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as client:
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
    assert [job["id"] for job in session.unacknowledged()] == [job_id]
    [handle] = session.submit([JobRequest(argv=["sh", "-c", script], key="survivor")])
    go.touch()
    assert handle.result(LIMIT).ok and handle.id == job_id
    assert out.read_text() == "ran\n"
    session.close()


# -- cuts


def test_a_dead_agent_ends_or_resumes_every_job_and_never_lies(engine: str, opener: Opener, tmp_path: Path) -> None:
    session = opener("dead-agent")
    go = tmp_path / "go"
    script = f"echo ran >> {tmp_path}/out; while [ ! -e {go} ]; do sleep 0.05; done"
    [running] = session.submit([JobRequest(argv=["sh", "-c", script])])
    wait_running(running, tmp_path / "out")
    os.kill(agent_pid(session), signal.SIGKILL)
    if engine == "flux":
        # The supervisor starts a new agent; the jobs belong to Flux and go on.
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


# -- hostile clients


class Raw:
    """A client without manners."""

    def __init__(self, session: Session) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(LIMIT)
        path = base_directory(environment()) / session.run_name / "agent.sock"
        self.socket.connect(str(path))
        self.lines = self.socket.makefile("rb")

    def ask(self, line: bytes) -> dict[str, object]:
        self.socket.sendall(line)
        answer: dict[str, object] = json.loads(self.lines.readline())
        return answer

    def hello(self) -> Raw:
        assert "ok" in self.ask(b'{"id":1,"op":"hello","versions":[1]}\n')
        return self

    def close(self) -> None:
        self.lines.close()
        self.socket.close()


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"garbage\n", "bad-message"),
        (b"[1,2]\n", "bad-message"),
        (b"\xff\xfe\x00\n", "bad-message"),
        (b"[" * 100_000 + b"\n", "bad-message"),
        (b'{"id":2,"op":"list"}\n', "no-hello"),
        (b'{"id":2,"op":"hello","versions":[99]}\n', "version"),
        (b'{"id":"x","op":"hello"}\n', "bad-message"),
    ],
)
def test_a_bad_line_is_answered_and_harms_nobody(session: Session, line: bytes, code: str) -> None:
    raw = Raw(session)
    answer = raw.ask(line)
    assert isinstance(answer["error"], dict) and answer["error"]["code"] == code
    raw.hello()
    raw.close()
    [handle] = session.submit([JobRequest(argv=["true"])])
    assert handle.result(LIMIT).ok


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"op": "submit"}, "bad-request"),
        ({"op": "submit", "items": [1]}, "bad-request"),
        ({"op": "cancel", "ids": "all"}, "bad-request"),
        ({"op": "kill", "ids": [], "signal": 0}, "bad-request"),
        ({"op": "output", "job": "nope"}, "not-found"),
        ({"op": "put", "path": "../escape", "data": ""}, "bad-request"),
        ({"op": "get", "path": "/no/such/file"}, "engine"),
        ({"op": "watch", "after": ["x"]}, "bad-request"),
        ({"op": "frobnicate"}, "unknown-op"),
    ],
)
def test_a_bad_request_is_answered_with_its_reason(session: Session, request_: dict[str, object], code: str) -> None:
    raw = Raw(session).hello()
    answer = raw.ask(json.dumps({"id": 7, **request_}).encode() + b"\n")
    assert answer["re"] == 7
    assert isinstance(answer["error"], dict) and answer["error"]["code"] == code and answer["error"]["message"]
    raw.close()


def test_a_hundred_megabyte_line_is_refused_and_harms_nobody(session: Session) -> None:
    raw = Raw(session)
    for _ in range(100):
        raw.socket.sendall(b"x" * 1_000_000)
    answer = raw.ask(b"\n")
    assert isinstance(answer["error"], dict) and "longer than" in str(answer["error"]["message"])
    raw.hello().close()
    [handle] = session.submit([JobRequest(argv=["true"])])
    assert handle.result(LIMIT).ok


def test_a_client_that_vanishes_mid_line_or_mid_reply_harms_nobody(session: Session) -> None:
    half = Raw(session)
    half.socket.sendall(b'{"id":1,"op":"hel')
    half.close()
    for _ in range(5):
        gone = Raw(session).hello()
        gone.socket.sendall(b'{"id":2,"op":"list"}\n' * 200)
        gone.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        gone.close()
    [handle] = session.submit([JobRequest(argv=["true"])])
    assert handle.result(LIMIT).ok


def test_a_client_that_never_reads_holds_nobody_up(session: Session) -> None:
    lazy = Raw(session).hello()
    lazy.socket.sendall(b'{"id":2,"op":"watch","after":null}\n')
    handles = session.submit([JobRequest(argv=["true"]) for _ in range(50)])
    assert all(handle.result(LIMIT).ok for handle in handles)
    lazy.close()


# -- files, resources, drain


def test_a_small_file_travels_there_and_back(session: Session) -> None:
    data = "AAH/Cg=="
    session.request("put", path="sub/file", data=data)
    answer = session.request("get", path="sub/file")
    assert (answer["data"], answer["eof"], answer["size"]) == (data, True, 4)


def test_resources_name_the_nodes(session: Session, node_name: str) -> None:
    [node] = session.resources()["nodes"]
    assert node["cores"] >= 1 and node["host"] == node_name and node["up"] and not node["drained"]
    assert node["memory"] > 1e8


def test_a_drained_node_starts_nothing_until_it_is_undrained(session: Session) -> None:
    session.request("drain", ranks="0", reason="test")
    assert session.resources()["nodes"][0]["drained"]
    [handle] = session.submit([JobRequest(argv=["true"])])
    with pytest.raises(TimeoutError):
        handle.result(0.5)
    session.request("drain", ranks="0", undo=True)
    assert handle.result(LIMIT).ok
