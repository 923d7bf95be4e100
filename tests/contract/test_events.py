"""Events, callbacks and the flow of many jobs."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from executors import JobEvent, JobHandle, JobRequest, Session
from tests.support.sessions import Opener
from tests.support.waiting import LIMIT, wait_for


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
    assert [event.name for event in seen] == ["submit", "depend", "priority", "alloc", "start", "finish", "clean"]
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
