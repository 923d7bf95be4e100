"""The agent is killed for good, at every stage of a job's life: what is reported is true, and nothing is left."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from executors import JobRequest, Outcome, Session
from executors.provision.local.rundir import base_directory
from executors.transport.streams import SocketStream
from tests.processes import alive, kill_agent, of_run
from tests.support.environment import environment
from tests.support.jobs import counted
from tests.support.sessions import Opener
from tests.support.waiting import wait_for

LIMIT = 60.0


@pytest.mark.parametrize("delay", [0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8])
def test_an_agent_that_dies_at_any_moment_never_makes_a_success(opener: Opener, tmp_path: Path, delay: float) -> None:
    session = opener(f"dies-{delay}")
    killer = threading.Timer(delay, kill_agent, [session.run_name])
    killer.start()
    paths = [tmp_path / str(index) for index in range(40)]
    handles = session.submit([counted(path) for path in paths])
    [endless] = session.submit([JobRequest(argv=["sleep", "1000"])])
    results = [handle.result(LIMIT) for handle in handles]
    for path, result in zip(paths, results, strict=True):
        ran = path.read_text() if path.exists() else ""
        assert ran in ("", "ran\n")
        assert ran or result.outcome is not Outcome.COMPLETED
        if not result.ok:
            assert result.outcome in (Outcome.UNKNOWN, Outcome.CANCELLED, Outcome.LOST, Outcome.SIGNALED)
            assert result.exception is not None or result.outcome is Outcome.SIGNALED
    assert not endless.result(LIMIT).ok
    assert session.lost
    killer.join()
    session.close()
    wait_for(lambda: not list(of_run(session.run_name)), "all processes of the run have ended")
    assert not (base_directory(environment()) / session.run_name).exists()


def test_what_is_asked_of_a_lost_session_is_refused_at_once(opener: Opener) -> None:
    session = opener("lost")
    kill_agent(session.run_name)
    wait_for(lambda: session.lost is not None, "the loss is noticed")
    [handle] = session.submit([JobRequest(argv=["true"])])
    result = handle.result(LIMIT)
    assert result.outcome in (Outcome.CANCELLED, Outcome.UNKNOWN) and result.exception is not None
    session.close()


def test_jobs_of_an_instance_that_died_do_not_go_on(opener: Opener, tmp_path: Path) -> None:
    session = opener("orphans")
    script = f"echo $$ > {tmp_path}/pid; (trap '' TERM; sleep 1000) & echo $! > {tmp_path}/child; wait"
    [handle] = session.submit([JobRequest(argv=["sh", "-c", script])])
    wait_for(lambda: (tmp_path / "child").exists() and bool((tmp_path / "child").read_text()), "the job runs")
    pids = [int((tmp_path / name).read_text()) for name in ("pid", "child")]
    kill_agent(session.run_name)
    assert not handle.result(LIMIT).ok
    wait_for(lambda: not any(alive(pid) for pid in pids), "its processes have ended")
    session.close()


def test_a_dead_instance_tidies_up_without_any_client(opener: Opener, tmp_path: Path) -> None:
    session = opener("nobody")
    session.submit([JobRequest(argv=["sh", "-c", f"echo $$ > {tmp_path}/pid; sleep 1000"])])
    wait_for(lambda: (tmp_path / "pid").exists() and bool((tmp_path / "pid").read_text()), "the job runs")
    session.leave()
    kill_agent(session.run_name)
    directory = base_directory(environment()) / session.run_name
    wait_for(lambda: not directory.exists() and not alive(int((tmp_path / "pid").read_text())), "nothing is left")


# -- races of clients


def test_a_result_from_before_its_acknowledgement_never_answers_a_new_request(session: Session, out: Path) -> None:
    for count in range(1, 41):
        [handle] = session.submit([counted(out, key="again and again")])
        assert handle.result(LIMIT).ok
        assert out.read_text().count("ran") == count


def test_a_key_that_belongs_to_other_work_is_refused(opener: Opener) -> None:
    session = opener(auto_acknowledge=False)
    [first] = session.submit([JobRequest(argv=["true"], key="mine")])
    assert first.result(LIMIT).ok
    [second] = session.submit([JobRequest(argv=["false"], key="mine")])
    result = second.result(LIMIT)
    assert result.outcome is Outcome.REJECTED and result.exception is not None
    assert "belongs to a different job" in result.exception.note
    session.close()


@pytest.mark.parametrize("release", [False, True])
def test_every_handle_ends_whenever_a_session_is_closed(
    opener: Opener, release: bool, moments_of_submitting: list[float]
) -> None:
    for moment in moments_of_submitting:
        session = opener(f"closing-{release}")
        handles = session.submit([JobRequest(argv=["true"]) for _ in range(150)])
        time.sleep(moment)
        session.release() if release else session.leave()
        for handle in handles:
            handle.result(0)
        seen: list[object] = []
        handles[0].add_done_callback(seen.append)
        assert seen == [handles[0]]
    opener(f"closing-{release}").close()


def test_a_run_that_is_opened_while_it_ends_begins_anew(opener: Opener, moments_of_ending: list[float]) -> None:
    for moment in moments_of_ending:
        first = opener("revolving")
        closing = threading.Thread(target=first.close)
        closing.start()
        time.sleep(moment)
        second = opener("revolving")
        [job] = second.submit([JobRequest(argv=["true"])])
        assert job.result(LIMIT).ok
        closing.join()
        second.close()
        assert not (base_directory(environment()) / second.run_name).exists()


def test_a_socket_that_goes_just_before_it_is_used_is_waited_for(
    opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = opener("away")
    socket = base_directory(environment()) / first.run_name / "agent.sock"
    away = socket.with_name("away.sock")
    connect = SocketStream.__init__

    def too_late(self: SocketStream, path: str) -> None:
        monkeypatch.undo()
        socket.rename(away)
        threading.Timer(0.3, away.rename, [socket]).start()
        connect(self, path)

    monkeypatch.setattr(SocketStream, "__init__", too_late)
    second = opener("away")
    assert second.hello.instance == first.hello.instance
    second.close()
    first.close()


def test_a_thousand_and_more_jobs_are_listed(opener: Opener) -> None:
    session = opener(max_in_flight=3000)
    handles = session.submit([JobRequest(argv=["true"], urgency=0, name="n" * 100) for _ in range(2500)])
    wait_for(lambda: all(handle.id for handle in handles), "all are submitted")
    listed = session.jobs(unacknowledged=True)
    assert sorted(job.id for job in listed) == sorted(str(handle.id) for handle in handles)
    session.cancel(handles)
    session.close()


def test_one_bad_item_spoils_nothing(session: Session, out: Path) -> None:
    bad = [
        JobRequest(argv=["true"], constraint={"ranks": ["9" * 5000]}),
        JobRequest(argv=["true"], attributes={"system.duration.x": 1}),
        JobRequest(argv=["true"], attributes={"system": 1}),
        JobRequest(argv=["true"], duration=10**400),
        JobRequest(argv=["true"], key=5),  # type: ignore[arg-type]
        JobRequest(argv=["true"], tasks=200_000, secret_env={"A": "x"}),
    ]
    handles = session.submit([*bad, *(counted(out) for _ in range(5))])
    results = [handle.result(LIMIT) for handle in handles]
    assert [result.outcome for result in results[: len(bad)]] == [Outcome.REJECTED] * len(bad)
    assert all(result.ok for result in results[len(bad) :])
    assert out.read_text().count("ran") == 5
