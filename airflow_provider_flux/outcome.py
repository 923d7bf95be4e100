"""How a job ended -> what Airflow is told: retry, fail for good, skip. The exceptions of this provider."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSkipException,
    AirflowTaskTimeout,
)

if TYPE_CHECKING:
    from executors import JobResult


class FluxJobFailed(AirflowException):
    """The command's own failure: an exit code, a signal, its time limit. Retried as the task says."""


class FluxJobLost(AirflowException):
    """Infrastructure was lost: a node, the MiniCluster, the agent. Retried as the task says."""


class FluxJobCancelled(AirflowException):
    """Somebody cancelled the job."""


class FluxRequestError(AirflowFailException):
    """A request that is wrong, or can never fit. Not retried."""


def raise_for(result: JobResult, what: str, *, skip_on: Collection[int] = (), tail: Collection[str] = ()) -> None:
    """Raise what Airflow must know of an end that is no success. ``tail``: last lines of output that no log shows."""
    from executors import Outcome

    last = "".join(f"\n  | {line}" for line in tail)
    text = f"{what} {result.describe()}"
    match result.outcome:
        case Outcome.COMPLETED:
            return
        case Outcome.FAILED if result.exception is None and result.returncode in skip_on:
            raise AirflowSkipException(f"{text}: skipped, as skip_on_exit_code says")
        case Outcome.FAILED | Outcome.SIGNALED:
            raise FluxJobFailed(f"{text}{last}")
        case Outcome.TIMEOUT:
            raise FluxJobFailed(f"{text}; time_limit is what the task was given{last}")
        case Outcome.CANCELLED if result.exception is None or not result.exception.note.startswith("never submitted"):
            raise FluxJobCancelled(text)
        case Outcome.REJECTED:
            raise FluxRequestError(f"{text}; it will never run, and is not tried again")
        case _:
            raise FluxJobLost(f"{text}; this is a loss of infrastructure, not a failure of the command{last}")


def timed_out(what: str) -> AirflowTaskTimeout:
    return AirflowTaskTimeout(f"{what} was cancelled: the task is over its execution_timeout")
