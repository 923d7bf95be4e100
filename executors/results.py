"""How a job ended. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


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

    @property
    def ok(self) -> bool:
        return self.outcome is Outcome.COMPLETED

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
                return f"was ended{where} at its time limit{note}"
            case Outcome.CANCELLED:
                return f"was cancelled{note}"
            case Outcome.LOST:
                return f"was lost{where}{note}"
            case Outcome.REJECTED:
                return f"was refused{note}"
            case Outcome.UNKNOWN:
                return f"has an unknown end{note}"

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> JobResult:
        """From the agent's JSON form."""
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
    def without_run(cls, outcome: Outcome, kind: str, note: str) -> JobResult:
        """A result that the client itself gives: REJECTED, CANCELLED or UNKNOWN, and why."""
        return cls(outcome=outcome, exception=JobException(kind, note))


def signal_name(number: int | None) -> str:
    import signal

    try:
        return signal.Signals(number or 0).name
    except ValueError:
        return f"SIG{number}"
