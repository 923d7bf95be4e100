"""Events of jobs reduced to states, outcomes and keys."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from executors.agent.protocol import jobs
from executors.agent.protocol.jobs import Job, JobTable, outcome_of
from executors.agent.wire import Cursor

#: What Flux was seen to report: (exception or None, wait status or None) -> outcome.
SEEN = [
    (None, 0, "COMPLETED"),
    (None, 1 << 8, "FAILED"),
    (None, 35584, "SIGNALED"),  # SEGV, as Flux's shell reports it
    (None, 9, "SIGNALED"),
    (None, 255 << 8, "FAILED"),
    ({"type": "cancel"}, 36608, "CANCELLED"),
    ({"type": "cancel"}, None, "CANCELLED"),
    ({"type": "timeout"}, 36352, "TIMEOUT"),
    ({"type": "exec", "note": "start failed: No such file"}, 32512, "FAILED"),
    ({"type": "alloc", "note": "unsatisfiable"}, None, "REJECTED"),
    ({"type": "exec", "note": "node failure on n1 (rank 1)"}, 256, "LOST"),
    ({"type": "lost"}, 36608, "LOST"),
    ({"type": "something-new"}, None, "FAILED"),
    (None, None, "UNKNOWN"),
]


@pytest.mark.parametrize(("exception", "status", "outcome"), SEEN)
def test_an_end_has_its_outcome(exception: Any, status: int | None, outcome: str) -> None:
    assert outcome_of(status, exception) == outcome


@given(st.none() | st.integers(0, 65535), st.none() | st.fixed_dictionaries({"type": st.text(), "note": st.text()}))
def test_only_a_clean_exit_is_success(status: int | None, exception: Any) -> None:
    assert (outcome_of(status, exception) == "COMPLETED") == (status == 0 and exception is None)


def play(table: JobTable, job_id: str, *names: str, status: int = 0, key: str | None = None) -> None:
    table.add(Job(job_id, key))
    for index, name in enumerate(names):
        table.apply(job_id, name, float(index), {"status": status} if name == "finish" else {})


LIFE = ("submit", "validate", "depend", "priority", "alloc", "start", "finish", "release", "free", "clean")


def test_a_life_goes_through_its_states() -> None:
    table = JobTable("e")
    job = table.add(Job("j"))
    states = []
    for name in LIFE:
        table.apply("j", name, 1.0, {"status": 0})
        states.append(job.state)
    assert list(dict.fromkeys(states)) == ["DEPEND", "PRIORITY", "SCHED", "RUN", "CLEANUP", "INACTIVE"]
    assert job.result is not None and job.result["outcome"] == "COMPLETED"
    published = [event[2] for event in table.after(0, 100)]
    assert published == ["submit", "depend", "priority", "alloc", "start", "finish", "clean"]


def test_the_first_fatal_exception_counts_and_a_mild_one_does_not() -> None:
    table = JobTable("e")
    job = table.add(Job("j"))
    for severity, kind in ((7, "note"), (0, "timeout"), (0, "cancel")):
        table.apply("j", "exception", 1.0, {"severity": severity, "type": kind, "note": ""})
    table.apply("j", "clean", 2.0, {})
    assert job.result is not None and job.result["outcome"] == "TIMEOUT"


def test_events_after_the_end_change_nothing() -> None:
    table = JobTable("e")
    play(table, "j", *LIFE)
    before = table.sequence
    table.apply("j", "exception", 9.0, {"severity": 0, "type": "cancel"})
    assert table.sequence == before and table.active == 0


def test_a_key_ends_with_its_acknowledgement() -> None:
    table = JobTable("e")
    play(table, "j", "submit", key="k")
    assert not table.acknowledge("j"), "a job that has not ended cannot be acknowledged"
    play(table, "j", *LIFE[1:])
    assert table.by_key("k") is not None
    assert table.acknowledge("j") and table.acknowledge("j")
    assert table.by_key("k") is None


def test_memory_follows_what_is_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "KEEP_ENDED", 10)
    table = JobTable("e")
    for number in range(1000):
        play(table, f"j{number}", *LIFE, key=f"k{number}")
        table.acknowledge(f"j{number}")
    assert len(table.jobs) == 10 and not table.keys and table.active == 0


@given(st.lists(st.sampled_from(["submit", "alloc", "start"]), max_size=60), st.integers(1, 20), st.integers(0, 60))
def test_a_cursor_never_loses_nor_repeats_an_event(names: list[str], limit: int, start: int) -> None:
    table = JobTable("e")
    play(table, "j", *names)
    place = min(start, len(names))
    assert table.holds(Cursor("e", place))
    found = []
    while batch := table.after(place, limit):
        assert len(batch) <= limit
        found += batch
        place = batch[-1][0]
    assert [event[0] for event in found] == list(range(min(start, len(names)) + 1, len(names) + 1))


def test_a_cursor_that_is_too_old_or_from_another_life_is_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "KEEP_EVENTS", 5)
    table = JobTable("e")
    play(table, "j", *["start"] * 20)
    assert table.holds(Cursor("e", 15)) and not table.holds(Cursor("e", 14))
    assert not table.holds(Cursor("other", 15)) and not table.holds(Cursor("e", 21)) and not table.holds(None)
    with pytest.raises(LookupError):
        table.after(3, 10)


def test_a_clock_that_steps_back_loses_nothing() -> None:
    table = JobTable("e")
    job = table.add(Job("j"))
    for index, name in enumerate(LIFE):
        table.apply("j", name, 1000.0 - index * 100, {"status": 0})
    assert job.result is not None and job.result["outcome"] == "COMPLETED"
    assert [event[0] for event in table.after(2, 100)] == [3, 4, 5, 6, 7]
