"""What callbacks may do, and what they can do no harm by."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable

import pytest

from executors import JobHandle, JobRequest, Outcome, Session
from tests.support.sessions import Opener
from tests.support.waiting import LIMIT, wait_for


def in_callback(session: Session, function: Callable[[JobHandle], object]) -> object:
    """What a function gives or raises in the callback of a job that has ended."""
    found: list[object] = []
    done = threading.Event()

    def callback(handle: JobHandle) -> None:
        try:
            found.append(function(handle))
        except Exception as err:  # what it is, is the question
            found.append(err)
        done.set()

    [handle] = session.submit([JobRequest(argv=["echo", "x"])])
    handle.add_done_callback(callback)
    assert done.wait(LIMIT)
    return found[0]


def leave(_handle: JobHandle) -> None:
    sys.exit(3)


def interrupt(_handle: JobHandle) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("harm", [leave, interrupt])
def test_a_callback_that_ends_its_thread_ends_no_other_job(
    session: Session, harm: Callable[[JobHandle], None], caplog: pytest.LogCaptureFixture
) -> None:
    first, second = session.submit([JobRequest(argv=["true"]), JobRequest(argv=["sleep", "0.2"])])
    first.add_submit_callback(harm)
    first.add_done_callback(harm)
    assert first.result(LIMIT).ok and second.result(LIMIT).ok
    wait_for(lambda: "a callback of" in caplog.text, "it is logged")


def test_a_reader_that_raises_harms_no_other(session: Session) -> None:
    [handle] = session.submit([JobRequest(argv=["echo", "x"])])
    assert handle.result(LIMIT).ok and handle.id is not None
    called = threading.Event()

    def sink(_piece: object) -> None:
        called.set()
        sys.exit(3)

    session.follow(handle.id, "stdout", 0, sink)
    assert called.wait(LIMIT)
    assert b"".join(handle.output()) == b"x\n"


@pytest.mark.parametrize(
    "wait",
    [
        lambda session, other: other.result(),
        lambda session, other: list(other.output()),
        lambda session, other: session.close(),
        lambda session, other: session.events(),
        lambda session, other: session.cancel_and_wait([other.id], 1.0),
    ],
)
def test_waiting_in_a_callback_is_an_error_at_once(session: Session, wait: Callable[..., object]) -> None:
    [other] = session.submit([JobRequest(argv=["sleep", "600"])])
    other.wait_submitted(LIMIT)
    found = in_callback(session, lambda _handle: wait(session, other))
    assert isinstance(found, RuntimeError) and "another thread" in str(found)
    other.cancel()
    assert other.result(LIMIT).outcome is Outcome.CANCELLED


def test_what_needs_no_waiting_goes_in_a_callback(session: Session) -> None:
    found = in_callback(session, lambda handle: (handle.result().outcome, b"".join(handle.output())))
    assert found == (Outcome.COMPLETED, b"x\n")


def test_held_jobs_keep_nobody_out(opener: Opener) -> None:
    session = opener(max_in_flight=3)
    held = session.submit([JobRequest(argv=["true"], urgency=0) for _ in range(4)])
    [handle.wait_submitted(LIMIT) for handle in held[:3]]
    others = session.submit([JobRequest(argv=["true"]) for _ in range(7)])
    assert all(handle.result(LIMIT).ok for handle in others)
    assert held[3].id is None, "but not without an end"
    session.cancel(held)
    assert {handle.result(LIMIT).outcome for handle in held} == {Outcome.CANCELLED}
    session.close()
