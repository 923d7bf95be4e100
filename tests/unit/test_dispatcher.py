"""The session's dispatcher: in order, what can wait a little later, nothing forgotten at its end."""

from __future__ import annotations

import threading

from executors.session.dispatcher import Dispatcher

LIMIT = 60.0
FAR = 3600.0


def started() -> Dispatcher:
    dispatcher = Dispatcher(lambda _reason: None)
    dispatcher.start()
    return dispatcher


def test_what_can_wait_runs_by_itself_and_does_not_hold_up_others() -> None:
    far: list[str] = []
    dispatcher, done = started(), threading.Event()
    dispatcher.post_within(FAR, lambda: far.append("once"))
    dispatcher.post(done.set)
    assert done.wait(LIMIT) and not far
    dispatcher.stop()
    dispatcher.join()
    assert far == ["once"]

    dispatcher, done = started(), threading.Event()
    dispatcher.post_within(0.001, done.set)
    assert done.wait(LIMIT)
    dispatcher.stop()
    dispatcher.join()


def test_what_is_due_runs_though_there_is_always_something_else_to_do() -> None:
    dispatcher, done = started(), threading.Event()

    def again() -> None:
        if not done.is_set():
            dispatcher.post(again)

    dispatcher.post(again)
    dispatcher.post_within(0.001, done.set)
    assert done.wait(LIMIT)
    dispatcher.stop()
    dispatcher.join()


def test_at_its_end_what_waits_is_done_in_order() -> None:
    ran: list[str] = []
    dispatcher = started()
    for word in ("first", "second"):
        dispatcher.post_within(FAR, lambda word=word: ran.append(word))  # type: ignore[misc]  # mypy: the default
    dispatcher.post(lambda: ran.append("now"))
    dispatcher.stop()
    dispatcher.join()
    assert ran == ["now", "first", "second"]


def test_a_defect_in_what_waits_is_told() -> None:
    reasons: list[str] = []
    told = threading.Event()

    def failed(reason: str) -> None:
        reasons.append(reason)
        told.set()

    dispatcher = Dispatcher(failed)
    dispatcher.start()
    dispatcher.post_within(0.001, lambda: 1 / 0)  # type: ignore[arg-type]
    assert told.wait(LIMIT) and "ZeroDivisionError" in reasons[0]
    dispatcher.stop()
    dispatcher.join()


def test_what_callbacks_ask_for_at_the_end_is_done_and_then_refused() -> None:
    dispatcher = Dispatcher(lambda _reason: None)
    done: list[str] = []

    def first() -> None:
        dispatcher.stop()
        assert dispatcher.post(lambda: done.append("late")) and dispatcher.post(second)

    def second() -> None:
        assert dispatcher.post(lambda: done.append("later"))

    dispatcher.post(first)
    dispatcher.start()
    dispatcher.join()
    assert done == ["late", "later"]
    assert not dispatcher.post(lambda: done.append("never"))
