"""What a session knows of one job, and how that changes. No I/O and no threads: the session's lock is held."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto

from executors.agent.wire import state_after
from executors.results import JobResult

Callback = Callable[[], None]
#: Files that stdout and stderr were sent to; None: to none.
OutputFiles = tuple[str | None, str | None]
NO_FILES: OutputFiles = (None, None)


class CancelStep(Enum):
    """What is to be done about a job that somebody wants cancelled."""

    #: It has ended, or its cancellation is under way.
    NOTHING = auto()
    #: It has not been sent: it ends here and now.
    END_HERE = auto()
    #: The agent knows it: ask for it by its id.
    ASK_AGENT = auto()
    #: It was sent, and its id is not known yet; `Job.take_id` is followed by the request.
    WAIT_FOR_ID = auto()


class Job:
    """One job of a session. Its attributes are to be read only; the methods are all that can happen to it."""

    __slots__ = (
        "_end_callbacks",
        "_id_callbacks",
        "cancel_note",
        "digest",
        "id",
        "is_held",
        "is_sent",
        "key",
        "name",
        "output_files",
        "result",
        "state",
        "twins",
    )  # fmt: skip

    def __init__(self, key: str, name: str, output_files: OutputFiles = NO_FILES) -> None:
        self.key = key
        self.name = name
        self.output_files = output_files
        #: Tells whether two requests are the same work; empty until the request was prepared.
        self.digest = ""
        #: In its instance; None until the instance has taken it.
        self.id: str | None = None
        #: RFC 21 state as far as the session has heard.
        self.state = "NEW"
        self.result: JobResult | None = None
        #: Why somebody wants it cancelled; None: nobody does.
        self.cancel_note: str | None = None
        self.is_sent = False
        #: It was sent with urgency 0, and does not count as in flight.
        self.is_held = False
        #: Other requests with the same key, which the agent took for this job; they end with it. None: none.
        self.twins: list[Job] | None = None
        # None rather than an empty list: most jobs have neither, and there may be a hundred thousand.
        self._id_callbacks: list[Callback] | None = None
        self._end_callbacks: list[Callback] | None = None

    @classmethod
    def known_by_id(cls, job_id: str) -> Job:
        """A job that somebody else submitted, or an earlier session."""
        job = cls("", "")
        job.id = job_id
        return job

    def __repr__(self) -> str:
        return f"<job {self.id or self.key} {self.name} {self.result.outcome if self.result else self.state}>"

    def set_digest(self, digest: str) -> None:
        self.digest = digest

    def set_sent(self, *, held: bool) -> None:
        self.is_sent, self.is_held = True, held

    def take_id(self, job_id: str) -> list[Callback]:
        """The agent has taken the job. Returns what to call."""
        self.id = job_id
        callbacks, self._id_callbacks = self._id_callbacks, None
        return callbacks or []

    def add_twin(self, twin: Job) -> None:
        self.twins = [*(self.twins or ()), twin]

    def advance(self, event: str, context: dict[str, object]) -> None:
        """An event of its main eventlog (RFC 18)."""
        self.state = state_after(event, context) or self.state

    def set_state(self, state: str) -> None:
        """The agent's own word for the state."""
        self.state = state

    def end(self, result: JobResult) -> list[Callback]:
        """It has ended, which nothing can change any more. Returns what to call."""
        assert self.result is None, f"{self!r} has ended before"
        self.result = result
        self.state = "INACTIVE"
        callbacks, self._end_callbacks = self._end_callbacks, None
        self._id_callbacks = None
        return callbacks or []

    def ask_to_cancel(self, note: str) -> CancelStep:
        if self.result is not None or self.cancel_note is not None:
            return CancelStep.NOTHING
        self.cancel_note = note
        if self.id is not None:
            return CancelStep.ASK_AGENT
        return CancelStep.WAIT_FOR_ID if self.is_sent else CancelStep.END_HERE

    def when_taken(self, callback: Callback) -> bool:
        """Keep a callback for the moment when its id is known. Returns False if it is known already."""
        if self.id is not None:
            return False
        self._id_callbacks = [*(self._id_callbacks or ()), callback]
        return True

    def when_ended(self, callback: Callback) -> bool:
        """Keep a callback for its end. Returns False if it has ended."""
        if self.result is not None:
            return False
        self._end_callbacks = [*(self._end_callbacks or ()), callback]
        return True
