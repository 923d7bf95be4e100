"""The facade that adapters use: opens a run's instance, submits, hands out handles and events.

Threads: the client's reader queues what arrives; one *dispatcher* applies it in order and runs callbacks; one
*submitter* sends batches. All public methods may be called from any thread, except inside a callback those that
wait (``result``, ``close``).

Flow control: at most ``max_in_flight`` jobs of a session are in the instance at once, the others wait here, urgent
ones first. The lead broker's memory grows with what it holds, and Flux runs no job sooner for being told of it early.
Room is filled a quarter of that at a time: Flux keeps jobs in a directory with one entry for each 256 ms in which a
job was submitted (its ids begin with the time, RFC 19), and writes all of it with every change of a job. Jobs that
trickle in one by one make it grow with the time that the run takes, and each job then costs more than the one before.
"""

from __future__ import annotations

import contextlib
import heapq
import json
import logging
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, Self

from executors.agent.wire import BATCH_BYTES, MAX_LINE, Cursor, JobEvent
from executors.client import Client, Handler, Hello
from executors.config import RunConfig
from executors.errors import AgentError, ExecutorsError, RequestError, SessionClosedError
from executors.job import DEFAULT_URGENCY, Defaults, Environment, Environments, Item, JobRequest, make_item
from executors.lifecycle import Lifecycle
from executors.names import RunId, run_name
from executors.results import JobResult, Outcome

log = logging.getLogger(__name__)

MAX_IN_FLIGHT = 2000
#: Jobs in one submission message.
_BATCH_JOBS = 200
#: Events that `Session.events` can go back to.
_KEEP_EVENTS = 20000


def open_session(
    run: RunId,
    config: RunConfig,
    *,
    environ: Mapping[str, str] | None = None,
    announce: Callable[[str], None] = log.info,
    max_in_flight: int = MAX_IN_FLIGHT,
    auto_acknowledge: bool = True,
) -> Session:
    """Get or create the instance of a run and connect to it.

    ``announce`` is told in one line each which instance is used. With ``auto_acknowledge`` a result counts as
    acknowledged once callbacks have run or `JobHandle.result` has given it; without, call `JobHandle.acknowledge`.
    Raises ProvisionError, TransportError, ConfigError or RunNameError; nothing is left behind then.
    """
    environment = dict(os.environ if environ is None else environ)
    lifecycle = Lifecycle(run_name(run), config, environment)
    return Session(lifecycle, lifecycle.acquire, config, environment, announce, max_in_flight, auto_acknowledge)


def join_session(
    name: str,
    config: RunConfig,
    *,
    environ: Mapping[str, str] | None = None,
    announce: Callable[[str], None] = log.info,
) -> Session:
    """Connect to an instance that is there, by its name (`Session.run_name`), and never make one.

    Leave it by ``close(release=False)``. Raises ProvisionError when it is not there, and what `open_session` does.
    """
    environment = dict(os.environ if environ is None else environ)
    lifecycle = Lifecycle(name, config, environment)
    return Session(lifecycle, lifecycle.join, config, environment, announce, MAX_IN_FLIGHT, auto_acknowledge=False)


def end_run(name: str, config: RunConfig, *, environ: Mapping[str, str] | None = None) -> None:
    """End the instance of this name (`Session.run_name`), whoever uses it, and wait until it is gone. Nothing to end is
    no error; what could not be ended is logged, and ends by its own time-outs.
    """
    environment = dict(os.environ if environ is None else environ)
    Lifecycle(name, config, environment).end()


class JobHandle:
    """One job of a session. Thread-safe."""

    __slots__ = (
        "_callbacks",
        "_cancelled",
        "_digest",
        "_files",
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
        """Wait for the end. Raises TimeoutError after ``timeout`` seconds."""
        result = self._session._wait_result(self, timeout)
        self._session._delivered(self)
        return result

    def add_done_callback(self, function: Callable[[JobHandle], None]) -> None:
        """Call ``function`` once, on the session's dispatcher, when the job has ended (at once if it has)."""
        self._session._add_callback(self, function)

    def add_submit_callback(self, function: Callable[[JobHandle], None]) -> None:
        """Call ``function`` once when `id` is known; never called for a job that the instance did not take."""
        self._session._add_submit_callback(self, function)

    def wait_submitted(self, timeout: float | None = None) -> str | None:
        """Wait until `id` is known and give it; None when the job has ended without one. Raises TimeoutError."""
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

        Raises AgentError, SessionClosedError or TransportError when the rest is not to be had; it just ends when the
        session is closed here meanwhile.
        """
        return self._session._output(self, stream, offset)


class Session:
    """A run's instance in use. A context manager: leaving it releases the instance."""

    def __init__(
        self,
        lifecycle: Lifecycle,
        acquire: Callable[[Handler, Callable[[str], None]], Client],
        config: RunConfig,
        environ: Mapping[str, str],
        announce: Callable[[str], None],
        max_in_flight: int,
        auto_acknowledge: bool,
    ) -> None:
        self._lifecycle = lifecycle
        self._auto_acknowledge = auto_acknowledge
        self._max_in_flight = max_in_flight
        self._environments = Environments(_encodable(environ) if lifecycle.inherits_environment else None)
        self._making = threading.Lock()
        self._acking = threading.Lock()
        self._base_cwd = os.getcwd() if lifecycle.inherits_environment else "/"
        # Brokers in several pods on one node would each bind their tasks to the node's first cores.
        self._defaults = _defaults(config, {} if lifecycle.inherits_environment else {"cpu-affinity": "off"})
        self._changed = threading.Condition()
        self._jobs: dict[str, JobHandle] = {}
        self._early: dict[str, list[JobEvent]] = {}
        self._waiting: list[tuple[int, int, JobHandle, bytes, Environment]] = []
        self._sequence = 0
        self._in_flight = 0
        self._full = False
        self._unanswered = 0
        self._to_ack: list[str] = []
        self._lost: str | None = None
        self._closed = False
        self._log: deque[JobEvent] = deque(maxlen=_KEEP_EVENTS)
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._client: Client = acquire(self, announce)
        assert self._client.hello is not None  # a connected client has been greeted
        self.hello: Hello = self._client.hello
        self._threads = [
            threading.Thread(target=self._dispatch, name="session-dispatcher", daemon=True),
            threading.Thread(target=self._submit_forever, name="session-submitter", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # -- public

    @property
    def run_name(self) -> str:
        return self._lifecycle.run_name

    @property
    def remote(self) -> bool:
        """Whether jobs run elsewhere: they inherit neither this machine's environment nor its files."""
        return not self._lifecycle.inherits_environment

    @property
    def lost(self) -> str | None:
        """Why the agent is gone; None while it is there."""
        return self._lost

    def external_id(self, handle: JobHandle) -> str:
        """``instance/jobid``: tells a job of this instance from one with the same id in another."""
        return f"{self.hello.instance}/{handle.id}"

    def submit(self, requests: Sequence[JobRequest]) -> list[JobHandle]:
        """One handle per request, in order. A request that is wrong yields a handle that is REJECTED, with the reason.

        Does not wait: `JobHandle.id` comes later. Raises SessionClosedError, or TypeError for other than JobRequests.
        """
        if self._closed:
            raise SessionClosedError("the session is closed")
        if isinstance(requests, JobRequest) or not all(isinstance(request, JobRequest) for request in requests):
            raise TypeError("requests: give a list of JobRequest objects")
        handles = []
        ready = []
        for request in requests:
            files = (request.stdout, request.stderr or request.stdout)
            key = request.key if isinstance(request.key, str) and request.key else os.urandom(16).hex()
            handle = JobHandle(self, key, request.name, files)
            handles.append(handle)
            try:
                with self._making:
                    item = make_item(request, self._defaults, self._environments, self._base_cwd)
                handle._digest = item.digest
                ready.append((item.urgency, handle, _encode(item, handle.key), item.environment))
            except (RequestError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as err:
                # The others of the list are to have their handles, whatever one of them holds.
                self._finish_later(handle, JobResult.without_run(Outcome.REJECTED, "request", str(err)))
        with self._changed:
            if self._closed:
                raise SessionClosedError("the session is closed")
            lost = self._lost
            if lost is None:
                for urgency, handle, line, environment in ready:
                    self._sequence += 1
                    heapq.heappush(self._waiting, (-urgency, self._sequence, handle, line, environment))
                self._changed.notify_all()
        if lost is not None:
            for _, handle, _, _ in ready:
                self._finish_later(handle, _never_submitted(lost))
        return handles

    def cancel(self, handles: Iterable[JobHandle], note: str = "cancelled") -> None:
        """Cancel many jobs with one message. Jobs that still wait here end at once."""
        ids = []
        unsent = []
        with self._changed:
            for handle in handles:
                if handle._result is None and handle._cancelled is None:
                    handle._cancelled = note
                    if handle._id is not None:
                        ids.append(handle._id)
                    elif not handle._sent:
                        unsent.append(handle)  # its turn will come, and be skipped
        for handle in unsent:
            self._finish_later(handle, JobResult.without_run(Outcome.CANCELLED, "cancel", note))
        if ids:
            self._client.request_later("cancel", ids=ids, note=note)

    def acknowledge(self, handles: Iterable[JobHandle]) -> None:
        """End the keys of ended jobs, in batches behind the scenes."""
        ids = [handle._id for handle in handles if handle._id is not None and handle._result is not None]
        with self._changed:
            for job_id in ids:
                self._jobs.pop(job_id, None)
            first = not self._to_ack
            self._to_ack += ids
        if first and ids:
            self._inbox.put(self._flush_acks)

    def find(self, keys: Sequence[str]) -> list[dict[str, Any]]:
        """What the agent knows of jobs by key: dicts with id, key, digest, state, result (None: active)."""
        jobs: list[dict[str, Any]] = self._client.request("list", keys=list(keys))["jobs"]
        return jobs

    def look_up(self, job_ids: Sequence[str]) -> Future[list[dict[str, Any]]]:
        """The same of jobs by id, without waiting: those that the agent knows."""
        found: Future[list[dict[str, Any]]] = Future()

        def answered(reply: Future[dict[str, Any]]) -> None:
            error = reply.exception()
            if error is not None:
                found.set_exception(error)
            else:
                found.set_result(reply.result()["jobs"])

        self._client.request_later("list", ids=list(job_ids)).add_done_callback(answered)
        return found

    def unacknowledged(self) -> list[dict[str, Any]]:
        """All jobs of this run whose result nobody has acknowledged, in the form of `find`."""
        return [job for job in self._client.request("list")["jobs"] if not job["acked"]]

    def attach(self, job_ids: Sequence[str]) -> list[JobHandle]:
        """Handles of jobs that are known by id, in order. Does not wait; one that is not there ends as UNKNOWN.

        Such a handle has no key here, and its output is that of a job that writes to no file.
        """
        if self._closed:
            raise SessionClosedError("the session is closed")
        ids = list(job_ids)
        with self._changed:
            lost = self._lost
            handles = [self._jobs.setdefault(job_id, _placeholder(self, job_id)) for job_id in ids]
        if lost is None:
            self._adopt(ids)
        else:
            for handle in handles:
                self._finish_later(handle, JobResult.without_run(Outcome.UNKNOWN, "lost", lost))
        return handles

    def follow(
        self, job_id: str, stream: str, offset: int, sink: Callable[[bytes | BaseException | None], None]
    ) -> Callable[[], None]:
        """Pass a job's output to ``sink`` as it is written, without a thread of its own; None is its end, an error that
        there is no more to be had. ``sink`` is called on the session's reader and must be quick.

        Gives a function that stops it. For a job that writes to no file; `JobHandle.output` waits instead.
        """
        return self._client.follow(job_id, stream, None, offset, sink)

    def mark(self, job_id: str, place: str) -> None:
        """Keep a reader's place in the output of a job with the job; `find` shows it. Does not wait."""
        self._client.request_later("mark", job=job_id, place=place)

    def cancel_and_wait(self, job_ids: Sequence[str], timeout: float) -> None:
        """Cancel jobs known by id only, wait until they are INACTIVE, and end their keys. Raises TimeoutError."""
        ids = list(job_ids)
        handles = self.attach(ids)
        self._client.request("cancel", ids=ids, note="replaced")
        self._adopt(ids)
        deadline = time.monotonic() + timeout
        for handle in handles:
            self._wait_result(handle, deadline - time.monotonic())
        self._client.request("ack", ids=ids)

    def resources(self) -> dict[str, Any]:
        """Nodes of the instance: {"nodes": [{rank, host, cores, gpus, memory (bytes or None), up, drained}]}."""
        return self._client.request("resources")

    def output_of(self, job_id: str, stream: str = "stdout", offset: int = 0) -> Iterator[bytes]:
        """Output of a job that is known by its id only, as `JobHandle.output`; of one that writes to no file."""
        return self._output(_placeholder(self, job_id), stream, offset)

    def path_kinds(self, paths: Sequence[str]) -> list[str | None]:
        """What each path is on the instance's lead node: "file", "directory", "other", or None: not there."""
        kinds: list[str | None] = self._client.request("stat", paths=list(paths))["kinds"]
        return kinds

    def request(self, op: str, **fields: Any) -> dict[str, Any]:
        """Any other request of the agent (put, get, drain, info ...). Raises AgentError."""
        return self._client.request(op, **fields)

    def events(self, after: Cursor | None = None) -> Iterator[JobEvent]:
        """Events of all jobs of the run after a cursor (None: all that the session has seen), until it is closed.

        Raises ExecutorsError when the cursor is older than what is kept.
        """
        with self._changed:
            place = _place_after(self._log, after)
        while True:
            with self._changed:
                while not (found := _following(self._log, place)) and not self._closed and self._lost is None:
                    self._changed.wait()
            if not found:
                return
            for event in found:
                place = event.cursor
                yield event

    def close(self, *, release: bool = True) -> None:
        """Release the instance: jobs that are still active end as CANCELLED, and it ends unless others use it.

        With ``release=False`` only disconnect: the instance and its jobs go on until its own time-outs.
        """
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
        self._flush_acks()
        self._cancel_unsent("the session was closed")
        dispatcher, submitter = self._threads
        _join(submitter)
        if release:
            self._lifecycle.release(self._client)
        else:
            self._lifecycle.detach()
        self._client.close()
        self._inbox.put(lambda: self._end_all("the session was closed"))
        self._inbox.put(None)
        _join(dispatcher)

    # -- Handler: called on the client's reader

    def on_events(self, events: list[JobEvent]) -> None:
        self._inbox.put(lambda: self._apply(events))

    def on_snapshot(self, jobs: list[dict[str, Any]]) -> None:
        self._inbox.put(lambda: self._reconcile(jobs))

    def on_lost(self, reason: str) -> None:
        self._inbox.put(lambda: self._end_all(reason))

    # -- dispatcher

    def _dispatch(self) -> None:
        while (work := self._inbox.get()) is not None:
            work()

    def _apply(self, events: list[JobEvent]) -> None:
        for event in events:
            handle = self._jobs.get(event.id)
            if handle is not None:
                self._apply_one(handle, event)
            elif self._unanswered:
                # The answer to its submission may still be on its way; it tells whose job this is.
                self._early.setdefault(event.id, []).append(event)
        with self._changed:
            self._log.extend(events)
            self._changed.notify_all()

    def _apply_one(self, handle: JobHandle, event: JobEvent) -> None:
        state = _STATE_AFTER.get(event.name)
        if state is not None:
            handle.state = state
        if event.name == "clean":
            self._finish(handle, JobResult.of(event.context["result"]))

    def _reconcile(self, jobs: list[dict[str, Any]]) -> None:
        """The stream was away too long for its events: take the state of every job instead."""
        known = {job["id"]: job for job in jobs}
        missing = []
        for job_id, handle in list(self._jobs.items()):
            if handle._result is not None:
                continue
            if job_id in known:
                self._take_summary(handle, known[job_id])
            else:
                missing.append(job_id)  # another client may have acknowledged it
        if missing:
            self._adopt(missing)

    def _take_summary(self, handle: JobHandle, job: dict[str, Any]) -> None:
        handle.state = job["state"]
        if job["result"] is not None:
            self._finish(handle, JobResult.of(job["result"]))

    def _submitted(self, batch: list[JobHandle], reply: Future[dict[str, Any]]) -> None:
        error = reply.exception()
        answers: list[dict[str, Any]] = [] if error is not None else reply.result()["items"]
        running_already = []
        for index, handle in enumerate(batch):
            if error is not None:
                self._finish(handle, _not_submitted(error))
            elif "error" in answers[index]:
                self._finish(handle, JobResult.without_run(Outcome.REJECTED, "submit", answers[index]["error"]))
            elif answers[index]["known"] and answers[index]["digest"] != handle._digest:
                note = f"key {handle.key!r} belongs to other work, job {answers[index]['id']}; give another key"
                self._finish(handle, JobResult.without_run(Outcome.REJECTED, "key", note))
            else:
                self._take_id(handle, answers[index]["id"])
                if answers[index]["known"]:
                    running_already.append(answers[index]["id"])
        self._unanswered -= 1
        if not self._unanswered:
            self._early.clear()
        if running_already:
            self._adopt(running_already)

    def _take_id(self, handle: JobHandle, job_id: str) -> None:
        with self._changed:
            handle._id = job_id
            first = self._jobs.setdefault(job_id, handle)
            if first is not handle:
                first._twins.append(handle)
            callbacks, handle._submit_callbacks = handle._submit_callbacks, []
            cancelled = handle._cancelled
            self._changed.notify_all()
        for function in callbacks:
            self._call(function, handle)
        if first._result is not None and first is not handle:
            self._finish(handle, first._result)
        for event in self._early.pop(job_id, ()):
            self._apply_one(handle, event)
        if cancelled is not None and handle._result is None:
            self._client.request_later("cancel", ids=[job_id], note=cancelled)

    def _adopt(self, job_ids: list[str]) -> None:
        """Learn how far jobs are that ran before we asked: their events may lie behind us."""

        def listed(future: Future[dict[str, Any]]) -> None:
            if future.exception() is None:
                jobs = future.result()["jobs"]
                self._inbox.put(lambda: self._take_summaries(job_ids, jobs))

        self._client.request_later("list", ids=job_ids).add_done_callback(listed)

    def _take_summaries(self, asked: Sequence[str], jobs: list[dict[str, Any]]) -> None:
        known = {job["id"]: job for job in jobs}
        for job_id in asked:
            handle = self._jobs.get(job_id)
            if handle is None or handle._result is not None:
                continue
            if job_id in known:
                self._take_summary(handle, known[job_id])
            else:
                note = "the agent knows nothing of this job any more"
                self._finish(handle, JobResult.without_run(Outcome.UNKNOWN, "lost", note))

    def _end_all(self, reason: str) -> None:
        with self._changed:
            if self._lost is None:
                self._lost = reason
            unsent, self._waiting = self._waiting, []
            self._changed.notify_all()
        for _, _, handle, _, _ in unsent:
            self._finish(handle, _never_submitted(reason))
        for handle in list(self._jobs.values()):
            if handle._result is None:
                self._finish(handle, JobResult.without_run(Outcome.UNKNOWN, "lost", reason))

    def _finish_later(self, handle: JobHandle, result: JobResult) -> None:
        self._inbox.put(lambda: self._finish(handle, result))

    def _finish(self, handle: JobHandle, result: JobResult) -> None:
        with self._changed:
            if handle._result is not None:
                return
            handle._result = result
            handle.state = "INACTIVE"
            callbacks, handle._callbacks = handle._callbacks, []
            twins, handle._twins = handle._twins, []
            self._in_flight -= handle._sent
            self._changed.notify_all()
        for function in callbacks:
            self._call(function, handle)
        if callbacks:
            self._delivered(handle)
        for twin in twins:
            self._finish(twin, result)

    def _call(self, function: Callable[[JobHandle], None], handle: JobHandle) -> None:
        try:
            function(handle)
        except Exception:  # a caller's callback must not end the thread that serves all the other jobs
            log.exception("a callback of %r failed", handle)

    def _call_late(self, function: Callable[[JobHandle], None], handle: JobHandle) -> None:
        self._call(function, handle)
        self._delivered(handle)

    def _delivered(self, handle: JobHandle) -> None:
        if self._auto_acknowledge:
            self.acknowledge([handle])

    def _flush_acks(self) -> None:
        # Under a lock of its own until they are sent: whoever finds none to send may submit the same keys again.
        with self._acking:
            with self._changed:
                ids, self._to_ack = self._to_ack, []
            if ids:
                self._client.request_later("ack", ids=ids)

    # -- submitter

    def _submit_forever(self) -> None:
        while True:
            with self._changed:
                while not self._waiting or not self._room():
                    if self._closed or self._lost is not None:
                        return
                    self._changed.wait()
                batch, items, environments = self._take_batch()
            if not batch:
                continue  # all of them were cancelled meanwhile
            self._flush_acks()
            reply = self._client.submit(items, [environment.encoded for environment in environments])
            reply.add_done_callback(partial(self._answered, batch))

    def _room(self) -> int:
        """How many of the waiting jobs may go now."""
        room = self._max_in_flight - self._in_flight
        if room <= 0:
            self._full = True
        elif room >= self._max_in_flight // 4:
            self._full = False
        urgent = -self._waiting[0][0] > DEFAULT_URGENCY if self._waiting else False
        return 0 if self._full and not urgent else room

    def _take_batch(self) -> tuple[list[JobHandle], list[bytes], list[Environment]]:
        batch: list[JobHandle] = []
        items: list[bytes] = []
        places: dict[Environment, int] = {}
        room = min(_BATCH_JOBS, self._room())
        size = 0
        while self._waiting and len(batch) < room:
            _, _, handle, line, environment = self._waiting[0]
            if handle._cancelled is not None:
                heapq.heappop(self._waiting)
                continue
            size += len(line) + (0 if environment in places else len(environment.encoded))
            if batch and size > BATCH_BYTES:
                break
            heapq.heappop(self._waiting)
            handle._sent = True
            batch.append(handle)
            place = places.setdefault(environment, len(places))
            items.append(b'{"environment":%d,%b' % (place, line[1:]))
        self._in_flight += len(batch)
        self._unanswered += bool(batch)
        return batch, items, list(places)

    def _answered(self, batch: list[JobHandle], reply: Future[dict[str, Any]]) -> None:
        self._inbox.put(lambda: self._submitted(batch, reply))

    def _cancel_unsent(self, note: str) -> None:
        with self._changed:
            unsent, self._waiting = self._waiting, []
        for _, _, handle, _, _ in unsent:
            self._finish_later(handle, JobResult.without_run(Outcome.CANCELLED, "cancel", note))

    # -- for handles

    def _wait_result(self, handle: JobHandle, timeout: float | None) -> JobResult:
        with self._changed:
            if not self._changed.wait_for(lambda: handle._result is not None, timeout):
                raise TimeoutError(f"{handle!r} has not ended within {timeout:g} s")
            assert handle._result is not None
            return handle._result

    def _wait_submitted(self, handle: JobHandle, timeout: float | None) -> None:
        with self._changed:
            if not self._changed.wait_for(lambda: handle._id is not None or handle._result is not None, timeout):
                raise TimeoutError(f"{handle!r} was not taken within {timeout:g} s")

    def _add_callback(self, handle: JobHandle, function: Callable[[JobHandle], None]) -> None:
        with self._changed:
            if handle._result is None:
                handle._callbacks.append(function)
                return
        if self._threads[0].is_alive():
            self._inbox.put(lambda: self._call_late(function, handle))
        else:
            self._call_late(function, handle)  # the session is closed

    def _add_submit_callback(self, handle: JobHandle, function: Callable[[JobHandle], None]) -> None:
        with self._changed:
            if handle._id is None:
                handle._submit_callbacks.append(function)
                return
        self._inbox.put(lambda: self._call(function, handle))

    def _kill(self, handle: JobHandle, signal: int) -> None:
        if handle._id is None:
            raise AgentError("not-possible", f"{handle!r} is not running")
        errors = self._client.request("kill", ids=[handle._id], signal=signal)["errors"]
        if errors:
            raise AgentError("not-possible", errors[handle._id])

    def _output(self, handle: JobHandle, stream: str, offset: int) -> Iterator[bytes]:
        self._wait_submitted(handle, None)
        if handle._id is None:
            return
        pieces: queue.SimpleQueue[bytes | BaseException | None] = queue.SimpleQueue()
        stop = self._client.follow(handle._id, stream, handle._files[stream == "stderr"], offset, pieces.put)
        try:
            while (piece := pieces.get()) is not None:
                if isinstance(piece, BaseException):
                    if self._closed:
                        return  # by whoever reads this
                    raise piece
                yield piece
        finally:
            stop()


_STATE_AFTER = {"submit": "DEPEND", "alloc": "RUN", "start": "RUN", "finish": "CLEANUP", "clean": "INACTIVE"}


def _defaults(config: RunConfig, shell_options: Mapping[str, str]) -> Defaults:
    jobs = config.job_defaults
    return Defaults(
        queue=jobs.queue,
        bank=jobs.bank,
        cores_per_task=jobs.cores_per_task,
        gpus_per_task=jobs.gpus_per_task,
        duration=jobs.duration,
        urgency=jobs.urgency,
        env=jobs.env,
        shell_options=shell_options,
    )


def _join(thread: threading.Thread) -> None:
    if thread is not threading.current_thread():
        thread.join()


def _not_submitted(error: BaseException) -> JobResult:
    if not isinstance(error, AgentError):
        return JobResult.without_run(Outcome.UNKNOWN, "submit", str(error))
    if error.code == "closing":
        return _never_submitted(str(error))
    return JobResult.without_run(Outcome.REJECTED, "submit", str(error))


def _never_submitted(reason: str) -> JobResult:
    return JobResult.without_run(Outcome.CANCELLED, "cancel", f"never submitted: {reason}")


def _encode(item: Item, key: str) -> bytes:
    line = json.dumps({**item.message(), "key": key}, separators=(",", ":")).encode("ascii")
    size = len(line) + len(item.environment.encoded)
    if size > MAX_LINE - 1024:
        raise RequestError([f"the whole job has {size} bytes, more than one message holds ({MAX_LINE})"], item.name)
    return line


def _encodable(environ: Mapping[str, str]) -> dict[str, str]:
    """The part of an environment that a jobspec can hold: JSON has no bytes that are not text."""
    kept = {}
    for name, value in environ.items():
        with contextlib.suppress(UnicodeEncodeError):
            (name + value).encode("utf-8")
            kept[name] = value
    return kept


def _placeholder(session: Session, job_id: str) -> JobHandle:
    handle = JobHandle(session, "", "")
    handle._id = job_id
    return handle


def _place_after(kept: deque[JobEvent], after: Cursor | None) -> Cursor | None:
    """Check that everything after a cursor is kept. Raises ExecutorsError."""
    if after is not None and kept and not _reaches_back_to(kept, after):
        raise ExecutorsError(f"events after {after} are no longer kept; begin with None and read the jobs' results")
    return after


def _following(kept: deque[JobEvent], place: Cursor | None) -> list[JobEvent]:
    """Events after a place, oldest first. Raises ExecutorsError when some of them are gone already."""
    found: list[JobEvent] = []
    for event in reversed(kept):
        if event.cursor == place:
            break
        found.append(event)
    else:
        _place_after(kept, place)
    found.reverse()
    return found


def _reaches_back_to(kept: deque[JobEvent], after: Cursor) -> bool:
    first = kept[0].cursor
    if first.epoch == after.epoch:
        return first.sequence <= after.sequence + 1
    return any(event.cursor.epoch == after.epoch for event in kept)
