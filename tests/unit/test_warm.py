"""When a warm server is asked for, and which jobs are for it; no process runs."""

from __future__ import annotations

import shlex
import struct
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from executors import AgentError
from snakemake_executor_flux.places import RemotePaths
from snakemake_executor_flux.steps import warm
from snakemake_executor_flux.steps.warm import AGAIN, MOST, WarmServers
from snakemake_executor_flux.warm import client, server

HERE = RemotePaths(files=True, python="/opt/a b/python", package=True)
THERE = RemotePaths(files=False, python="python3", package=False)


@pytest.fixture(autouse=True)
def no_plugins_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """``python -m pytest`` has the working directory on Python's path, and this project's plugin lies there."""
    monkeypatch.setattr(warm, "given_by_start", lambda: None)


class Session:
    """Keeps what is asked of it, and the answers that it gives."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, list[str], Mapping[str, str | None]]] = []
        self.answers: list[Future[dict[str, Any]]] = []

    def start_helper(self, name: str, argv: list[str], env: Mapping[str, str | None]) -> Future[dict[str, Any]]:
        self.asked.append((name, argv, env))
        self.answers.append(Future())
        return self.answers[-1]


@pytest.fixture(autouse=True)
def _no_plugins_here(monkeypatch: pytest.MonkeyPatch) -> None:
    # However the tests were started: this repository has one of Snakemake's plugins in it.
    monkeypatch.setattr(warm, "given_by_start", lambda: None)


def servers(session: Session, places: RemotePaths = HERE, *, inherits: bool = True) -> WarmServers:
    return WarmServers(session.start_helper, "12ab", places, inherits=inherits)


def test_a_server_is_asked_for_once_and_again_when_it_may_have_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    session, clock = Session(), [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    one = servers(session)
    texts = [one.program({}, {"A": "1"}).words for _ in range(3)]
    assert len(session.asked) == 1 and len(set(texts)) == 1
    clock[0] += AGAIN
    one.program({}, {"A": "1"})
    [(name, argv, env), again] = session.asked
    assert again == (name, argv, env) and env == {"A": "1"}
    assert argv == ["/opt/a b/python", "-P", "-m", server.__name__, name, ""]
    words = shlex.split(texts[0])
    assert words[:4] == ["/opt/a b/python", "-IS", client.__file__, name]
    assert words[5:7] == ["4", "/opt/a b/python"]


def test_an_environment_of_its_own_has_a_server_of_its_own_up_to_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session()
    one = servers(session)
    for number in range(MOST):
        monkeypatch.setenv("SET_BY_A_WORKFLOW", str(number))
        assert one.against({}) == ""
        one.program({}, {})
    assert len({name for name, _, _ in session.asked}) == MOST
    monkeypatch.setenv("SET_BY_A_WORKFLOW", "more")
    assert "more often than there may be warm servers" in one.against({})
    monkeypatch.setenv("SET_BY_A_WORKFLOW", "0")
    assert one.against({}) == ""


@pytest.mark.parametrize("name", ["PWD", "FLUX_JOB_ID", "FXO_EPOCH", "CUDA_VISIBLE_DEVICES", "TOKEN"])
def test_what_differs_between_jobs_makes_no_other_server(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    session = Session()
    one = servers(session)
    for value in ("1", "2"):
        monkeypatch.setenv(name, value)
        one.program({"TOKEN": "secret"}, {})
    [(_, argv, env)] = session.asked
    assert argv[-1] == "TOKEN" and "secret" not in repr((argv, env))


def test_elsewhere_the_environment_here_does_not_matter_and_the_programs_are_texts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    session = Session()
    one = servers(session, THERE, inherits=False)
    program = one.program({}, {})
    monkeypatch.setenv("SET_BY_A_WORKFLOW", "x")
    assert one.program({}, {}) == program
    [(_, argv, _)] = session.asked
    assert argv[:2] == ["python3", "-c"] and "def main(" in argv[2] and "def main(" in argv[-1]
    assert program.words == "warm"
    # Neither of them imports this package, which is not there.
    for text in (*argv, program.definition):
        assert "import snakemake_executor_flux" not in text and "from snakemake_executor_flux" not in text


def test_an_instance_that_starts_no_helpers_is_asked_no_more_and_says_why() -> None:
    session = Session()
    one = servers(session)
    one.program({}, {})
    session.answers[0].set_exception(AgentError("bad-request", "no such request: helper"))
    assert one.against({}) == "there is no warm server: no such request: helper"


def test_plugins_in_the_working_directory_are_seen_by_no_server(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "snakemake_storage_plugin_mine").mkdir()
    monkeypatch.setattr(warm, "given_by_start", lambda: str(tmp_path))
    assert str(tmp_path) in servers(Session()).against({})


def test_an_environment_is_what_a_new_process_would_have_after_its_imports() -> None:
    changes = {b"SET": (None, b"import"), b"CHANGED": (b"1", b"2"), b"GONE": (b"1", None)}
    origin = server.Origin({}, changes, ())
    before = {b"CHANGED": b"1", b"GONE": b"1", b"OTHER": b"x"}
    assert origin.as_started(before) == {b"SET": b"import", b"CHANGED": b"2", b"OTHER": b"x"}
    of_job = {b"SET": b"job", b"CHANGED": b"job", b"GONE": b"job"}
    assert origin.as_started(of_job) == of_job


def test_both_programs_speak_one_protocol() -> None:
    assert (client.HELLO, client.READY, client.GO) == (server.HELLO, server.READY, server.GO)
    assert struct.calcsize(server.ANSWER) == client.ANSWER
