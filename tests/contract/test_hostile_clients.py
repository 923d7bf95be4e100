"""Clients that send what they should not, or read nothing: nobody else is harmed."""

from __future__ import annotations

import json
import socket
import time

import pytest

from executors import JobRequest, Session
from executors.provision.local.rundir import base_directory
from tests.support.environment import environment
from tests.support.sessions import Opener
from tests.support.waiting import LIMIT


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


def test_a_slow_client_hears_of_every_end_before_that_of_the_agent(opener: Opener) -> None:
    session = opener()
    slow = Raw(session)
    slow.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    slow.hello()
    slow.socket.sendall(b'{"id":2,"op":"watch","after":null}\n')
    handles = session.submit([JobRequest(argv=["sleep", "600"], name="x" * 500) for _ in range(1500)])
    for handle in handles:
        handle.wait_submitted(LIMIT)
    ending = Raw(session).hello()
    ending.socket.sendall(b'{"id":2,"op":"shutdown","reason":"its time has come"}\n')
    time.sleep(1.0)
    lines = [json.loads(line) for line in slow.lines]
    assert lines[-1] == {"bye": "its time has come"}
    cleaned = {event[1] for line in lines for event in line.get("ev", []) if event[2] == "clean"}
    assert cleaned == {handle.id for handle in handles}
    ending.close()
    slow.close()
