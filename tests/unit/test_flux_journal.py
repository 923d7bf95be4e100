"""What the agent makes of Flux's journal, without Flux.

``flux_journal.jsonl`` is what an instance has sent: two jobs of run ``r`` (one of them running), one of another run,
one of nobody's; the end of the history; then the running job is cancelled, and a held one is submitted and cancelled.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from executors.agent.engine import RecoveredJob
from executors.agent.flux.journal import NO_JOB, Journal, Step, nodes_of

RECORDING = Path(__file__).parent / "flux_journal.jsonl"
DONE, RUNNING, OTHER, NOBODYS, HELD = 34812723200, 35232153600, 35651584000, 36205232128, 42177921024


class Recorded(NamedTuple):
    jobid: int
    name: str = ""
    timestamp: float = 0.0
    context: dict[str, Any] = {}
    jobspec: Any = None
    R: Any = None


def recording() -> Iterator[Recorded]:
    for line in RECORDING.read_text().splitlines():
        event = json.loads(line)
        yield Recorded(NO_JOB) if event is None else Recorded(*event)


def journal_of(run: str = "r") -> Journal:
    return Journal(run, "/agent", lambda number: f"f{number}", lambda job_id, tasks: {"cpu": float(tasks)})


def told(steps: list[Step]) -> list[tuple[str, str]]:
    """Ids and names of the entries in them."""
    return [(report[0], report[1]) for step in steps for report in step.reports if not isinstance(report, RecoveredJob)]


def recovered(steps: list[Step]) -> list[RecoveredJob]:
    return [report for step in steps for report in step.reports if isinstance(report, RecoveredJob)]


def test_a_recorded_stream_tells_of_the_jobs_of_this_run_and_of_no_other() -> None:
    journal = journal_of()
    steps = [journal.apply(event) for event in recording()]
    assert {job_id for job_id, _ in told(steps)} == {f"f{number}" for number in (DONE, RUNNING, HELD)}
    assert [name for job_id, name in told(steps) if job_id == f"f{DONE}"] == [
        *("submit", "validate", "depend", "priority", "alloc", "start", "finish", "release", "free", "clean")
    ]
    assert [(job.key, job.digest, job.name) for job in recovered(steps)] == [
        ("a", "d", "n"),
        ("b", "", ""),
        ("h", "", ""),
    ]
    assert journal.seen == 3 and not journal.has_active


def test_the_history_ends_once_with_what_runs_still_active() -> None:
    journal = journal_of()
    for event in recording():
        step = journal.apply(event)
        if step.ends_history:
            break
    assert [job.id for job in journal.active()] == [f"f{RUNNING}"]
    assert [step.ends_history for step in map(journal_of().apply, recording())].count(True) == 1


def test_hosts_and_usage_are_put_into_the_entries_that_have_them() -> None:
    journal = journal_of()
    reports = [report for event in recording() for report in journal.apply(event).reports]
    entries = {(entry[0], entry[1]): entry[3] for entry in reports if not isinstance(entry, RecoveredJob)}
    assert entries[f"f{DONE}", "alloc"] == {"node": "node1"}
    assert entries[f"f{DONE}", "finish"] == {"status": 0, "usage": {"cpu": 1.0}}


def test_secrets_are_removed_with_their_job_and_known_until_then() -> None:
    journal = journal_of()
    removed = []
    for event in recording():
        step = journal.apply(event)
        removed += [(event.jobid, event.name, path) for path in step.files]
        if step.ends_history:
            assert [path for job in journal.active() for path in job.secret_files()] == ["/agent/env-1-1-ab.0"]
    assert removed == [(RUNNING, "clean", "/agent/env-1-1-ab.0")]


def test_output_that_flux_keeps_is_that_of_jobs_without_the_spool_until_it_is_forgotten() -> None:
    journal = journal_of()
    for event in recording():
        journal.apply(event)
    assert journal.is_kept_by_flux(DONE) and not journal.is_kept_by_flux(RUNNING)
    journal.forget(DONE)
    assert not journal.is_kept_by_flux(DONE)


@pytest.mark.parametrize("number", [DONE, HELD])
def test_a_reader_begins_when_its_job_starts_or_ends_without(number: int) -> None:
    journal = journal_of()
    begun: list[str] = []
    for event in recording():
        step = journal.apply(event)
        for reader in step.readers:
            reader()
            begun.append(event.name)
        if (event.jobid, event.name) == (number, "submit"):
            journal.when_it_writes(number, lambda: None)
    assert begun == (["start"] if number == DONE else ["clean"])


def test_a_reader_of_a_job_that_runs_or_is_gone_begins_at_once() -> None:
    journal = journal_of()
    begun: list[int] = []
    for event in recording():
        if journal.apply(event).ends_history:
            break
    for number in (RUNNING, DONE):
        journal.when_it_writes(number, lambda number=number: begun.append(number))  # type: ignore[misc]
    assert begun == [RUNNING, DONE]


def test_hosts_of_no_resource_set_are_none() -> None:
    assert nodes_of(None) == nodes_of({}) == "" and nodes_of({"execution": {"nodelist": ["a[1-2]", "b"]}}) == "a[1-2],b"


# -- any legal order

#: What may happen to a job, from its submission to its end (RFC 21).
LIVES = [
    ["submit", "validate", "depend", "priority", "alloc", "start", "finish", "release", "free", "clean"],
    ["submit", "validate", "depend", "priority", "alloc", "start", "exception", "finish", "release", "free", "clean"],
    ["submit", "exception", "clean"],
    ["submit", "validate", "depend", "priority", "exception", "clean"],
]
#: Run, life, how far it has come, and whether it has a secret.
jobs = st.lists(
    st.tuples(st.sampled_from(["r", "other", None]), st.sampled_from(LIVES), st.integers(1, 11), st.booleans()),
    max_size=6,
)


def events_of(number: int, run: str | None, life: list[str], far: int, secret: bool) -> list[Recorded]:
    tag = {"run": run, "key": f"k{number}", "tasks": 2, **({"secret": f"env-{number}"} if secret else {})}
    jobspec = {"attributes": {"user": {"fxo": tag}} if run is not None else {"system": {}}}
    return [Recorded(number, name, jobspec=jobspec if name == "submit" else None) for name in life[:far]]


class Stream(NamedTuple):
    """Jobs (run, life, whether there is a secret), numbered from 1, and what is heard of them."""

    jobs: list[tuple[str | None, list[str], bool]]
    #: Of each job in order, of different jobs in any; the end of the history among them. A number: a reader comes.
    heard: list[Recorded | int]

    @property
    def events(self) -> list[Recorded]:
        return [event for event in self.heard if isinstance(event, Recorded)]


@st.composite
def streams(draw: st.DrawFn) -> Stream:
    drawn = [(run, life[:far], secret) for run, life, far, secret in draw(jobs)]
    queues = [
        events_of(number, run, life, len(life), secret) for number, (run, life, secret) in enumerate(drawn, start=1)
    ]
    queues.append([Recorded(NO_JOB)])
    heard: list[Recorded | int] = []
    while any(queues):
        queue = draw(st.sampled_from([queue for queue in queues if queue]))
        heard.append(queue.pop(0))
        if len(drawn) > 0 and draw(st.booleans()):
            heard.append(draw(st.integers(1, len(drawn))))
    return Stream(drawn, heard)


@given(streams())
def test_in_any_order_each_job_is_told_whole_and_nothing_is_left_of_one_that_has_ended(stream: Stream) -> None:
    lives = stream.jobs
    journal = journal_of()
    steps: list[Step] = []
    asked: dict[int, int] = {}
    begun: dict[int, int] = {}
    for heard in stream.heard:
        if isinstance(heard, int):
            asked[heard] = asked.get(heard, 0) + 1
            journal.when_it_writes(heard, lambda n=heard: begun.update({n: begun.get(n, 0) + 1}))  # type: ignore[misc]
            continue
        steps.append(journal.apply(heard))
        for reader in steps[-1].readers:
            reader()
    ours = {number: life for number, (run, life, _) in enumerate(lives, start=1) if run == "r"}
    for number, life in ours.items():
        assert [name for job_id, name in told(steps) if job_id == f"f{number}"] == life
    assert len(told(steps)) == sum(map(len, ours.values()))
    assert sorted(job.id for job in recovered(steps)) == sorted(f"f{number}" for number in ours)
    over = {number for number, life in ours.items() if life[-1] == "clean"}
    assert {job.id for job in journal.active()} == {f"f{number}" for number in ours.keys() - over}
    assert journal.seen == len(ours)
    assert [step.ends_history for step in steps].count(True) == 1
    # Files of each secret go once, with their job.
    gone = [path for step in steps for path in step.files]
    kept = [path for job in journal.active() for path in job.secret_files()]
    secrets = [f"/agent/env-{number}.{rank}" for number in ours for rank in (0, 1) if lives[number - 1][2]]
    assert sorted(gone + kept) == sorted(secrets)
    # Readers of jobs that are over, or not ours, have all begun, and none has begun twice.
    for number, count in asked.items():
        if number in over or number not in ours:
            assert begun[number] == count
        assert begun.get(number, 0) <= count


@given(streams())
def test_an_agent_that_reads_the_journal_again_knows_what_the_one_before_knew(stream: Stream) -> None:
    first, second = journal_of(), journal_of()
    before = [first.apply(event) for event in stream.events]
    history = sorted((event for event in stream.events if event.jobid != NO_JOB), key=lambda event: event.jobid)
    after = [second.apply(event) for event in [*history, Recorded(NO_JOB)]]
    assert {job.id for job in first.active()} == {job.id for job in second.active()}
    assert sorted(told(before)) == sorted(told(after))
    assert {job.key for job in recovered(before)} == {job.key for job in recovered(after)}
