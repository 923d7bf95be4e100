"""What the server asks of an engine. Flux and the embedded engine both are one; the contract suite runs on both."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from enum import Enum
from typing import Any, Awaitable, Callable, Dict, List, NamedTuple, Optional, Tuple

from .wire import Resources, is_text

#: (job id, event name, timestamp, context): an entry of a job's main eventlog (RFC 18, RFC 21).
Entry = Tuple[str, str, float, Dict[str, Any]]
#: Called on the server's loop with entries in order.
Emit = Callable[[List[Entry]], None]

#: Events that somebody may wait for. Others may be told with the next one, so many seconds later at most: that saves
#: half of the messages of short jobs.
WAITED_FOR = frozenset(["exception", "finish", "clean"])
MAY_WAIT = 0.02

#: How far a job is, for readers of its output: it may write yet; it has run; it ended without, or by an exception.
ACTIVE, RAN, FAILED_TO_RUN = "active", "ran", "failed-to-run"
#: Asked on the server's loop: which of the three it is now.
Progress = Callable[[], str]


class EngineError(Exception):
    """The engine refuses; the text is for the user. ``code`` is one of wire.ERROR_CODES."""

    def __init__(self, message: str, code: str = "engine") -> None:
        self.code = code
        super().__init__(message)


class OutputPosition(NamedTuple):
    """Where a reader of a job's output begins."""

    job_id: str
    #: "stdout" or "stderr".
    stream: str
    #: The file that the job sends the stream to; None for what the engine keeps.
    path: Optional[str]
    #: Bytes of the stream, or of the file, before the first one that is wanted.
    offset: int

    def at(self, offset: int) -> OutputPosition:
        """The same output, from another offset on."""
        return self._replace(offset=offset)


class OutputSink(ABC):
    """A reader of a job's output. Called on the server's loop: `data` any number of times, then `end` once."""

    @abstractmethod
    def data(self, offset: int, data: bytes) -> None:
        """The bytes that begin at ``offset``."""

    @abstractmethod
    def end(self, offset: int, error: Optional[str]) -> None:
        """Nothing comes after ``offset``; ``error`` says why where this is not all of it."""


class Follower(ABC):
    """Delivers output of one job to one `OutputSink`."""

    #: Whether what comes before an offset has to be read again to begin there.
    costly = False

    @abstractmethod
    def stop(self) -> None:
        """Deliver no more."""

    def job_ended(self) -> None:  # noqa: B027 (those that the engine tells need not be told)
        """The job has ended: the rest of its output can be delivered now."""


class SharedEnvironment:
    """An environment that jobs of one request share, so that it travels and is encoded once."""

    __slots__ = ("_halves", "_text", "values")

    def __init__(self, values: Dict[str, str]) -> None:
        self.values = values
        self._text: Optional[str] = None
        self._halves: Optional[Tuple[SharedEnvironment, Dict[str, str]]] = None

    def halves(self) -> Tuple[SharedEnvironment, Dict[str, str]]:
        """The part that is text, all of it as a rule; and what is not UTF-8, which Flux's JSON cannot hold."""
        if self._halves is None:
            rest = {name: value for name, value in self.values.items() if not is_text(name + value)}
            text = {name: value for name, value in self.values.items() if name not in rest}
            self._halves = (SharedEnvironment(text) if rest else self), rest
        return self._halves

    def text(self) -> str:
        """Its JSON form."""
        if self._text is None:
            self._text = json.dumps(self.values)
        return self._text


class Submission:
    """One job to submit: its jobspec (a dict, RFC 25), urgency (0..31), key, digest and secret environment.

    The jobspec's own environment is that of ``environment`` where one is given.
    """

    __slots__ = ("digest", "environment", "jobspec", "key", "measure", "name", "secret_env", "urgency")

    def __init__(
        self,
        jobspec: Dict[str, Any],
        urgency: int = 16,
        key: Optional[str] = None,
        digest: str = "",
        name: str = "",
        secret_env: Optional[Dict[str, str]] = None,
        measure: bool = False,
        environment: Optional[SharedEnvironment] = None,
    ) -> None:
        self.jobspec = jobspec
        self.environment = environment
        self.urgency = urgency
        self.key = key
        self.digest = digest
        self.name = name
        self.secret_env = secret_env
        #: Ask for CPU seconds and peak memory in the result.
        self.measure = measure


class RecoveredJob:
    """A job that the engine found when it started (a Flux instance outlives its agents)."""

    __slots__ = ("digest", "id", "key", "name")

    def __init__(self, job_id: str, key: Optional[str], digest: str, name: str) -> None:
        self.id = job_id
        self.key = key
        self.digest = digest
        self.name = name


class EndReason(Enum):
    """Why an agent ends, which is what becomes of its jobs."""

    #: A client has asked for it, or nobody uses the instance: jobs are cancelled.
    REQUESTED = "requested"
    #: A signal, as when the pod is evicted. Nobody has cancelled the jobs then: they are lost.
    SIGNAL = "signal"
    #: The engine has gone. What survives it goes on, and the next agent finds it.
    ENGINE_LOST = "engine-lost"

    @property
    def exception(self) -> str:
        """The type of the exception that ends a job for this reason."""
        return "cancel" if self is EndReason.REQUESTED else "lost"


class Engine(ABC):
    """Runs jobs. All methods are called on the server's loop and must not block it."""

    #: "flux" or "embedded".
    name = ""
    #: Version of what runs the jobs.
    version = ""
    #: FLUX_URI of the instance, if there is one.
    uri = ""

    @abstractmethod
    async def start(self, emit: Emit, recovered: Callable[[RecoveredJob], None]) -> str:
        """Begin; report jobs that exist already through ``recovered``. Returns the instance's id.

        Raises EngineError when the engine cannot work here.
        """

    @abstractmethod
    def submit(self, submissions: List[Submission]) -> List[Awaitable[str]]:
        """Start submitting all of them; one awaitable job id each, raising EngineError for a refused one."""

    @abstractmethod
    def cancel(self, job_id: str, note: str) -> Awaitable[None]:
        """Raise a ``cancel`` exception. A job that has ended already is no error."""

    @abstractmethod
    def kill(self, job_id: str, signum: int) -> Awaitable[None]:
        """Send a signal to a running job. EngineError when it does not run."""

    @abstractmethod
    def resources(self) -> Awaitable[Resources]:
        """{"nodes": [{"rank", "host", "cores", "gpus", "memory" (bytes or None), "up", "drained"}, ...]}."""

    @abstractmethod
    def drain(self, ranks: str, reason: str, undo: bool) -> Awaitable[None]:
        """Drain or undrain the ranks of an idset (RFC 22): no new job starts there."""

    @abstractmethod
    def follow(self, position: OutputPosition, sink: OutputSink, progress: Progress) -> Follower:
        """Deliver what the engine keeps of one stream (``position.path`` is None) until its end.

        Raises EngineError where it is no longer kept.
        """

    def start_helper(self, name: str, command: List[str], env: Dict[str, str]) -> Awaitable[None]:
        """Have a program run on every node, outside of any job, once under each name, until it ends by itself or the
        engine ends. Where one of this name runs, it is left alone. EngineError where it cannot be started.
        """
        raise EngineError("this engine starts no helpers", "not-possible")

    def forget(self, job_id: str) -> None:  # noqa: B027 - most engines keep nothing
        """Drop what is kept for an ended job whose result was acknowledged long ago. Nothing by default."""

    @abstractmethod
    def stop(self, reason: EndReason) -> Awaitable[bool]:
        """End active jobs, unless the engine is lost, and then the engine.

        Returns True when no job is left. Never raises.
        """
