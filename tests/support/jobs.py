"""Jobs of sessions, run and watched."""

from __future__ import annotations

from pathlib import Path

from executors import JobHandle, JobRequest, JobResult, Session
from tests.support.waiting import LIMIT, wait_for


def run(session: Session, *argv: str, **fields: object) -> JobResult:
    """The result of a job."""
    return session.submit_one(JobRequest(argv=argv, **fields)).result(LIMIT)  # type: ignore[arg-type]


def wait_running(handle: JobHandle, marker: Path) -> None:
    """Until the job itself says that it runs, by a file, and the session knows its id: the answer may come later."""
    wait_for(lambda: marker.exists() or handle.done(), f"{handle!r} does not run")
    assert marker.exists(), f"{handle!r} has ended before it ran"
    wait_for(lambda: handle.id is not None, f"{handle!r} has no id")


def counted(path: Path, **fields: object) -> JobRequest:
    """A job that leaves one line for each time that it runs."""
    return JobRequest(argv=["sh", "-c", f"echo ran >> {path}"], **fields)  # type: ignore[arg-type]
