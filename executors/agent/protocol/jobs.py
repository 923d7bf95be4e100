"""What the agent knows of its jobs: events reduced to states and results, keys, and the numbered event log.

Both engines report the same thing, the main eventlog of each job (RFC 18, RFC 21); everything else is derived here,
so that a result can never depend on the engine that ran the job. No I/O, no clock, one thread (the server's loop).

A job is remembered until its result is acknowledged; after that its key may be used again and only the last
`KEEP_ENDED` ended jobs stay for ``list``. So memory follows what is in flight, not the length of the run.
"""

from __future__ import annotations

import signal as _signal
from collections import OrderedDict, deque
from typing import Any, Deque, Dict, Iterable, List, Optional, Tuple

from ..engine import ACTIVE, FAILED_TO_RUN, RAN
from ..wire import MAX_NOTE, Cursor, ExceptionSummary, JobSummary, ResultSummary, UsageSummary, state_after

#: Acknowledged jobs that ``list`` still shows.
KEEP_ENDED = 1000
#: Events kept for clients that reconnect; one whose cursor is older gets the state of every job instead.
KEEP_EVENTS = 28000

COMPLETED, FAILED, SIGNALED, TIMEOUT = "COMPLETED", "FAILED", "SIGNALED", "TIMEOUT"
CANCELLED, LOST, REJECTED, UNKNOWN = "CANCELLED", "LOST", "REJECTED", "UNKNOWN"

#: Events that clients are sent: those that change a job's state, and its start.
PUBLISHED = frozenset(["submit", "depend", "priority", "alloc", "start", "exception", "finish", "clean"])

#: Severity-0 exception types that mean "this request can never run here".
_REJECTING = frozenset(["alloc", "validate", "dependency", "depend"])
_OUTCOME_OF = {"cancel": CANCELLED, "timeout": TIMEOUT, "lost": LOST, "node-failure": LOST}

_SIGNALS = frozenset(int(s) for s in _signal.Signals)


class Job:
    """One job, as its events tell it."""

    __slots__ = (
        "acked",
        "digest",
        "exception",
        "id",
        "key",
        "name",
        "node",
        "read_offset",
        "result",
        "state",
        "status",
        "t_finish",
        "t_start",
        "t_submit",
        "usage",
    )  # fmt: skip

    def __init__(self, job_id: str, key: Optional[str] = None, digest: str = "", name: str = "") -> None:
        self.id = job_id
        self.key = key
        self.digest = digest
        self.name = name
        self.state = "NEW"
        self.node = ""
        self.t_submit: Optional[float] = None
        self.t_start: Optional[float] = None
        self.t_finish: Optional[float] = None
        self.status: Optional[int] = None
        self.exception: Optional[ExceptionSummary] = None
        self.result: Optional[ResultSummary] = None
        self.usage: Optional[UsageSummary] = None
        self.acked = False
        #: How far somebody has read its output, in the reader's own words.
        self.read_offset: Optional[str] = None

    @property
    def ended(self) -> bool:
        return self.result is not None

    def summary(self) -> JobSummary:
        """The form that ``list`` and ``info`` show."""
        return {
            "id": self.id, "key": self.key, "digest": self.digest, "name": self.name, "state": self.state,
            "node": self.node, "acked": self.acked, "place": self.read_offset, "result": self.result,
            "times": {"submit": self.t_submit, "start": self.t_start, "finish": self.t_finish},
        }  # fmt: skip


def outcome_of(status: Optional[int], exception: Optional[ExceptionSummary]) -> str:
    """The outcome for a wait status and the first severity-0 exception (either may be None).

    The exception is read first: a cancelled job finishes with a signal's status too, and a job that never ran
    has no status at all. Flux's shell reports death by signal n as exit code 128+n, so the two are one case here.
    """
    if exception is not None:
        kind = str(exception.get("type", ""))
        if kind in _REJECTING:
            return REJECTED
        if kind in _OUTCOME_OF:
            return _OUTCOME_OF[kind]
        if kind == "exec" and _is_node_failure(str(exception.get("note", ""))):
            return LOST
        return FAILED
    if status is None:
        return UNKNOWN
    if status == 0:
        return COMPLETED
    return FAILED if parse_wait_status(status)[1] is None else SIGNALED


def parse_wait_status(status: int) -> Tuple[int, Optional[int]]:
    """(return code, signal number or None) of a wait status; a signal's return code is 128+n, as in shells."""
    if status & 0x7F:
        number = status & 0x7F
        return 128 + number, number
    code = (status >> 8) & 0xFF
    if code > 128 and code - 128 in _SIGNALS:
        return code, code - 128
    return code, None


def _is_node_failure(note: str) -> bool:
    # job-exec's own words for a broker that went away under a job ("node failure on HOST (rank N)",
    # "lost contact with job shell on broker ..."), and its shell's last ones where that ended in good order.
    return "node failure" in note or "lost contact" in note or note.startswith("flux_job_event_watch_get: ")


class JobTable:
    """All jobs of one agent, their keys, and the event log that clients follow."""

    def __init__(self, epoch: str) -> None:
        self.epoch = epoch
        self.jobs: OrderedDict[str, Job] = OrderedDict()
        self.keys: Dict[str, str] = {}
        self.active = 0
        self.sequence = 0
        self._events: Deque[List[Any]] = deque(maxlen=KEEP_EVENTS)
        self._ended: Deque[str] = deque()
        self._dropped: List[str] = []

    # -- jobs and keys

    def add(self, job: Job) -> Job:
        """Register a job, or complete and give the one that is known by this id already.

        A job can be seen in the engine's events before the answer to its submission is here, and the other way round.
        """
        known = self.jobs.get(job.id)
        if known is not None:
            if known.key is None and job.key is not None:
                known.key, known.digest, known.name = job.key, job.digest, job.name
                if not known.acked:
                    self.keys[job.key] = job.id
            return known
        self.jobs[job.id] = job
        self.active += 1
        if job.key is not None:
            self.keys[job.key] = job.id
        return job

    def by_key(self, key: str) -> Optional[Job]:
        job_id = self.keys.get(key)
        return None if job_id is None else self.jobs.get(job_id)

    def progress(self, job_id: str) -> str:
        """How far a job is, for readers of its output: ACTIVE, RAN or FAILED_TO_RUN."""
        job = self.jobs.get(job_id)
        if job is None:
            return RAN
        if not job.ended:
            return ACTIVE
        return RAN if job.t_start is not None and job.exception is None else FAILED_TO_RUN

    def acknowledge(self, job_id: str) -> bool:
        """End the key of an ended job. False when there is no such job, or it has not ended."""
        job = self.jobs.get(job_id)
        if job is None or not job.ended:
            return False
        if not job.acked:
            job.acked = True
            if job.key is not None and self.keys.get(job.key) == job.id:
                del self.keys[job.key]
            self._ended.append(job.id)
            while len(self._ended) > KEEP_ENDED:
                old = self._ended.popleft()
                self.jobs.pop(old, None)
                self._dropped.append(old)
        return True

    def take_dropped(self) -> List[str]:
        """Jobs that are no longer known, since the last call."""
        dropped, self._dropped = self._dropped, []
        return dropped

    # -- events

    def apply(self, job_id: str, name: str, timestamp: float, context: Dict[str, Any]) -> Optional[Job]:
        """One entry of a job's main eventlog; published if clients can see a difference. None: unknown job."""
        job = self.jobs.get(job_id)
        if job is None or job.ended:
            return None
        job.state = state_after(name, context) or job.state
        if name == "submit":
            job.t_submit = timestamp
        elif name == "alloc":
            job.node = str(context.get("node", ""))
        elif name == "start":
            job.t_start = timestamp
        elif name == "exception":
            context = dict(context, note=str(context.get("note", ""))[:MAX_NOTE])
            if context.get("severity") == 0 and job.exception is None:
                job.exception = {"type": str(context.get("type", "")), "note": str(context.get("note", ""))}
        elif name == "finish":
            job.t_finish = timestamp
            job.status = context.get("status")
            job.usage = context.get("usage")
        elif name == "clean":
            self._end(job, timestamp)
            context = dict(context, result=job.result)
        if name in PUBLISHED:
            self._publish(job.id, name, timestamp, context)
        return job

    def _end(self, job: Job, timestamp: float) -> None:
        outcome = outcome_of(job.status, job.exception)
        returncode, number = (None, None) if job.status is None else parse_wait_status(job.status)
        job.result = {
            "outcome": outcome, "returncode": returncode, "signal": number, "exception": job.exception,
            "node": job.node, "usage": job.usage,
            "times": {"submit": job.t_submit, "start": job.t_start, "finish": job.t_finish or timestamp},
        }  # fmt: skip
        self.active -= 1

    def _publish(self, job_id: str, name: str, timestamp: float, context: Dict[str, Any]) -> None:
        self.sequence += 1
        self._events.append([self.sequence, job_id, name, timestamp, context])

    def cursor(self) -> Cursor:
        return Cursor(self.epoch, self.sequence)

    def holds(self, cursor: Optional[Cursor]) -> bool:
        """Whether every event after this cursor is still here; if not, a client needs `snapshot`."""
        if cursor is None or cursor.epoch != self.epoch:
            return False
        oldest = self._events[0][0] if self._events else self.sequence + 1
        return oldest - 1 <= cursor.sequence <= self.sequence

    def after(self, sequence: int, limit: int) -> List[List[Any]]:
        """At most ``limit`` events after ``sequence``, which `holds` must have been asked about."""
        if not self._events or sequence >= self.sequence:
            return []
        first = sequence + 1 - self._events[0][0]
        if first < 0:
            raise LookupError("events after %d are no longer here" % sequence)
        if first > len(self._events) // 2:  # deque indexing costs its distance from the nearer end
            return _tail(self._events, len(self._events) - first, limit)
        events = []
        for index in range(first, min(first + limit, len(self._events))):
            events.append(self._events[index])
        return events

    def snapshot(self) -> List[JobSummary]:
        """Every job that has not been acknowledged, as ``list`` shows it."""
        return [job.summary() for job in self.jobs.values() if not job.acked]

    def select(self, ids: Optional[Iterable[str]], keys: Optional[Iterable[str]]) -> List[JobSummary]:
        """Summaries of the named jobs; of all jobs when neither ids nor keys are given."""
        if ids is None and keys is None:
            return [job.summary() for job in self.jobs.values()]
        found = [self.jobs.get(job_id) for job_id in ids or ()]
        found += [self.by_key(key) for key in keys or ()]
        return [job.summary() for job in found if job is not None]


def _tail(events: Deque[List[Any]], count: int, limit: int) -> List[List[Any]]:
    collected = []
    for index in range(1, count + 1):
        collected.append(events[-index])
    collected.reverse()
    return collected[:limit]
