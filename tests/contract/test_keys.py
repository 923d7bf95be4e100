"""Keys: the same work asked for twice runs once, until its result was acknowledged."""

from __future__ import annotations

import threading
from pathlib import Path

from executors import Session
from tests.support.jobs import counted
from tests.support.sessions import Opener
from tests.support.waiting import LIMIT, wait_for


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
    wait_for(lambda: not session.jobs(unacknowledged=True), "the acknowledgement arrives")
    [third] = session.submit([counted(out, key="again")])
    assert third.result(LIMIT).ok and third.id != first.id
    assert out.read_text() == "ran\nran\n"
