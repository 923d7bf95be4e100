"""What the job manager's journal says of the jobs of one run. Pure: events go in, what is to be done comes out.

The journal shows all jobs of an instance, from its beginning: first what was (the history, which ends with an event of
no job), then what is. Those of this run are known by their tags (`jobspecs`), and so are found by a new agent too.
"""

from __future__ import annotations

import os
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Protocol, Sequence, Set, Tuple, Union

from ..engine import Entry, RecoveredJob
from .jobspecs import tag_of

#: The number of the job in an event that only ends the history.
NO_JOB = -1

#: For the server: a job that it may not know yet, or an entry of a job's eventlog.
Report = Union[RecoveredJob, Entry]


class Event(Protocol):
    """An event as Flux's bindings show it (`flux.job.journal.JournalEvent`). An event of `NO_JOB` has a number only."""

    @property
    def jobid(self) -> int: ...

    @property
    def name(self) -> str: ...

    @property
    def timestamp(self) -> float: ...

    @property
    def context(self) -> Dict[str, Any]: ...

    @property
    def jobspec(self) -> Any:
        """In ``submit`` events: the redacted jobspec (RFC 25), with its attributes."""

    @property
    def R(self) -> Any:
        """In ``alloc`` events: the resource set (RFC 20)."""


class Step(NamedTuple):
    """What one event asks for."""

    reports: Tuple[Report, ...] = ()
    #: To be called: readers of the output of a job that has begun, or ended without.
    readers: Sequence[Callable[[], None]] = ()
    #: To be removed: files of a job that has ended.
    files: Sequence[str] = ()
    #: All that was before this agent is known now.
    ends_history: bool = False


_NOTHING = Step()


class FluxJob:
    """An active job of this run: taken by Flux, and not gone yet."""

    __slots__ = ("id", "is_running", "readers", "secret", "tasks")

    def __init__(self, job_id: str, tasks: int, secret: str) -> None:
        self.id = job_id
        self.tasks = tasks
        #: The base of the files of its secret environment, one of each task; "" where it has none.
        self.secret = secret
        self.is_running = False
        #: Called when there is output.
        self.readers: List[Callable[[], None]] = []

    def secret_files(self) -> List[str]:
        return ["%s.%d" % (self.secret, rank) for rank in range(self.tasks)] if self.secret else []


class Journal:
    """The active jobs of ``run``. It belongs to the reactor's thread; others may ask whether a job is there."""

    def __init__(
        self,
        run: str,
        directory: str,
        plain_id: Callable[[int], str],
        usage: Callable[[str, int], Optional[Dict[str, Any]]],
    ) -> None:
        """``directory``: where secrets lie; ``usage`` of a job (its id, its tasks) that has finished, None for none."""
        self._run = run
        self._directory = directory
        self._plain_id = plain_id
        self._usage = usage
        self._jobs: Dict[int, FluxJob] = {}
        self._kept_by_flux: Set[int] = set()
        #: Jobs of this run that it has shown, those of the history too.
        self.seen = 0

    @property
    def has_active(self) -> bool:
        return bool(self._jobs)

    def active(self) -> List[FluxJob]:
        return list(self._jobs.values())

    def is_kept_by_flux(self, number: int) -> bool:
        """Whether Flux keeps this job's output, and not the spool."""
        return number in self._kept_by_flux

    def forget(self, number: int) -> None:
        """Nobody asks for the output of this job any more."""
        self._kept_by_flux.discard(number)

    def when_it_writes(self, number: int, reader: Callable[[], None]) -> None:
        """Call ``reader`` when this job may have output: now, or with a `Step` to come."""
        job = self._jobs.get(number)
        if job is None or job.is_running:
            reader()
        else:
            job.readers.append(reader)

    def apply(self, event: Event) -> Step:
        number = int(event.jobid)
        if number == NO_JOB:
            return Step(ends_history=True)
        if event.name == "submit":
            return self._submitted(number, event)
        job = self._jobs.get(number)
        if job is None:
            return _NOTHING
        context = event.context
        readers: Sequence[Callable[[], None]] = ()
        files: Sequence[str] = ()
        if event.name == "alloc":
            context = {"node": nodes_of(event.R)}
        elif event.name == "start":
            job.is_running = True
            readers, job.readers = job.readers, []
        elif event.name == "finish":
            job.is_running = False
            usage = self._usage(job.id, job.tasks)
            if usage is not None:
                context = dict(context, usage=usage)
        elif event.name == "clean":
            del self._jobs[number]
            readers, files = job.readers, job.secret_files()
        return Step(((job.id, event.name, event.timestamp, context),), readers, files)

    def _submitted(self, number: int, event: Event) -> Step:
        tag = tag_of(event.jobspec, self._run)
        if tag is None:
            return _NOTHING
        self.seen += 1
        secret = os.path.join(self._directory, str(tag["secret"])) if tag.get("secret") else ""
        job = self._jobs[number] = FluxJob(self._plain_id(number), int(tag.get("tasks", 1)), secret)
        if not tag.get("spooled"):
            self._kept_by_flux.add(number)
        recovered = RecoveredJob(job.id, tag.get("key"), tag.get("digest", ""), tag.get("name", ""))
        return Step((recovered, (job.id, event.name, event.timestamp, event.context)))


def nodes_of(resource_set: Any) -> str:
    """The hosts of an R object (RFC 20), as it names them."""
    try:
        nodes = resource_set["execution"]["nodelist"]
    except (KeyError, TypeError):
        return ""
    return ",".join(nodes)
