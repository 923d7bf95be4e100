"""What the server asks of an engine. Flux and the embedded engine both are one; the contract suite runs on both."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from typing import Any, Awaitable, Callable, Dict, List, Optional, Tuple

from .wire import is_text

#: (job id, event name, timestamp, context): an entry of a job's main eventlog (RFC 18, RFC 21).
Entry = Tuple[str, str, float, Dict[str, Any]]
#: Called on the server's loop with entries in order.
Emit = Callable[[List[Entry]], None]
#: Called on the server's loop with (stream, offset, data, eof, error) for each piece of output. The last one has eof,
#: and an error where it is not all of it.
Sink = Callable[[str, int, bytes, bool, Optional[str]], None]

#: How far a job is, for who reads its output: it may write yet; it has run; it ended without, or by an exception.
ACTIVE, RAN, FAILED_TO_RUN = "active", "ran", "failed-to-run"


class EngineError(Exception):
    """The engine refuses; the text is for the user. ``code`` is one of wire.ERROR_CODES."""

    def __init__(self, message: str, code: str = "engine") -> None:
        self.code = code
        super().__init__(message)


class Follower(ABC):
    """Delivers output of one job to one reader."""

    #: Whether what comes before an offset has to be read again to begin there.
    costly = False

    @abstractmethod
    def stop(self) -> None:
        """Deliver no more."""


class Environment:
    """An environment that jobs of one request share, so that it travels and is encoded once."""

    __slots__ = ("_halves", "_text", "values")

    def __init__(self, values: Dict[str, str]) -> None:
        self.values = values
        self._text: Optional[str] = None
        self._halves: Optional[Tuple[Environment, Dict[str, str]]] = None

    def halves(self) -> Tuple[Environment, Dict[str, str]]:
        """The part that is text, all of it as a rule; and what is not UTF-8, which Flux's JSON cannot hold."""
        if self._halves is None:
            rest = {name: value for name, value in self.values.items() if not is_text(name + value)}
            text = {name: value for name, value in self.values.items() if name not in rest}
            self._halves = (Environment(text) if rest else self), rest
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
        environment: Optional[Environment] = None,
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


class Known:
    """A job that the engine found when it started (a Flux instance outlives its agents)."""

    __slots__ = ("digest", "id", "key", "name")

    def __init__(self, job_id: str, key: Optional[str], digest: str, name: str) -> None:
        self.id = job_id
        self.key = key
        self.digest = digest
        self.name = name


class Engine(ABC):
    """Runs jobs. All methods are called on the server's loop and must not block it."""

    #: "flux" or "embedded".
    name = ""
    #: Version of what runs the jobs.
    version = ""
    #: FLUX_URI of the instance, if there is one.
    uri = ""

    @abstractmethod
    async def start(self, emit: Emit, known: Callable[[Known], None]) -> str:
        """Begin; report jobs that exist already through ``known``; give the instance's id.

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
    def resources(self) -> Awaitable[Dict[str, Any]]:
        """{"nodes": [{"rank", "host", "cores", "gpus", "memory" (bytes or None), "up", "drained"}, ...]}."""

    @abstractmethod
    def drain(self, ranks: str, reason: str, undo: bool) -> Awaitable[None]:
        """Drain or undrain the ranks of an idset (RFC 22): no new job starts there."""

    @abstractmethod
    def follow(
        self,
        job_id: str,
        stream: str,
        offset: int,
        sink: Sink,
        progress: Callable[[], str],
    ) -> Follower:
        """Deliver output of one stream from a byte offset until its end. ``progress``: ACTIVE, RAN or FAILED_TO_RUN."""

    def forget(self, job_id: str) -> None:  # noqa: B027 - most engines keep nothing
        """Drop what is kept for an ended job whose result was acknowledged long ago. Nothing by default."""

    @abstractmethod
    def stop(self, cancel_jobs: bool, kind: str = "cancel") -> Awaitable[bool]:
        """End: with ``cancel_jobs`` end what is active, by an exception of type ``kind``, and wait until it is gone.

        Whether it is. Never raises.
        """
