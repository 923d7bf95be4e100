"""The jobs of a session at work: its lock, its threads, and the stream to the agent.

What is decided is in `registry`, `job` and `outbox`; here it is carried out. The client's reader posts what arrives to
the dispatcher, which applies it and runs callbacks; the submitter sends what waits as there is room for it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any

from executors import forks
from executors.agent.wire import MAX_NOTE, Cursor, JobEvent, JobSummary
from executors.client import Client, Handler, Hello
from executors.errors import AgentError, ExecutorsError, SessionClosedError
from executors.results import JobInfo, JobResult, Outcome, Reason
from executors.session.acks import AckQueue
from executors.session.dispatcher import Dispatcher
from executors.session.history import History
from executors.session.job import Callback, CancelStep, Job
from executors.session.outbox import Outbox
from executors.session.output import read_output
from executors.session.preparation import Prepared
from executors.session.registry import Accepted, Answers, Effects, JobRegistry

log = logging.getLogger(__name__)

#: Seconds for which acknowledgements wait for more of them, where one follows the other.
_ACKS_WAIT = 0.02
#: Seconds for the agent to say that it has them, when the session is left.
_CONFIRM_LIMIT = 3.0


class JobControl:
    """Thread-safe. The `Owner` of the session's handles, and the `Handler` of its client."""

    def __init__(
        self,
        connect: Callable[[Handler], Client],
        max_in_flight: int,
        auto_acknowledge: bool,
        a_job_was_lost: Callable[[], None],
    ) -> None:
        """``a_job_was_lost`` is called with the lock held, and must not wait."""
        self._auto_acknowledge = auto_acknowledge
        self._a_job_was_lost = a_job_was_lost
        self._changed = threading.Condition()
        # Under the lock of `_changed`:
        self._registry = JobRegistry()
        self._outbox = Outbox(max_in_flight)
        self._history = History(self._changed)
        #: Why the agent is gone; None while it is there.
        self.lost: str | None = None
        self.closed = False
        #: Whether something was told of which no answer was waited for.
        self.has_told = False
        self._dispatcher = Dispatcher(self._lose_all)
        self.client = connect(self)
        assert self.client.hello is not None  # a connected client has been greeted
        self.hello: Hello = self.client.hello
        self._acks = AckQueue(partial(self.client.tell, "ack"))
        self._submitter = threading.Thread(target=self._submit_forever, name="session-submitter", daemon=True)

    def start(self) -> None:
        self._dispatcher.start()
        self._submitter.start()
        forks.bind(self, "client", "_changed", "_registry", "_outbox", "_history", "_acks", "_dispatcher")

    # -- what the session asks

    def submit(self, prepared: Sequence[tuple[Job, Prepared]], refused: Sequence[tuple[Job, JobResult]]) -> None:
        """Take jobs into the outbox, in order. Raises SessionClosedError."""
        with self._changed:
            if self.closed:
                raise SessionClosedError("the session is closed")
            lost = self.lost
            if lost is None:
                for job, ready in prepared:
                    job.set_digest(ready.digest)
                    self._outbox.put(ready.urgency, job, ready.line, ready.environment)
                self._changed.notify_all()
        for job, result in refused:
            self._end_later([job], result)
        if lost is not None:
            self._end_later([job for job, _ in prepared], _never_submitted(lost))

    def attach(self, job_ids: Sequence[str]) -> list[Job]:
        """Jobs by id, in order; their state is asked for. Raises SessionClosedError."""
        with self._changed:
            if self.closed:
                raise SessionClosedError("the session is closed")
            lost = self.lost
            jobs = [self._registry.attach(job_id) for job_id in job_ids]
        if lost is None:
            self.look_up(job_ids)
        else:
            self._end_later(jobs, JobResult.without_run(Outcome.UNKNOWN, Reason.AGENT_LOST, lost))
        return jobs

    def look_up(self, job_ids: Sequence[str], tries: int = 3) -> None:
        """Ask how far jobs are whose events may lie behind us. Does not wait."""

        def listed(asked: Sequence[str], reply: Future[dict[str, Any]]) -> None:
            error = reply.exception()
            if error is None:
                jobs = reply.result()["jobs"]
                self._dispatcher.post(
                    lambda: self._apply(lambda: self._registry.looked_up(asked, map(JobInfo.from_wire, jobs)))
                )
            elif isinstance(error, SessionClosedError):
                pass
            elif tries > 1:
                self.look_up(asked, tries - 1)
            else:
                log.error("how far jobs %s are is not known: %s", ", ".join(asked[:20]), error)

        self.client.tell("list", list(job_ids), listed)

    def events(self, after: Cursor | None) -> Iterator[JobEvent]:
        return self._history.after(after, lambda: self.closed or self.lost is not None)

    def set_closed(self) -> bool:
        """Take no more jobs. Returns False if that was so already."""
        with self._changed:
            was_closed, self.closed = self.closed, True
            self._changed.notify_all()
        return not was_closed

    def send_the_rest(self) -> None:
        """After `set_closed`: what was dealt with is acknowledged, what still waits here ends as CANCELLED."""
        self._acks.flush()
        with self._changed:
            unsent = self._outbox.clear()
        self._end_later(unsent, _never_submitted("the session was closed"))
        if self._submitter is not threading.current_thread():
            self._submitter.join()

    def confirm_acknowledgements(self) -> None:
        """What was dealt with by now is acknowledged, and the agent has heard all that it was told: a stream
        that is cut while the agent writes into it may lose what it has not read.
        """
        self._acks.flush()
        if self._acks.sent > float("-inf") or self.has_told:
            with suppress(ExecutorsError):  # it is gone, or does not answer; then nobody can do more
                self.client.request("ack", ids=[], timeout=_CONFIRM_LIMIT)

    def stop(self) -> None:
        """After `set_closed`: nothing arrives any more; jobs that have not ended do so as UNKNOWN."""
        self._dispatcher.post(lambda: self._lose_all("the session was closed"))
        self._dispatcher.stop()

    def join(self) -> None:
        """After `stop`: wait until the last callback has returned."""
        self._dispatcher.join()

    # -- what handles ask

    def must_be_free(self, what: str) -> None:
        """Raises RuntimeError on the threads that ``what`` would wait for."""
        if self._dispatcher.is_current or self.client.on_reader:
            raise RuntimeError(f"{what} would wait for ever inside a callback; call it from another thread")

    def wait_ended(self, job: Job, timeout: float | None, what: str = "result()") -> JobResult:
        if job.result is None:
            self.must_be_free(what)
        with self._changed:
            if not self._changed.wait_for(lambda: job.result is not None, timeout):
                raise TimeoutError(f"{job!r} has not ended within {timeout:g} s")
            assert job.result is not None
            return job.result

    def wait_taken(self, job: Job, timeout: float | None) -> None:
        if job.id is None and job.result is None:
            self.must_be_free("wait_submitted()")
        with self._changed:
            if not self._changed.wait_for(lambda: job.id is not None or job.result is not None, timeout):
                raise TimeoutError(f"{job!r} was not taken within {timeout:g} s")

    def when_ended(self, job: Job, callback: Callback) -> None:
        with self._changed:
            kept = job.when_ended(callback)
        if not kept and not self._dispatcher.post(lambda: _call(job, callback)):
            _call(job, callback)  # the session is closed

    def when_taken(self, job: Job, callback: Callback) -> None:
        with self._changed:
            kept = job.when_taken(callback)
        if not kept and not self._dispatcher.post(lambda: _call(job, callback)):
            _call(job, callback)  # the session is closed

    def has_been_dealt_with(self, job: Job) -> None:
        if self._auto_acknowledge:
            self.acknowledge_jobs([job])

    def acknowledge_jobs(self, jobs: Iterable[Job]) -> None:
        ids = [job.id for job in jobs if job.id is not None and job.result is not None]
        with self._changed:
            self._registry.forget(ids)
        if self._acks.add(ids):
            # At once, unless some were sent a moment ago: other clients of the run wait for a key that is taken.
            if time.monotonic() - self._acks.sent >= _ACKS_WAIT:
                self._dispatcher.post(self._acks.flush)
            else:
                self._dispatcher.post_within(_ACKS_WAIT, self._acks.flush)

    def cancel_jobs(self, jobs: Iterable[Job], note: str) -> None:
        with self._changed:
            steps = [(job, job.ask_to_cancel(note)) for job in jobs]
        unsent = [job for job, step in steps if step is CancelStep.END_HERE]
        self._end_later(unsent, JobResult.without_run(Outcome.CANCELLED, Reason.CANCELLED, note))
        ids = [job.id for job, step in steps if step is CancelStep.ASK_AGENT and job.id is not None]
        if ids:
            self._tell_to_cancel(ids, jobs, note)

    def _tell_to_cancel(self, ids: Sequence[str], jobs: Iterable[Job], note: str) -> None:
        """What cannot be cancelled now can be asked for again. Does not wait."""
        of_id = {job.id: job for job in jobs}

        def answered(asked: Sequence[str], reply: Future[dict[str, Any]]) -> None:
            error = reply.exception()
            if isinstance(error, SessionClosedError):
                return
            errors = dict.fromkeys(asked, str(error)) if error is not None else reply.result().get("errors") or {}
            with self._changed:
                failed = [(of_id[one], text) for one, text in errors.items() if one in of_id]
                for job, _ in failed:
                    job.cancel_note = None
            for job, text in failed:
                if job.result is None and not self.closed:
                    log.warning("job %s was not cancelled: %s", job.id, text)

        self.has_told = True
        self.client.tell("cancel", ids, answered, note=note[:MAX_NOTE])

    def kill_job(self, job: Job, signal: int) -> None:
        if job.id is None:
            raise AgentError("not-possible", f"{job!r} is not running")
        errors = self.client.request("kill", ids=[job.id], signal=signal)["errors"]
        if errors:
            raise AgentError("not-possible", errors[job.id])

    def read_output(self, job: Job, stream: str, offset: int) -> Iterator[bytes]:
        if job.result is None or self.client.on_reader:
            self.must_be_free("output() of a job that has not ended")
        self.wait_taken(job, None)
        if job.id is not None:
            yield from read_output(self.client, job, stream, offset, lambda: self.closed)

    # -- what the client reports, on its reader

    def on_events(self, events: list[JobEvent]) -> None:
        self._dispatcher.post(lambda: self._take_events(events))

    def on_snapshot(self, jobs: list[JobSummary]) -> None:
        self._dispatcher.post(lambda: self._apply(lambda: self._registry.reconcile(map(JobInfo.from_wire, jobs))))

    def on_lost(self, reason: str) -> None:
        self._dispatcher.post(lambda: self._lose_all(reason))

    # -- on the dispatcher

    def _take_events(self, events: list[JobEvent]) -> None:
        self._apply(lambda: self._registry.apply(events))
        self._history.add(events)

    def _apply(self, decide: Callable[[], Effects]) -> None:
        with self._changed:
            effects = decide()
            for job in effects.ended:
                self._outbox.ended(job)
            if any(job.result is not None and job.result.outcome is Outcome.LOST for job in effects.ended):
                # Before anybody can see the result: its user may then close the session, which waits until it was
                # reported why.
                self._a_job_was_lost()
            self._changed.notify_all()
        for job, callback in effects.calls:
            _call(job, callback)
        for job_id, note in effects.cancel:
            self.has_told = True
            self.client.tell("cancel", [job_id], note=note[:MAX_NOTE])
        if effects.look_up:
            self.look_up(effects.look_up)

    def _lose_all(self, reason: str) -> None:
        with self._changed:
            if self.lost is None:
                self.lost = reason
            unsent = self._outbox.clear()
        self._apply(lambda: self._registry.end(unsent, _never_submitted(reason)))
        self._apply(lambda: self._registry.lose_all(reason))

    def _end_later(self, jobs: Sequence[Job], result: JobResult) -> None:
        if jobs:
            self._dispatcher.post(lambda: self._apply(lambda: self._registry.end(jobs, result)))

    # -- on the submitter

    def _submit_forever(self) -> None:
        while True:
            with self._changed:
                while not (batch := self._outbox.take()).jobs:
                    if self.closed or self.lost is not None:
                        return
                    self._changed.wait()
                self._registry.expect_answer()
            self._acks.flush()
            reply = self.client.submit(batch.items, [environment.encoded for environment in batch.environments])
            reply.add_done_callback(partial(self._answered, batch.jobs))

    def _answered(self, batch: list[Job], reply: Future[dict[str, Any]]) -> None:
        self._dispatcher.post(lambda: self._apply(lambda: self._registry.answered(batch, _answers(reply, len(batch)))))


def _call(job: Job, callback: Callback) -> None:
    try:
        callback()
    except BaseException:  # a caller's callback, SystemExit included, must not end the thread that serves all jobs
        log.exception("a callback of %r failed", job)


def _answers(reply: Future[dict[str, Any]], count: int) -> Answers:
    """What the agent has answered for each job of a batch."""
    error = reply.exception()
    if error is not None:
        return [_not_submitted(error)] * count
    return [
        JobResult.without_run(Outcome.REJECTED, Reason.NOT_SUBMITTED, item["error"])
        if "error" in item
        else Accepted(item["id"], item["known"], item["digest"])
        for item in reply.result()["items"]
    ]


def _not_submitted(error: BaseException) -> JobResult:
    if not isinstance(error, AgentError):
        return JobResult.without_run(Outcome.UNKNOWN, Reason.NOT_SUBMITTED, str(error))
    if error.code == "closing":
        return _never_submitted(str(error))
    return JobResult.without_run(Outcome.REJECTED, Reason.NOT_SUBMITTED, str(error))


def _never_submitted(reason: str) -> JobResult:
    return JobResult.without_run(Outcome.CANCELLED, Reason.NEVER_SUBMITTED, f"never submitted: {reason}")
