"""What a session gives for each job that it was asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from executors.results import JobResult

if TYPE_CHECKING:
    from executors.session import Session


class JobHandle:
    """One job of a session. Thread-safe."""

    __slots__ = (
        "_callbacks",
        "_cancelled",
        "_digest",
        "_files",
        "_held",
        "_id",
        "_result",
        "_sent",
        "_session",
        "_submit_callbacks",
        "_twins",
        "key",
        "name",
        "state",
    )  # fmt: skip

    def __init__(
        self, session: Session, key: str, name: str, files: tuple[str | None, str | None] = (None, None)
    ) -> None:
        self._session = session
        self._id: str | None = None
        self._result: JobResult | None = None
        self._callbacks: list[Callable[[JobHandle], None]] = []
        self._submit_callbacks: list[Callable[[JobHandle], None]] = []
        self._cancelled: str | None = None
        #: Counts as in flight.
        self._sent = False
        #: Counts as held there, not as in flight: it was sent with urgency 0.
        self._held = False
        #: Other handles of the same job (the same key asked for twice); they end with this one.
        self._twins: list[JobHandle] = []
        #: Where stdout and stderr were sent.
        self._files = files
        self._digest = ""
        self.key = key
        self.name = name
        #: RFC 21 state as far as the session has heard.
        self.state = "NEW"

    def __repr__(self) -> str:
        return f"<JobHandle {self._id or self.key} {self.name} {self._result.outcome if self._result else self.state}>"

    @property
    def id(self) -> str | None:
        """The job's id in its instance; None until the instance has taken it."""
        return self._id

    def done(self) -> bool:
        return self._result is not None

    def result(self, timeout: float | None = None) -> JobResult:
        """Wait for the end. Raises TimeoutError after ``timeout`` seconds; in a callback RuntimeError for a job that
        has not ended, since the thread that would bring the end is the one that waits.
        """
        result = self._session._wait_result(self, timeout)
        self._session._delivered(self)
        return result

    def add_done_callback(self, function: Callable[[JobHandle], None]) -> None:
        """Call ``function`` once, on the session's dispatcher, when the job has ended (at once if it has).

        What it raises is logged, SystemExit too, and harms no other job. It cannot wait (RuntimeError).
        """
        self._session._add_callback(self, function)

    def add_submit_callback(self, function: Callable[[JobHandle], None]) -> None:
        """Call ``function`` once when `id` is known; never called for a job that the instance did not take."""
        self._session._add_submit_callback(self, function)

    def wait_submitted(self, timeout: float | None = None) -> str | None:
        """Wait until `id` is known and give it; None when the job has ended without one. Raises TimeoutError, and
        RuntimeError in a callback.
        """
        self._session._wait_submitted(self, timeout)
        return self._id

    def cancel(self, note: str = "cancelled") -> None:
        """Ask for cancellation; the result tells how it went. Does not wait."""
        self._session.cancel([self], note)

    def kill(self, signal: int) -> None:
        """Send a signal to the running job. Raises AgentError when it is not running."""
        self._session._kill(self, signal)

    def acknowledge(self) -> None:
        """The result was dealt with: its key ends, and asked for again it is a new job."""
        self._session.acknowledge([self])

    def output(self, stream: str = "stdout", offset: int = 0) -> Iterator[bytes]:
        """The job's output from a byte offset on, as it is written, until the job's end.

        The job is not held up by a reader that is slow, and no more than some MB wait here for it. Raises AgentError,
        SessionClosedError or TransportError when the rest is not to be had, and in a callback RuntimeError for a job
        that has not ended; it just ends when the session is closed here meanwhile.
        """
        return self._session._output(self, stream, offset)
