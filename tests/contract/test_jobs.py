"""What a job does and how it ends, whatever engine runs it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from executors import AgentError, JobRequest, Outcome, Session
from executors.job import NO_INPUT
from tests.support.jobs import run, wait_running
from tests.support.sessions import ask
from tests.support.waiting import LIMIT


def test_a_job_that_succeeds_is_completed(session: Session, node_name: str) -> None:
    result = run(session, "true")
    assert result.ok
    assert (result.outcome, result.returncode, result.signal, result.exception) == (
        Outcome.COMPLETED,
        0,
        None,
        None,
    )
    assert result.node == node_name


def test_times_are_in_order(session: Session) -> None:
    times = run(session, "true").times
    assert times.submit is not None and times.start is not None and times.finish is not None
    assert times.submit <= times.start <= times.finish


def test_an_exit_code_is_reported(session: Session) -> None:
    result = run(session, "sh", "-c", "exit 3")
    assert (result.outcome, result.returncode) == (Outcome.FAILED, 3)


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, signal.SIGTERM])
def test_death_by_a_signal_is_reported(session: Session, number: signal.Signals) -> None:
    result = run(session, "sh", "-c", f"kill -{int(number)} $$")
    assert (result.outcome, result.signal, result.returncode) == (Outcome.SIGNALED, number, 128 + number)


def test_a_command_that_does_not_exist_cannot_be_run(session: Session) -> None:
    result = run(session, "/no/such/program")
    assert result.outcome is Outcome.FAILED
    assert result.returncode == 127
    assert result.exception is not None and result.exception.type == "exec"
    assert "No such file" in result.exception.note


def test_a_job_over_its_time_limit_is_ended_with_its_children(
    session: Session, tmp_path: Path, is_alive: Callable[[int], bool]
) -> None:
    pid_file = tmp_path / "pid"
    result = run(session, "sh", "-c", f"sleep 600 & echo $! > {pid_file}; wait", duration=1.0)
    assert result.outcome is Outcome.TIMEOUT
    child = int(pid_file.read_text())
    deadline = time.monotonic() + LIMIT
    while is_alive(child):
        assert time.monotonic() < deadline, "the job's child outlives its time limit"
        time.sleep(0.05)


def test_a_request_that_never_fits_is_refused(session: Session) -> None:
    result = run(session, "true", cores_per_task=100_000)
    assert result.outcome is Outcome.REJECTED
    assert result.exception is not None and "unsatisfiable" in result.exception.note


def test_one_bad_request_does_not_spoil_its_batch(session: Session) -> None:
    requests = [JobRequest(argv=["true"]), JobRequest(argv=[], tasks=0), JobRequest(argv=["false"])]
    outcomes = [handle.result(LIMIT).outcome for handle in session.submit(requests)]
    assert outcomes == [Outcome.COMPLETED, Outcome.REJECTED, Outcome.FAILED]


def test_every_problem_of_a_request_is_named(session: Session) -> None:
    result = run(session, duration=-1.0, urgency=99)
    assert result.exception is not None
    for field in ("argv", "duration", "urgency"):
        assert field in result.exception.note


def test_a_running_job_can_be_cancelled(session: Session, tmp_path: Path) -> None:
    [handle] = session.submit([JobRequest(argv=["sh", "-c", f"touch {tmp_path}/up; exec sleep 600"])])
    wait_running(handle, tmp_path / "up")
    handle.cancel("no longer wanted")
    result = handle.result(LIMIT)
    assert result.outcome is Outcome.CANCELLED
    assert result.exception is not None and "no longer wanted" in result.exception.note


def test_a_pending_job_can_be_cancelled_and_never_starts(session: Session) -> None:
    [handle] = session.submit([JobRequest(argv=["true"], urgency=0)])
    handle.cancel()
    result = handle.result(LIMIT)
    assert (result.outcome, result.times.start) == (Outcome.CANCELLED, None)


def test_a_handle_and_the_agent_agree_on_the_state(session: Session) -> None:
    held = session.submit_one(JobRequest(argv=["true"], urgency=0))
    ended = session.submit_one(JobRequest(argv=["true"]))
    ended.result(LIMIT)
    deadline = time.monotonic() + LIMIT
    while held.state != "SCHED" and time.monotonic() < deadline:
        time.sleep(0.02)
    known = session.jobs(ids=[str(held.id), str(ended.id)])
    assert [(job.id, job.state) for job in known] == [(held.id, held.state), (ended.id, ended.state)]
    assert (held.state, ended.state) == ("SCHED", "INACTIVE")


def test_a_running_job_can_be_sent_a_signal(session: Session, tmp_path: Path) -> None:
    script = f"trap 'exit 42' USR1; touch {tmp_path}/up; while :; do sleep 0.05; done"
    [handle] = session.submit([JobRequest(argv=["sh", "-c", script])])
    wait_running(handle, tmp_path / "up")
    handle.kill(signal.SIGUSR1)
    assert handle.result(LIMIT).returncode == 42


def test_a_signal_for_a_job_that_has_ended_is_refused(session: Session) -> None:
    [handle] = session.submit([JobRequest(argv=["true"])])
    handle.result(LIMIT)
    with pytest.raises(AgentError):
        handle.kill(signal.SIGTERM)


def test_directory_and_environment_are_the_ones_asked_for(
    session: Session, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Too late: the session's environment was taken when it was opened.
    monkeypatch.setenv("CONTRACT_INHERITED", "set")
    run(
        session, "sh", "-c", f'echo "$PWD|$GIVEN|${{PATH:+path}}|${{CONTRACT_INHERITED-unset}}" > {out}',
        cwd=str(tmp_path), env={"GIVEN": "a value"},
    )  # fmt: skip
    assert out.read_text() == f"{tmp_path}|a value|path|unset\n"


def test_an_inherited_variable_can_be_removed(session: Session, out: Path) -> None:
    run(session, "sh", "-c", f'echo "${{HOME-unset}}" > {out}', env={"HOME": None})
    assert out.read_text() == "unset\n"


@pytest.mark.parametrize(
    "word", ["ünïcödé", "two\nlines", "quotes ' \" $HOME `id`", "tab\tand \\ backslash", "—" * 300]
)
def test_words_arrive_as_they_were_sent(session: Session, out: Path, word: str) -> None:
    assert run(session, "sh", "-c", 'printf %s "$1" > "$2"', "sh", word, str(out)).ok
    assert out.read_text() == word


def test_a_megabyte_of_arguments_arrives(session: Session, out: Path) -> None:
    words = [f"{index:04d}" + "x" * 1000 for index in range(1000)]
    assert run(session, "sh", "-c", 'f="$1"; shift; printf "%s\\n" "$@" > "$f"', "sh", str(out), *words).ok
    assert out.read_text().splitlines() == words


def test_an_argument_longer_than_linux_takes_is_refused_with_the_cure(session: Session) -> None:
    result = run(session, "echo", "x" * 200_000)
    assert result.outcome is Outcome.REJECTED
    assert result.exception is not None and "put it into a file" in result.exception.note


def test_output_streams_are_kept_apart_and_byte_exact(session: Session) -> None:
    data = "\\000\\001\\377\\n\\200end"
    [handle] = session.submit([JobRequest(argv=["sh", "-c", f"printf '{data}'; printf problem >&2"])])
    assert b"".join(handle.output("stdout")) == b"\x00\x01\xff\n\x80end"
    assert b"".join(handle.output("stderr")) == b"problem"
    assert b"".join(handle.output("stdout", offset=3)) == b"\n\x80end"


def test_output_of_a_running_job_can_be_followed(session: Session, tmp_path: Path) -> None:
    go = tmp_path / "go"
    script = f"echo first; while [ ! -e {go} ]; do sleep 0.05; done; echo second"
    [handle] = session.submit([JobRequest(argv=["sh", "-c", script])])
    pieces = handle.output()
    assert next(pieces) == b"first\n"
    go.touch()
    assert b"".join(pieces) == b"second\n"


def test_much_output_is_complete(session: Session, many_lines: int) -> None:
    [handle] = session.submit([JobRequest(argv=["seq", "1", str(many_lines)])])
    assert b"".join(handle.output()) == b"".join(b"%d\n" % n for n in range(1, many_lines + 1))


def test_output_files_are_written_where_asked(session: Session, tmp_path: Path) -> None:
    both, one = tmp_path / "both", tmp_path / "one"
    script = "echo a; echo b >&2; echo c"
    assert run(session, "sh", "-c", script, stdout=str(both), stderr=str(both)).ok
    assert sorted(both.read_text().split()) == ["a", "b", "c"]
    assert run(session, "sh", "-c", script, stdout=str(one), stderr=str(tmp_path / "err")).ok
    assert (one.read_text(), (tmp_path / "err").read_text()) == ("a\nc\n", "b\n")


def test_output_that_went_to_a_file_can_be_followed_too(session: Session, tmp_path: Path) -> None:
    log, go = tmp_path / "log", tmp_path / "go"
    script = f"echo first; while [ ! -e {go} ]; do sleep 0.05; done; printf 'second\\377'"
    [handle] = session.submit([JobRequest(argv=["sh", "-c", script], stdout=str(log), stderr=str(log))])
    pieces = handle.output()
    assert next(pieces) == b"first\n"
    go.touch()
    assert b"".join(pieces) == b"second\xff" == log.read_bytes()[6:]
    assert b"".join(handle.output("stderr", offset=6)) == b"second\xff"


def test_output_can_be_read_after_the_result(session: Session) -> None:
    [handle] = session.submit([JobRequest(argv=["echo", "there"])])
    assert handle.result(LIMIT).ok
    assert b"".join(handle.output()) == b"there\n"


def test_output_into_something_that_is_no_file_holds_nobody_up(session: Session, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for name in ("fifo", ""):
        [handle] = session.submit([JobRequest(argv=["echo", "x"], stdout=str(tmp_path / name))])
        assert ask(session, "info")["active"] >= 0  # the agent answers
        handle.cancel()
        handle.result(LIMIT)
        assert b"".join(handle.output()) == b""


def test_all_tasks_of_a_job_run(session: Session, tmp_path: Path) -> None:
    assert run(session, "sh", "-c", f"touch {tmp_path}/$FLUX_TASK_RANK", tasks=2).ok
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1"]


def test_the_worst_task_decides(session: Session) -> None:
    result = run(session, "sh", "-c", 'exit "$((FLUX_TASK_RANK * 7))"', tasks=2)
    assert (result.outcome, result.returncode) == (Outcome.FAILED, 7)


def test_usage_is_measured_when_asked_for(session: Session, need: object) -> None:
    program = "data = bytearray(60_000_000); sum(range(3_000_000))"
    usage = run(session, "python3", "-c", program, measure=True).usage
    assert usage is not None
    assert usage.cpu > 0.01
    assert usage.max_rss is not None and 60e6 < usage.max_rss < 500e6


def test_urgent_jobs_start_first(session: Session, tmp_path: Path) -> None:
    cores = sum(node.cores for node in session.nodes())
    go, order = tmp_path / "go", tmp_path / "order"
    blocker = JobRequest(argv=["sh", "-c", f"touch {tmp_path}/up; while [ ! -e {go} ]; do sleep 0.02; done"],
                         cores_per_task=cores)  # fmt: skip
    [first] = session.submit([blocker])
    wait_running(first, tmp_path / "up")
    handles = session.submit(
        [
            JobRequest(argv=["sh", "-c", f"echo {urgency} >> {order}"], urgency=urgency, cores_per_task=cores)
            for urgency in (10, 16, 31, 5)
        ]
    )
    deadline = time.monotonic() + LIMIT
    while any(handle.id is None for handle in handles):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    go.touch()
    assert all(handle.result(LIMIT).ok for handle in handles)
    assert order.read_text().split() == ["31", "16", "10", "5"]


def test_no_more_jobs_run_than_there_are_cores(session: Session, tmp_path: Path) -> None:
    cores = sum(node.cores for node in session.nodes())
    script = f"d=$(mktemp {tmp_path}/run.XXXXXX); ls {tmp_path} | grep -c run. >> {tmp_path}/seen; sleep 0.05; rm $d"
    handles = session.submit([JobRequest(argv=["sh", "-c", script]) for _ in range(cores * 5)])
    assert all(handle.result(LIMIT).ok for handle in handles)
    assert max(int(line) for line in (tmp_path / "seen").read_text().split()) <= cores


def test_a_thousand_jobs_are_cancelled_at_once(session: Session) -> None:
    handles = session.submit([JobRequest(argv=["sleep", "600"]) for _ in range(1000)])
    session.cancel(handles)
    assert {handle.result(LIMIT * 2).outcome for handle in handles} == {Outcome.CANCELLED}
    assert run(session, "true").ok


@pytest.mark.parametrize("given", [{"measure": True}, {"secret_env": {"A": "b"}}, {"attributes": NO_INPUT}])
def test_a_job_that_reads_stdin_finds_its_end(session: Session, given: dict[str, Any]) -> None:
    """And does not wait for ever for what nobody will send."""
    [handle] = session.submit([JobRequest(argv=["sh", "-c", "cat; echo end"], tasks=2, **given)])
    assert handle.result(LIMIT).ok
    assert b"".join(handle.output()) == b"end\nend\n"
