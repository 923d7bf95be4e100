"""How a job ended, and what is known of one that has not. Values only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from executors.agent.wire import JobSummary, NodeSummary, ResultSummary
from executors.errors import ExecutorsError


class Outcome(StrEnum):
    """What the user must know. UNKNOWN is one of them, and never counts as success."""

    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    SIGNALED = "SIGNALED"
    TIMEOUT = "TIMEOUT"
    CANCELLED = "CANCELLED"
    LOST = "LOST"
    REJECTED = "REJECTED"
    UNKNOWN = "UNKNOWN"


class Reason(StrEnum):
    """Why this client itself says how a job ended, where the instance did not."""

    #: The request is wrong (REJECTED).
    BAD_REQUEST = "request"
    #: The instance refused the submission (REJECTED), or nobody knows whether it took it (UNKNOWN).
    NOT_SUBMITTED = "submit"
    #: The key belongs to other work (REJECTED).
    KEY_TAKEN = "key"
    #: It was cancelled before it was sent (CANCELLED).
    CANCELLED = "cancel"
    #: The session ended, or the instance was ending, before it was sent: it has never run (CANCELLED).
    NEVER_SUBMITTED = "never-submitted"
    #: The agent is gone, or knows nothing of the job any more (UNKNOWN).
    AGENT_LOST = "lost"


@dataclass(frozen=True)
class JobException:
    """The fatal exception of a job (RFC 21): its type, and a note for people."""

    type: str
    note: str


@dataclass(frozen=True)
class Times:
    """Seconds since the epoch by the clock of the instance; None for what never happened."""

    submit: float | None = None
    start: float | None = None
    finish: float | None = None


@dataclass(frozen=True)
class Usage:
    """CPU time in seconds (user and system, children included) and peak resident memory of one process in bytes.

    ``max_rss`` is None where it was too small to be told from the memory of the process that started the job.
    """

    cpu: float
    max_rss: int | None


@dataclass(frozen=True)
class JobResult:
    """The end of a job. ``returncode`` is 128+n after signal n, and None for a job that never ran."""

    outcome: Outcome
    returncode: int | None = None
    signal: int | None = None
    exception: JobException | None = None
    node: str = ""
    times: Times = Times()
    usage: Usage | None = None
    #: Set where the client itself says how the job ended; None: the instance says it.
    reason: Reason | None = None

    @property
    def ok(self) -> bool:
        return self.outcome is Outcome.COMPLETED

    def check(self) -> Self:
        """Return this result if the job has COMPLETED. Raises JobFailedError otherwise."""
        if not self.ok:
            raise JobFailedError(self)
        return self

    def describe(self) -> str:
        """One sentence for people, without the job's name."""
        note = f": {self.exception.note}" if self.exception is not None and self.exception.note else ""
        where = f" on {self.node}" if self.node else ""
        match self.outcome:
            case Outcome.COMPLETED:
                return f"completed{where}"
            case Outcome.FAILED if self.exception is not None:
                return f"could not be run{where} ({self.exception.type}{note})"
            case Outcome.FAILED:
                return f"failed{where} with exit code {self.returncode}"
            case Outcome.SIGNALED:
                return f"was ended{where} by signal {self.signal} ({signal_name(self.signal)})"
            case Outcome.TIMEOUT:
                return f"was ended{where} at its time limit"  # Flux's note says the same
            case Outcome.CANCELLED:
                by = note.removeprefix(": ").removeprefix("cancelled ")
                return f"was cancelled {by}" if by.startswith("by ") else f"was cancelled{note}"
            case Outcome.LOST:
                return f"was lost{where}{note}"
            case Outcome.REJECTED:
                return f"was refused{note}"
            case Outcome.UNKNOWN:
                return f"has an unknown end{note}"

    @classmethod
    def from_wire(cls, value: ResultSummary) -> JobResult:
        """From the agent's form. Fields that a version does not send are unknown."""
        exception = value.get("exception")
        times = value.get("times") or {}
        usage = value.get("usage")
        return cls(
            outcome=Outcome(value["outcome"]),
            returncode=value.get("returncode"),
            signal=value.get("signal"),
            exception=JobException(exception["type"], exception["note"]) if exception else None,
            node=value.get("node") or "",
            times=Times(times.get("submit"), times.get("start"), times.get("finish")),
            usage=Usage(float(usage["cpu"]), usage["max_rss"]) if usage else None,
        )

    @classmethod
    def without_run(cls, outcome: Outcome, reason: Reason, note: str) -> JobResult:
        """A result that the client itself makes: REJECTED, CANCELLED or UNKNOWN, and why."""
        return cls(outcome=outcome, exception=JobException(str(reason), note), reason=reason)


class JobFailedError(ExecutorsError):
    """`JobResult.check` of a job that has not COMPLETED. ``result`` tells how it ended."""

    def __init__(self, result: JobResult) -> None:
        self.result = result
        super().__init__(f"the job {result.describe()}")


@dataclass(frozen=True)
class JobInfo:
    """What the agent knows of one job of the run, no matter who has submitted it."""

    id: str
    #: None: submitted without one.
    key: str | None
    #: Tells whether two requests are the same work (`JobRequest.identity`).
    digest: str
    name: str
    #: RFC 21: NEW, DEPEND, PRIORITY, SCHED, RUN, CLEANUP or INACTIVE.
    state: str
    node: str
    #: Its result was dealt with, and its key has ended.
    acknowledged: bool
    #: What a reader of its output has noted last (`Session.save_bookmark`).
    bookmark: str | None
    times: Times
    #: None: it has not ended.
    result: JobResult | None

    @classmethod
    def from_wire(cls, value: JobSummary) -> JobInfo:
        """From the agent's form. Fields that a version does not send are unknown."""
        times = value.get("times") or {}
        return cls(
            id=value["id"],
            key=value["key"],
            digest=value["digest"] or "",
            name=value.get("name") or "",
            state=value["state"],
            node=value.get("node") or "",
            acknowledged=bool(value["acked"]),
            bookmark=value.get("place"),
            times=Times(times.get("submit"), times.get("start"), times.get("finish")),
            result=JobResult.from_wire(value["result"]) if value["result"] is not None else None,
        )


def signal_name(number: int | None) -> str:
    import signal

    try:
        return signal.Signals(number or 0).name
    except ValueError:
        return f"SIG{number}"


@dataclass(frozen=True)
class NodeInfo:
    """One node of an instance, and the broker on it."""

    rank: int
    host: str
    cores: int
    gpus: int
    #: Bytes; None: unknown.
    memory: int | None
    #: Its broker is there.
    up: bool
    #: It takes no new jobs.
    drained: bool

    @classmethod
    def from_wire(cls, value: NodeSummary) -> NodeInfo:
        """From the agent's form."""
        return cls(
            rank=value["rank"],
            host=value["host"],
            cores=value["cores"],
            gpus=value["gpus"],
            memory=value["memory"],
            up=value["up"],
            drained=value["drained"],
        )
