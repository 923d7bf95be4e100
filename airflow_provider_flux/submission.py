"""A task's job under its key: taken over from an earlier try where that is of use, else a new one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from airflow_provider_flux.names import JobKeys

if TYPE_CHECKING:
    from executors import JobHandle, JobInfo, JobRequest, Session

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
    _drop(session, [job for job in left if job.key != keys.now or not _of_use(job)], log)
    handle = _hand_over(session, request, begun)
    if handle.id is None and _is_other_work(handle):
        log.info("the job of an earlier try is not the one that this try asks for; it is replaced")
        _drop(session, _unacknowledged(session, [keys.now]), log)
        handle = _hand_over(session, request, begun)
    if handle.id is not None:
        taken_over = any(job.id == handle.id for job in left)
        how = "taken over from an earlier try" if taken_over else "submitted"
        log.info("job %s in %s: %s", handle.id, session.run_name, how)
    return handle


def cancel(session: Session, key: str, log: logging.Logger) -> None:
    """Cancel the job of a key, and wait until it is gone."""
    _drop(session, [job for job in _unacknowledged(session, [key]) if job.result is None], log)


def _unacknowledged(session: Session, keys: Sequence[str]) -> list[JobInfo]:
    return session.jobs(keys=keys, unacknowledged=True)


def _of_use(job: JobInfo) -> bool:
    return job.result is None or job.result.ok


def _is_other_work(handle: JobHandle) -> bool:
    from executors import Reason

    return handle.result().reason is Reason.KEY_TAKEN


def _hand_over(session: Session, request: JobRequest, begun: Callable[[JobHandle], None]) -> JobHandle:
    handle = session.submit_one(request)
    begun(handle)
    handle.wait_submitted()
    return handle


def _drop(session: Session, jobs: Sequence[JobInfo], log: logging.Logger) -> None:
    active = [job.id for job in jobs if job.result is None]
    ended = [job.id for job in jobs if job.result is not None]
    if active:
        log.info("cancelling job %s of an earlier try of this task", ", ".join(active))
        session.cancel_and_wait(active, _REPLACE_LIMIT)
    if ended:
        session.acknowledge_ids(ended)
