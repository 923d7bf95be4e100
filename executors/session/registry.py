"""All jobs of a session by what the agent says of them: events, answers and snapshots, in whatever order they come.

Pure: what has to follow from a message is returned as `Effects`. The session's lock is held for every call.

An answer to a submission and what else is said of its jobs may come in either order; what comes first is kept until
no answer is missing. A key that two requests share makes them twins of one job.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from executors.agent.wire import JobEvent
from executors.results import JobInfo, JobResult, Outcome, Reason
from executors.session.job import Callback, Job


@dataclass(frozen=True)
class Accepted:
    """The agent's answer to one submission that it took."""

    id: str
    #: It had a job of this key already, of this digest.
    known: bool
    digest: str


#: Per job of a batch, in order: how it was taken, or how it ended by that.
Answers = Sequence[Accepted | JobResult]


@dataclass
class Effects:
    """What has to follow from what came in."""

    #: Jobs that have ended by it, in order.
    ended: list[Job] = field(default_factory=list)
    #: Callbacks, in the order in which they are to be called, and the job that they belong to.
    calls: list[tuple[Job, Callback]] = field(default_factory=list)
    #: Jobs that somebody wanted cancelled before their id was known: id and note.
    cancel: list[tuple[str, str]] = field(default_factory=list)
    #: Ids whose state must be asked for: their events may lie behind us.
    look_up: list[str] = field(default_factory=list)


class JobRegistry:
    """The jobs that the agent has taken, and the events that came before their ids."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._unanswered = 0
        #: What was said of jobs while an answer was missing that may tell whose they are.
        self._early: dict[str, list[JobEvent | JobInfo]] = {}

    def attach(self, job_id: str) -> Job:
        """The job of this id, which may be somebody else's."""
        return self._jobs.setdefault(job_id, Job.known_by_id(job_id))

    def forget(self, job_ids: Iterable[str]) -> None:
        """Results that were dealt with."""
        for job_id in job_ids:
            self._jobs.pop(job_id, None)

    def expect_answer(self) -> None:
        """A batch is about to be sent."""
        self._unanswered += 1

    def answered(self, batch: Sequence[Job], answers: Answers) -> Effects:
        """The answer to a batch."""
        effects = Effects()
        for job, answer in zip(batch, answers, strict=True):
            if isinstance(answer, JobResult):
                self._end(job, answer, effects)
            elif answer.known and answer.digest != job.digest:
                note = f"key {job.key!r} belongs to a different job, {answer.id}; give another key"
                self._end(job, JobResult.without_run(Outcome.REJECTED, Reason.KEY_TAKEN, note), effects)
            else:
                self._take_id(job, answer.id, effects)
                if answer.known:
                    effects.look_up.append(answer.id)
        self._unanswered -= 1
        if not self._unanswered:
            self._early.clear()
        return effects

    def apply(self, events: Iterable[JobEvent]) -> Effects:
        """Events, oldest first."""
        effects = Effects()
        for event in events:
            job = self._jobs.get(event.id)
            if job is not None:
                self._apply(job, event, effects)
            elif self._unanswered:
                self._early.setdefault(event.id, []).append(event)
        return effects

    def reconcile(self, snapshot: Iterable[JobInfo]) -> Effects:
        """The state of every job whose result was not acknowledged, where the events in between are lost."""
        effects = Effects()
        known = {info.id: info for info in snapshot}
        for job_id, job in list(self._jobs.items()):
            if job.result is not None:
                continue
            if job_id in known:
                self._take_info(job, known[job_id], effects)
            else:
                effects.look_up.append(job_id)  # another client may have acknowledged it
        if self._unanswered:
            self._early = {job_id: [info] for job_id, info in known.items() if job_id not in self._jobs}
        return effects

    def looked_up(self, asked: Iterable[str], infos: Iterable[JobInfo]) -> Effects:
        """The answer to a look-up by id. A job that the agent does not know has an unknown end."""
        effects = Effects()
        known = {info.id: info for info in infos}
        for job_id in asked:
            job = self._jobs.get(job_id)
            if job is None or job.result is not None:
                continue
            if job_id in known:
                self._take_info(job, known[job_id], effects)
            else:
                note = "the agent does not know this job any more"
                self._end(job, JobResult.without_run(Outcome.UNKNOWN, Reason.AGENT_LOST, note), effects)
        return effects

    def end(self, jobs: Iterable[Job], result: JobResult) -> Effects:
        """Jobs that end by what happened on this side. Those that have ended before are left as they are."""
        effects = Effects()
        for job in jobs:
            self._end(job, result, effects)
        return effects

    def lose_all(self, reason: str) -> Effects:
        """The agent is gone for good: nobody knows how the jobs that it had will end."""
        return self.end(list(self._jobs.values()), JobResult.without_run(Outcome.UNKNOWN, Reason.AGENT_LOST, reason))

    def _apply(self, job: Job, event: JobEvent, effects: Effects) -> None:
        if job.result is not None:
            return
        if event.name == "clean":
            self._end(job, JobResult.from_wire(event.context["result"]), effects)
        else:
            job.advance(event.name, event.context)

    def _take_info(self, job: Job, info: JobInfo, effects: Effects) -> None:
        job.set_state(info.state)
        if info.result is not None:
            self._end(job, info.result, effects)

    def _take_id(self, job: Job, job_id: str, effects: Effects) -> None:
        effects.calls += [(job, callback) for callback in job.take_id(job_id)]
        first = self._jobs.setdefault(job_id, job)
        if first is not job:
            first.add_twin(job)
            if first.result is not None:
                self._end(job, first.result, effects)
        for said in self._early.pop(job_id, ()):
            if isinstance(said, JobEvent):
                self._apply(first, said, effects)
            elif first.result is None:
                self._take_info(first, said, effects)
        if job.cancel_note is not None and job.result is None:
            effects.cancel.append((job_id, job.cancel_note))

    def _end(self, job: Job, result: JobResult, effects: Effects) -> None:
        if job.result is not None:
            return
        effects.calls += [(job, callback) for callback in job.end(result)]
        effects.ended.append(job)
        for twin in job.twins or ():
            self._end(twin, result, effects)
