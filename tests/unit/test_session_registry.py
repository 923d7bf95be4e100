"""What a session believes of its jobs, whatever the order of events, answers, snapshots and cuts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from executors.agent.wire import Cursor, JobEvent
from executors.results import JobInfo, JobResult, Outcome, Reason
from executors.session.job import CancelStep, Job
from executors.session.registry import Accepted, Effects, JobRegistry

#: The main eventlog of a job that runs to its end.
LIFE = ("submit", "depend", "priority", "alloc", "start", "finish", "clean")
STATES = {None: "NEW", "submit": "DEPEND", "depend": "PRIORITY", "priority": "SCHED", "alloc": "RUN", "start": "RUN",
          "finish": "CLEANUP", "clean": "INACTIVE"}  # fmt: skip


def result_of(job_id: str) -> Any:
    """Each job has an exit code of its own, so that no result can be taken for another's."""
    code = int(job_id[1:]) % 200
    return {"outcome": "FAILED" if code else "COMPLETED", "returncode": code}


@dataclass
class AgentJob:
    id: str
    key: str
    digest: str
    events: list[str] = field(default_factory=lambda: ["submit"])

    def info(self) -> JobInfo:
        ended = self.events[-1] == "clean"
        summary: Any = {
            "id": self.id, "key": self.key, "digest": self.digest, "state": STATES[self.events[-1]],
            "acked": False, "result": result_of(self.id) if ended else None,
        }  # fmt: skip
        return JobInfo.from_wire(summary)


class Stream(RuleBasedStateMachine):
    """An agent that never forgets, and a client whose stream may be slow, or cut, at any moment."""

    def __init__(self) -> None:
        super().__init__()
        self.registry = JobRegistry()
        self.agent: dict[str, AgentJob] = {}
        self.log: list[tuple[str, str]] = []
        self.delivered = 0
        self.unanswered: list[tuple[list[Job], list[Accepted]]] = []
        self.lookups: list[list[str]] = []
        self.jobs: list[Job] = []
        self.calls: dict[int, list[str]] = {}

    # -- the agent

    @rule(requests=st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from("xy")), min_size=1, max_size=4))
    def submit(self, requests: list[tuple[str, str]]) -> None:
        batch, answers = [], []
        for key, digest in requests:
            job = Job(key, "")
            job.set_digest(digest)
            job.set_sent(held=False)
            calls = self.calls[id(job)] = []
            assert job.when_taken(lambda calls=calls: calls.append("taken"))  # type: ignore[misc]
            assert job.when_ended(lambda calls=calls: calls.append("ended"))  # type: ignore[misc]
            batch.append(job)
            known = next((other for other in self.agent.values() if other.key == key), None)
            if known is None:
                known = AgentJob(f"f{len(self.agent)}", key, digest)
                self.agent[known.id] = known
                self.log.append((known.id, "submit"))
                answers.append(Accepted(known.id, False, digest))
            else:
                answers.append(Accepted(known.id, True, known.digest))
        self.registry.expect_answer()
        self.jobs += batch
        self.unanswered.append((batch, answers))

    @precondition(lambda self: any(job.events[-1] != "clean" for job in self.agent.values()))
    @rule(data=st.data(), steps=st.integers(1, len(LIFE)))
    def go_on(self, data: st.DataObject, steps: int) -> None:
        job = data.draw(st.sampled_from([job for job in self.agent.values() if job.events[-1] != "clean"]))
        for _ in range(steps):
            if job.events[-1] != "clean":
                job.events.append(LIFE[len(job.events)])
                self.log.append((job.id, job.events[-1]))

    # -- the stream

    @precondition(lambda self: self.unanswered)
    @rule()
    def answer(self) -> None:
        batch, answers = self.unanswered.pop(0)
        self._carry_out(self.registry.answered(batch, answers))

    @precondition(lambda self: self.delivered < len(self.log))
    @rule(count=st.integers(1, 10))
    def deliver(self, count: int) -> None:
        entries = self.log[self.delivered : self.delivered + count]
        events = []
        for job_id, name in entries:
            self.delivered += 1
            context = {"result": result_of(job_id)} if name == "clean" else {}
            events.append(JobEvent(Cursor("e", self.delivered), job_id, name, 0.0, context))
        self._carry_out(self.registry.apply(events))

    @precondition(lambda self: self.delivered < len(self.log))
    @rule(cut=st.booleans())
    def miss_events(self, cut: bool) -> None:
        """Too slow, or away too long. After a cut, what was not answered is asked again, and is known by then."""
        if cut:
            self.unanswered = [
                (batch, [Accepted(answer.id, True, self.agent[answer.id].digest) for answer in answers])
                for batch, answers in self.unanswered
            ]
            self.lookups.clear()
        self.delivered = len(self.log)
        self._carry_out(self.registry.reconcile([job.info() for job in self.agent.values()]))

    @precondition(lambda self: self.lookups)
    @rule()
    def answer_look_up(self) -> None:
        asked = self.lookups.pop(0)
        infos = [self.agent[job_id].info() for job_id in asked if job_id in self.agent]
        self._carry_out(self.registry.looked_up(asked, infos))

    def _carry_out(self, effects: Effects) -> None:
        for _, callback in effects.calls:
            callback()
        for job in effects.ended:
            assert job.result is not None
        if effects.look_up:
            self.lookups.append(effects.look_up)

    # -- what must hold

    @invariant()
    def nothing_is_believed_that_is_not_so(self) -> None:
        for job in self.jobs:
            if job.result is not None and job.id is not None:
                assert self.agent[job.id].events[-1] == "clean"
                assert job.result == JobResult.from_wire(result_of(job.id))
            calls = self.calls[id(job)]
            assert calls == (["taken"] if job.id else []) + (["ended"] if job.result else [])

    def teardown(self) -> None:
        for job in self.agent.values():
            while job.events[-1] != "clean":
                job.events.append(LIFE[len(job.events)])
                self.log.append((job.id, job.events[-1]))
        while self.unanswered or self.lookups or self.delivered < len(self.log):
            if self.unanswered:
                self.answer()
            if self.lookups:
                self.answer_look_up()
            if self.delivered < len(self.log):
                self.deliver(1000)
        for asked in self.jobs:
            assert asked.result is not None, f"{asked!r} never ends"
            if asked.id is None:
                assert asked.result.reason is Reason.KEY_TAKEN
        self.nothing_is_believed_that_is_not_so()


TestStream = Stream.TestCase
TestStream.settings = settings(max_examples=100, stateful_step_count=25, deadline=None)


@pytest.mark.parametrize(
    ("sent", "job_id", "ended", "step"),
    [
        (False, None, False, CancelStep.END_HERE),
        (True, None, False, CancelStep.WAIT_FOR_ID),
        (True, "f1", False, CancelStep.ASK_AGENT),
        (True, "f1", True, CancelStep.NOTHING),
        (False, None, True, CancelStep.NOTHING),
    ],
)
def test_what_a_cancellation_takes(sent: bool, job_id: str | None, ended: bool, step: CancelStep) -> None:
    job = Job("key", "name")
    if sent:
        job.set_sent(held=False)
    if job_id is not None:
        job.take_id(job_id)
    if ended:
        job.end(JobResult(Outcome.COMPLETED))
    assert job.ask_to_cancel("first") is step
    assert job.ask_to_cancel("second") is CancelStep.NOTHING, "it is asked for once"
    assert job.cancel_note == (None if ended else "first")


def test_a_cancellation_that_had_to_wait_for_the_id_follows_it() -> None:
    registry, job = JobRegistry(), Job("key", "")
    job.set_sent(held=False)
    registry.expect_answer()
    assert job.ask_to_cancel("why") is CancelStep.WAIT_FOR_ID
    assert registry.answered([job], [Accepted("f1", False, "")]).cancel == [("f1", "why")]


def test_when_the_agent_is_lost_nobody_knows_how_its_jobs_end() -> None:
    registry, taken, ended = JobRegistry(), Job("a", ""), Job("b", "")
    registry.expect_answer()
    registry.answered([taken, ended], [Accepted("f1", False, ""), Accepted("f2", False, "")])
    registry.end([ended], JobResult(Outcome.COMPLETED))
    assert registry.lose_all("gone").ended == [taken]
    assert taken.result is not None and taken.result.outcome is Outcome.UNKNOWN
    assert taken.result.reason is Reason.AGENT_LOST
    assert ended.result is not None and ended.result.ok


def test_states_are_those_of_flux() -> None:
    job = Job("key", "")
    for event in LIFE[:-1]:
        job.advance(event, {})
        assert job.state == STATES[event]
    job = Job("key", "")
    job.advance("exception", {"severity": 1})
    assert job.state == "NEW"
    job.advance("exception", {"severity": 0})
    assert job.state == "CLEANUP"
