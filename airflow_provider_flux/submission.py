"""A task's job under its key: taken over from an earlier try where that is of use, else a new one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_provider_flux.names import JobKeys

if TYPE_CHECKING:
    from executors import JobHandle, JobRequest, Session

#: Seconds for a cancelled job of an earlier try to be gone.
_REPLACE_LIMIT = 120.0


def submit(
    session: Session, request: JobRequest, keys: JobKeys, log: logging.Logger, begun: Callable[[JobHandle], None]
) -> JobHandle:
    """The handle of a job that is known to the instance, or that it has refused. ``begun`` is told of it at once, so
    that it can be cancelled while this waits.

    Raises TimeoutError when what an earlier try has left does not end.
    """
    request = replace(request, key=keys.now)
    left = _unacknowledged(session, [keys.now, *keys.earlier])
    # What a cleared task has left is of no use, nor is what has ended badly: a retry is there to do it again.
    _drop(session, [job for job in left if job["key"] != keys.now or not _of_use(job)], log)
    handle = _hand_over(session, request, begun)
    if handle.id is None and _is_other_work(handle):
        log.info("the job of an earlier try runs other work than this try asks for; it is replaced")
        _drop(session, _unacknowledged(session, [keys.now]), log)
        handle = _hand_over(session, request, begun)
    if handle.id is not None:
        taken_over = any(job["id"] == handle.id for job in left)
        how = "taken over from an earlier try" if taken_over else "submitted"
        log.info("job %s in %s: %s", handle.id, session.run_name, how)
    return handle


def cancel(session: Session, key: str, log: logging.Logger) -> None:
    """Cancel the job of a key, and wait until it is gone."""
    _drop(session, [job for job in _unacknowledged(session, [key]) if job["result"] is None], log)


def _unacknowledged(session: Session, keys: Sequence[str]) -> list[dict[str, Any]]:
    return [job for job in session.find(keys) if not job["acked"]]


def _of_use(job: Mapping[str, Any]) -> bool:
    return job["result"] is None or job["result"]["outcome"] == "COMPLETED"


def _is_other_work(handle: JobHandle) -> bool:
    exception = handle.result().exception
    return exception is not None and exception.type == "key"


def _hand_over(session: Session, request: JobRequest, begun: Callable[[JobHandle], None]) -> JobHandle:
    [handle] = session.submit([request])
    begun(handle)
    handle.wait_submitted()
    return handle


def _drop(session: Session, jobs: Sequence[Mapping[str, Any]], log: logging.Logger) -> None:
    active = [job["id"] for job in jobs if job["result"] is None]
    ended = [job["id"] for job in jobs if job["result"] is not None]
    if active:
        log.info("cancelling what an earlier try of this task has left: job %s", ", ".join(active))
        session.cancel_and_wait(active, _REPLACE_LIMIT)
    if ended:
        session.request("ack", ids=ended)
