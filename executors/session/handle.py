"""What a session returns for each job that it was asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from functools import partial
from typing import Protocol

from executors.results import JobResult
from executors.session.job import Callback, Job


class Owner(Protocol):
    """What a handle asks of its session."""

    def wait_ended(self, job: Job, timeout: float | None, what: str) -> JobResult: ...

    def wait_taken(self, job: Job, timeout: float | None) -> None: ...

    def when_ended(self, job: Job, callback: Callback) -> None: ...

    def when_taken(self, job: Job, callback: Callback) -> None: ...

    def has_been_dealt_with(self, job: Job) -> None: ...

    def cancel_jobs(self, jobs: Iterable[Job], note: str) -> None: ...

    def kill_job(self, job: Job, signal: int) -> None: ...

    def acknowledge_jobs(self, jobs: Iterable[Job]) -> None: ...

    def read_output(self, job: Job, stream: str, offset: int) -> Iterator[bytes]: ...

    def must_be_free(self, what: str) -> None: ...


class JobHandle:
    """One job of a session. Thread-safe."""

    __slots__ = ("_future", "_job", "_owner")

    def __init__(self, owner: Owner, job: Job) -> None:
        self._owner = owner
        self._job = job
        self._future: JobFuture | None = None

    def __repr__(self) -> str:
        job = self._job
        return f"<JobHandle {job.id or job.key} {job.name} {job.result.outcome if job.result else job.state}>"

    @property
    def id(self) -> str | None:
        """The job's id in its instance; None until the instance has taken it."""
        return self._job.id

    @property
    def key(self) -> str:
        return self._job.key

    @property
    def name(self) -> str:
        return self._job.name

    @property
    def state(self) -> str:
        """The job's state (RFC 21) as far as the session has heard: NEW, DEPEND, PRIORITY, SCHED, RUN, CLEANUP or
        INACTIVE.
        """
        return self._job.state

    def done(self) -> bool:
        """Return whether the job has ended."""
        return self._job.result is not None

    def result(self, timeout: float | None = None) -> JobResult:
        """Wait for the end, and return how the job ended; a job that failed raises nothing (see `JobResult.check`).

        Raises TimeoutError after ``timeout`` seconds, and RuntimeError in a callback if the job has not ended: the
        thread that waits would be the one that brings the end.
        """
        result = self._owner.wait_ended(self._job, timeout, "result()")
        self._owner.has_been_dealt_with(self._job)
        return result

    @property
    def future(self) -> Future[JobResult]:
        """The job as a `concurrent.futures.Future`, made when first asked for: for ``concurrent.futures.wait``,
        ``asyncio.wrap_future`` and whatever else takes one.

        Its result is the `JobResult`, also of a job that failed or was cancelled. ``cancel()`` asks for the job's
        cancellation and returns False, since the job has yet to end. Its callbacks run where those of the handle do.
        """
        if self._future is None:
            future = JobFuture(self._owner, self._job)
            # Of two threads that ask at once each has its own, and both end.
            self._owner.when_ended(self._job, future.take_result)
            self._future = future
        return self._future

    def add_done_callback(self, function: Callable[[JobHandle], None]) -> None:
        """Call ``function`` once, on the session's dispatcher, when the job has ended (at once if it has).

        What it raises is logged, SystemExit too, and harms no other job. It cannot wait (RuntimeError).
        """
        self._owner.when_ended(self._job, partial(self._deliver, function))

    def add_submit_callback(self, function: Callable[[JobHandle], None]) -> None:
        """Call ``function`` once when `id` is known; never called for a job that the instance did not take."""
        self._owner.when_taken(self._job, partial(function, self))

    def wait_submitted(self, timeout: float | None = None) -> str | None:
        """Wait until `id` is known and return it; None when the job has ended without one.

        Raises TimeoutError after ``timeout`` seconds, and RuntimeError in a callback.
        """
        self._owner.wait_taken(self._job, timeout)
        return self._job.id

    def cancel(self, note: str = "cancelled") -> None:
        """Ask for cancellation; the result tells how it went. Does not wait."""
        self._owner.cancel_jobs([self._job], note)

    def kill(self, signal: int) -> None:
        """Send a signal to the running job. Raises AgentError when it is not running."""
        self._owner.kill_job(self._job, signal)

    def acknowledge(self) -> None:
        """The result was dealt with: its key ends, and asked for again it is a new job."""
        self._owner.acknowledge_jobs([self._job])

    def output(self, stream: str = "stdout", offset: int = 0) -> Iterator[bytes]:
        """The job's output from a byte offset on, as it is written, until the job's end.

        A reader that is slow does not hold up the job, and no more than some MB wait here for it. Raises AgentError,
        SessionClosedError or TransportError when the rest cannot be read, and in a callback RuntimeError for a job
        that has not ended; it just ends when the session is closed here meanwhile.
        """
        return self._owner.read_output(self._job, stream, offset)

    def _deliver(self, function: Callable[[JobHandle], None]) -> None:
        try:
            function(self)
        finally:
            self._owner.has_been_dealt_with(self._job)


class JobFuture(Future[JobResult]):
    """`JobHandle.future`."""

    def __init__(self, owner: Owner, job: Job) -> None:
        super().__init__()
        self._owner = owner
        self._job = job
        # So that nobody can cancel the future and leave the job to run.
        self.set_running_or_notify_cancel()

    def cancel(self) -> bool:
        self._owner.cancel_jobs([self._job], "cancelled")
        return False

    def result(self, timeout: float | None = None) -> JobResult:
        if not self.done():
            self._owner.must_be_free("result()")
        result = super().result(timeout)
        self._owner.has_been_dealt_with(self._job)
        return result

    def exception(self, timeout: float | None = None) -> BaseException | None:
        if not self.done():
            self._owner.must_be_free("exception()")
        return super().exception(timeout)

    def take_result(self) -> None:
        """The job has ended."""
        assert self._job.result is not None
        self.set_result(self._job.result)


# Friends of the class above: what the session and `completed` need of a handle, and its users do not.


def jobs_of(handles: Iterable[JobHandle]) -> list[Job]:
    """The jobs behind handles, for the session that owns them."""
    return [handle._job for handle in handles]  # noqa: SLF001


def when_ended(handle: JobHandle, callback: Callback) -> None:
    """Call back on the dispatcher at the end of a job, without counting its result as dealt with."""
    handle._owner.when_ended(handle._job, callback)  # noqa: SLF001


def check_free(handles: Iterable[JobHandle], what: str) -> None:
    """Raises RuntimeError if ``what``, which waits for these, was called in a callback."""
    for handle in handles:
        handle._owner.must_be_free(what)  # noqa: SLF001
