"""What Airflow is told of an end that is no success: retry, fail for good, skip. The exceptions of this provider."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowNotFoundException,
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
    from executors import Outcome, Reason

    last = "".join(f"\n  | {line}" for line in tail)
    text = f"{what} {result.describe()}"
    match result.outcome:
        case Outcome.COMPLETED:
            return
        # A shell ends with 128 and a signal's number where that has ended what it ran; so does a command by itself.
        case Outcome.FAILED | Outcome.SIGNALED if result.exception is None and result.returncode in skip_on:
            raise AirflowSkipException(f"{text}: skipped, as skip_on_exit_code says")
        case Outcome.FAILED | Outcome.SIGNALED:
            raise FluxJobFailed(f"{text}{last}")
        case Outcome.TIMEOUT:
            raise FluxJobFailed(f"{text}; the task's time_limit was exceeded{last}")
        case Outcome.CANCELLED if result.reason is not Reason.NEVER_SUBMITTED:
            raise FluxJobCancelled(text)
        case Outcome.REJECTED:
            raise FluxRequestError(f"{text}; it will never run, and is not tried again")
        case _:
            raise FluxJobLost(f"{text}; this is a loss of infrastructure, not a failure of the command{last}")


def timed_out(what: str) -> AirflowTaskTimeout:
    return AirflowTaskTimeout(f"{what} was cancelled: the task is over its execution_timeout")


@contextmanager
def translate_errors() -> Iterator[None]:
    """Errors of the core: a wrong config or request fails for good; what may be better next time is retried."""
    from executors import ConfigError, ExecutorsError, RequestError, RunNameError

    try:
        yield
    except (ConfigError, RequestError, RunNameError, AirflowNotFoundException) as err:
        raise FluxRequestError(f"{err} (wrong settings: not tried again)") from err
    except ExecutorsError as err:
        raise FluxJobLost(f"cannot create or reach the MiniCluster: {err}") from err
