"""Output is whole or an error, and costs nobody else anything, no matter who reads it and however slowly."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from executors import AgentError, JobRequest, Outcome, Session
from executors.agent.protocol import jobs as agent_jobs
from executors.client import WINDOW
from tests.support.jobs import run
from tests.support.sessions import Opener, acknowledge_now
from tests.support.waiting import LIMIT, wait_for

MB = 1_000_000


def zeros(size: int, **fields: object) -> JobRequest:
    return JobRequest(argv=["head", "-c", str(size), "/dev/zero"], **fields)  # type: ignore[arg-type]


def test_a_slow_reader_holds_up_neither_the_job_nor_other_jobs_and_fills_no_memory(session: Session) -> None:
    [big] = session.submit([zeros(60 * MB)])
    pieces = big.output()
    size = len(next(pieces))
    unread: list[bytes] = []
    paced = session.follow(str(big.id), "stdout", 0, lambda piece: unread.append(piece or b""), paced=True)  # type: ignore[arg-type]
    assert big.result(LIMIT).ok, "the job goes on"
    [other] = session.submit([JobRequest(argv=["echo", "x"])])
    assert other.result(LIMIT).ok and b"".join(other.output()) == b"x\n", "events and other output go on"
    wait_for(lambda: sum(map(len, unread)) >= WINDOW, "as much as may wait here has come")
    assert sum(map(len, unread)) < 2 * WINDOW
    paced.stop()
    assert size + sum(len(piece) for piece in pieces) == 60 * MB


# What is forgotten, and when, does not depend on the engine; under Flux the thousands of jobs would take a minute.
@pytest.mark.parametrize("engine", ["embedded"], scope="module", indirect=True)
def test_output_that_is_being_read_is_kept_whatever_becomes_of_its_job(opener: Opener) -> None:
    session = opener()
    [big] = session.submit([zeros(40 * MB)])
    pieces = big.output()
    size = len(next(pieces))
    big.result(LIMIT)
    for _ in range(3):
        others = session.submit([JobRequest(argv=["true"]) for _ in range(agent_jobs.KEEP_ENDED // 2 + 1)])
        assert all(handle.result(LIMIT * 2).ok for handle in others)
    acknowledge_now(session)
    wait_for(lambda: not session.jobs(ids=[str(big.id)]), "the job itself is forgotten")
    assert size + sum(len(piece) for piece in pieces) == 40 * MB
    with pytest.raises(AgentError, match="no such job"):
        list(big.output())
    session.close()


@pytest.mark.parametrize("harm", ["cut", "removed"])
def test_a_file_that_loses_what_was_read_of_it_ends_with_an_error(session: Session, tmp_path: Path, harm: str) -> None:
    log, go = tmp_path / "log", tmp_path / "go"
    script = f"echo first; while [ ! -e {go} ]; do sleep 0.05; done"
    [handle] = session.submit([JobRequest(argv=["sh", "-c", script], stdout=str(log))])
    pieces = handle.output()
    assert next(pieces) == b"first\n"
    if harm == "cut":
        log.write_text("f")
    else:
        log.unlink()
    go.touch()
    with pytest.raises(AgentError, match="cut to 1 bytes" if harm == "cut" else "not there"):
        list(pieces)
    assert handle.result(LIMIT).ok


def test_what_cannot_be_written_is_no_success(session: Session) -> None:
    result = run(session, "/bin/echo", "the only result", stdout="/dev/full", stderr="/dev/null")
    assert (result.outcome, result.returncode) == (Outcome.FAILED, 1)
    [handle] = session.submit([JobRequest(argv=["true"], stdout="/dev/full")])
    assert handle.result(LIMIT).ok and b"".join(handle.output()) == b""


@pytest.mark.parametrize("place", ["none/out", "file/out", "."])
def test_a_file_that_cannot_be_opened_fails_the_job_by_its_name(session: Session, tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    result = run(session, "true", stdout=str(tmp_path / place))
    assert result.outcome is Outcome.FAILED and result.returncode
    assert result.exception is not None and result.exception.type == "exec"
    assert f"cannot open {tmp_path / place} for output: " in result.exception.note


def test_a_fifo_that_somebody_reads_is_written_to(session: Session, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    fifo.chmod(0o666)  # in a pod the job is of another user
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert run(session, "sh", "-c", "echo one; echo two", stdout=str(fifo)).ok
        assert os.read(reader, 1000) == b"one\ntwo\n"
    finally:
        os.close(reader)


@pytest.mark.parametrize("name", ["{{id}}", "x{{name}}y", "{{", "a{{taskid}}/b{{id}}", "{{%s}}" % ("n" * 200)])
def test_braces_in_a_path_are_braces(session: Session, tmp_path: Path, name: str) -> None:
    place = tmp_path / name / "in {{id}}"
    place.mkdir(parents=True)
    place.chmod(0o777)
    result = run(session, "sh", "-c", "pwd; echo {{id}} >&2", cwd=str(place), stdout=f"{place}/o", stderr=f"{place}/e")
    assert result.ok, result.describe()
    assert ((place / "o").read_text(), (place / "e").read_text()) == (f"{place}\n", "{{id}}\n")


@pytest.mark.parametrize("word", ["{{id}}", "{{{", "a'{{name}}\"", "\1{{id}}", "{{%s}}" % ("n" * 5000)])
def test_braces_in_a_word_are_braces(session: Session, word: str) -> None:
    [handle] = session.submit([JobRequest(argv=["printf", "%s|", word, "x y"])])
    assert handle.result(LIMIT).ok
    assert b"".join(handle.output()).decode() == f"{word}|x y|"


def test_all_tasks_write_to_one_file(session: Session, tmp_path: Path, out: Path) -> None:
    out.write_text("of an earlier job\n")
    out.chmod(0o666)
    script = "for i in 1 2 3; do echo $FLUX_TASK_RANK; sleep 0.05; done"
    assert run(session, "sh", "-c", script, tasks=2, stdout=str(out)).ok
    assert sorted(out.read_text().split()) == ["0", "0", "0", "1", "1", "1"]


@pytest.mark.parametrize(
    "daemon",
    [
        "sleep 600 &",
        "(sleep 600 &)",
        "setsid -f sleep 600",
        "setsid -f sleep 600 </dev/null >/dev/null 2>&1",
        "(trap '' HUP TERM; exec sleep 600) &",
    ],
)
def test_a_job_is_over_when_its_tasks_are(opener: Opener, daemon: str) -> None:
    """Whatever they leave in the background, and whether that has their output open or not."""
    session = opener()
    [handle] = session.submit([JobRequest(argv=["sh", "-c", f"{daemon}\necho started"])])
    assert handle.result(LIMIT).ok
    assert b"".join(handle.output()) == b"started\n"
    session.close()
