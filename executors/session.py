"""The facade that adapters use: opens a run's instance, submits, hands out handles and events.

Threads: the client's reader queues what arrives; one *dispatcher* applies it in order and runs callbacks; one
*submitter* sends batches. All public methods may be called from any thread, except inside a callback those that
wait (``result``, ``close`` ...): they raise RuntimeError there, since nothing that they wait for would go on.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import queue
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, Self

from executors import forks
from executors.agent.wire import MAX_LINE, MAX_NOTE, Cursor, JobEvent, is_text
from executors.client import Client, Following, Handler, Hello
from executors.config import RunConfig
from executors.errors import AgentError, ForkedError, ProvisionError, RequestError, SessionClosedError
from executors.handle import JobHandle
from executors.history import History
from executors.job import Defaults, Environments, Item, JobRequest, make_item
from executors.lifecycle import Lifecycle
from executors.names import RunId, run_name
from executors.outbox import Outbox
from executors.results import JobResult, Outcome

log = logging.getLogger(__name__)

MAX_IN_FLIGHT = 2000


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
    A session belongs to the process that has opened it: in a forked child its methods raise SessionClosedError.
    Raises ProvisionError, TransportError, ConfigError or RunNameError; nothing is left behind then.
    """
    environment = dict(os.environ if environ is None else environ)
    lifecycle = Lifecycle(run_name(run), config, environment)
    return Session(lifecycle, lifecycle.acquire, config, environment, announce, max_in_flight, auto_acknowledge, True)


def join_session(
    name: str,
    config: RunConfig,
    *,
    environ: Mapping[str, str] | None = None,
    announce: Callable[[str], None] = log.info,
) -> Session:
    """Connect to an instance that is there, by its name (`Session.run_name`), and never make one.

    The end of the session (`Session.close`, or of a ``with`` block) leaves the instance as it is; `Session.release`
    ends it. Raises ProvisionError when it is not there or has just ended, and what `open_session` does.
    """
    environment = dict(os.environ if environ is None else environ)
    lifecycle = Lifecycle(name, config, environment)
    return Session(lifecycle, lifecycle.join, config, environment, announce, MAX_IN_FLIGHT, False, False)


def end_run(name: str, config: RunConfig, *, environ: Mapping[str, str] | None = None) -> None:
    """End the instance of this name (`Session.run_name`), whoever uses it, and wait until it is gone. Nothing to end is
    no error; what could not be ended is logged, and ends by its own time-outs.
    """
    environment = dict(os.environ if environ is None else environ)
    Lifecycle(name, config, environment).end()


class Session:
    """A run's instance in use.

    A context manager: at its end the instance that was opened is released, one that was joined is left as it is.
    """

    def __init__(
        self,
        lifecycle: Lifecycle,
        acquire: Callable[[Handler, Callable[[str], None]], Client],
        config: RunConfig,
        environ: Mapping[str, str],
        announce: Callable[[str], None],
        max_in_flight: int,
        auto_acknowledge: bool,
        opened: bool,
    ) -> None:
        """``opened``: rather than joined."""
        self._lifecycle = lifecycle
        self._auto_acknowledge = auto_acknowledge
        self._opened = opened
        self._pid = os.getpid()
        inherited = _passable(environ) if lifecycle.inherits_environment else None
        self._environments = Environments(inherited)
        self._making = threading.Lock()
        self._acking = threading.Lock()
        self._base_cwd = _working_directory(opened) if lifecycle.inherits_environment else "/"
        # Brokers in several pods on one node would each bind their tasks to the node's first cores.
        self._defaults = _defaults(config, {} if lifecycle.inherits_environment else {"cpu-affinity": "off"})
        self._changed = threading.Condition()
        self._jobs: dict[str, JobHandle] = {}
        self._early: dict[str, list[JobEvent]] = {}
        self._outbox = Outbox(max_in_flight)
        self._unanswered = 0
        self._to_ack: list[str] = []
        self._lost: str | None = None
        self._closed = False
        #: Whether `close` has done all that it can.
        self._done = False
        self._history = History(self._changed)
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._client: Client = acquire(self, announce)
        assert self._client.hello is not None  # a connected client has been greeted
        self.hello: Hello = self._client.hello
        if self.hello.engine == "flux" and (without := _unnameable(inherited or {})):
            announce(
                f"environment: {', '.join(map(repr, without))}: not UTF-8, nor a name that a shell "
                "can set, so jobs under Flux do not have it"
            )
        self._threads = [
            threading.Thread(target=self._dispatch, name="session-dispatcher", daemon=True),
            threading.Thread(target=self._submit_forever, name="session-submitter", daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        forks.bind(self, "_client", "_changed", "_making", "_acking", "_inbox", "_history", "_outbox")

    def __enter__(self) -> Self:
        atexit.register(self._at_exit)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # What ends a forked child (SystemExit as a rule) is to end it, and to reach nothing of its parent's.
        if kind is None or self._pid == os.getpid():
            self.close()
            atexit.unregister(self._at_exit)

    def _at_exit(self) -> None:
        """A Ctrl-C may come when `__exit__` or `close` has only just begun, so that nothing in them sees it."""
        if self._opened and not self._done and self._pid == os.getpid():
            self._closed = True
            self._lifecycle.release_soon(self._client)
            self._client.close()

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
                for one in ready:
                    self._outbox.put(*one)
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
            self._client.tell("cancel", ids, note=note[:MAX_NOTE])

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
        self,
        job_id: str,
        stream: str,
        offset: int,
        sink: Callable[[bytes | BaseException | None], None],
        *,
        paced: bool = False,
    ) -> Following:
        """Pass a job's output to ``sink`` as it is written, without a thread of its own; None is its end, an error that
        there is no more to be had. ``sink`` is called on the session's reader and must be quick.

        Gives what stops it when called. A ``paced`` reader tells it what it has `Following.taken`, and gets at most
        4 MiB ahead of that. For a job that writes to no file; `JobHandle.output` waits instead.
        """
        return self._client.follow(job_id, stream, None, offset, sink, paced=paced)

    def mark(self, job_id: str, place: str) -> None:
        """Keep a reader's place in the output of a job with the job; `find` shows it. Does not wait."""
        self._client.request_later("mark", job=job_id, place=place)

    def cancel_and_wait(self, job_ids: Sequence[str], timeout: float) -> None:
        """Cancel jobs known by id only, wait until they are INACTIVE, and end their keys. Raises TimeoutError."""
        self._must_be_free("cancel_and_wait()")
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

    def unwritable(self, directories: Sequence[str]) -> list[str]:
        """What is wrong with each directory that is on the instance's lead node and that jobs cannot write to."""
        found = self._client.request("stat", paths=list(directories))
        uid, gid = found["user"]
        return [
            f"{directory} belongs to user {owner[0]}, group {owner[1]} (mode {owner[2]:o}), and jobs, which are user "
            f"{uid}, group {gid} there, cannot write to it"
            for directory, writable, owner in zip(directories, found["writable"], found["owners"], strict=True)
            if writable is False and owner is not None
        ]

    def request(self, op: str, **fields: Any) -> dict[str, Any]:
        """Any other request of the agent (put, get, drain, info ...). Raises AgentError."""
        return self._client.request(op, **fields)

    def events(self, after: Cursor | None = None) -> Iterator[JobEvent]:
        """Events of all jobs of the run after a cursor (None: all that the session has seen), until it is closed.

        Raises ExecutorsError when the cursor is older than what is kept, RuntimeError in a callback.
        """
        self._must_be_free("events()")
        return self._history.after(after, lambda: self._closed or self._lost is not None)

    def wait_for_brokers(self) -> None:
        """Wait until all brokers of a MiniCluster are there, or it was announced which are not and why: 20 s or so."""
        self._lifecycle.wait_for_brokers()

    def release(self) -> None:
        """End the session and its instance, unless others use that: jobs that are still active end as CANCELLED.

        Returns when the instance is gone. Interrupted (Ctrl-C), it does not wait, and the instance ends all the same.
        """
        self.close(release=True)

    def leave(self) -> None:
        """End the session only: the instance and its jobs go on until its own time-outs."""
        self.close(release=False)

    def close(self, *, release: bool | None = None) -> None:
        """`release` the instance if this session has opened it, `leave` it if it was joined; or as ``release`` says.

        Raises RuntimeError in a callback.
        """
        self._must_be_free("close()")
        if release is None:
            release = self._opened
        try:
            with self._changed:
                if self._closed:
                    return
                self._closed = True
                self._changed.notify_all()
            self._end(release)
            self._done = True
        except BaseException as err:
            # A Ctrl-C above all, which may come before anything else; but a forked child has nothing to release.
            if release and not isinstance(err, ForkedError):
                self._closed = True
                self._lifecycle.release_soon(self._client)
                self._client.close()
            self._done = True
            raise

    def _end(self, release: bool) -> None:
        dispatcher, submitter = self._threads
        try:
            self._flush_acks()
            self._cancel_unsent("the session was closed")
            _join(submitter)
            if release:
                self._lifecycle.release(self._client)
            else:
                self._lifecycle.detach()
            self._client.close()
        finally:
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
            try:
                work()
            except BaseException as err:  # a bug of ours; who waits for one of the other jobs must not wait for ever
                log.exception("the session cannot go on")
                reason = f"the session cannot go on: {err!r}"
                self._inbox.put(lambda reason=reason: self._end_all(reason))  # type: ignore[misc]

    def _apply(self, events: list[JobEvent]) -> None:
        for event in events:
            handle = self._jobs.get(event.id)
            if handle is not None:
                self._apply_one(handle, event)
            elif self._unanswered:
                # The answer to its submission may still be on its way; it tells whose job this is.
                self._early.setdefault(event.id, []).append(event)
        self._history.add(events)

    def _apply_one(self, handle: JobHandle, event: JobEvent) -> None:
        state = _STATE_AFTER.get(event.name)
        if state is not None:
            handle.state = state
        if event.name == "clean":
            result = JobResult.of(event.context["result"])
            if result.outcome is Outcome.LOST:
                self._lifecycle.job_was_lost()
            self._finish(handle, result)

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
            self._client.tell("cancel", [job_id], note=cancelled[:MAX_NOTE])

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
            unsent = self._outbox.clear()
            self._changed.notify_all()
        for handle in unsent:
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
            self._outbox.ended(handle)
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
        except BaseException:  # a caller's callback, SystemExit included, must not end the thread that serves all jobs
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
                self._client.tell("ack", ids)

    # -- submitter

    def _submit_forever(self) -> None:
        while True:
            with self._changed:
                while not (batch := self._outbox.take()).handles:
                    if self._closed or self._lost is not None:
                        return
                    self._changed.wait()
                self._unanswered += 1
            self._flush_acks()
            reply = self._client.submit(batch.items, [environment.encoded for environment in batch.environments])
            reply.add_done_callback(partial(self._answered, batch.handles))

    def _answered(self, batch: list[JobHandle], reply: Future[dict[str, Any]]) -> None:
        self._inbox.put(lambda: self._submitted(batch, reply))

    def _cancel_unsent(self, note: str) -> None:
        with self._changed:
            unsent = self._outbox.clear()
        for handle in unsent:
            self._finish_later(handle, JobResult.without_run(Outcome.CANCELLED, "cancel", note))

    # -- for handles

    def _must_be_free(self, what: str) -> None:
        """Raises RuntimeError on the threads that what waits would wait for."""
        if threading.current_thread() is self._threads[0] or self._client.on_reader:
            raise RuntimeError(f"{what} waits, and inside a callback nothing goes on; call it from another thread")

    def _wait_result(self, handle: JobHandle, timeout: float | None) -> JobResult:
        if handle._result is None:
            self._must_be_free("result()")
        with self._changed:
            if not self._changed.wait_for(lambda: handle._result is not None, timeout):
                raise TimeoutError(f"{handle!r} has not ended within {timeout:g} s")
            assert handle._result is not None
            return handle._result

    def _wait_submitted(self, handle: JobHandle, timeout: float | None) -> None:
        if handle._id is None and handle._result is None:
            self._must_be_free("wait_submitted()")
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
        if handle._result is None or self._client.on_reader:
            self._must_be_free("output() of a job that has not ended")
        self._wait_submitted(handle, None)
        if handle._id is None:
            return
        pieces: queue.SimpleQueue[bytes | BaseException | None] = queue.SimpleQueue()
        path = handle._files[stream == "stderr"]
        following = self._client.follow(handle._id, stream, path, offset, pieces.put, paced=True)
        try:
            while (piece := pieces.get()) is not None:
                if isinstance(piece, BaseException):
                    if self._closed:
                        return  # by whoever reads this
                    raise piece
                yield piece
                following.taken(len(piece))
        finally:
            following()


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


def _working_directory(needed: bool) -> str:
    """This process's own. Raises ProvisionError where it is gone and ``needed``; else jobs have to name theirs."""
    try:
        return os.getcwd()
    except OSError as err:
        if not needed:
            return ""
        raise ProvisionError(
            f"the working directory of this process cannot be told ({err.strerror}), as after its removal; jobs begin "
            "there unless told otherwise, so change to one that is there"
        ) from err


def _passable(environ: Mapping[str, str]) -> dict[str, str]:
    """The part of an environment that a process can have: names and values that were bytes, or can be."""
    kept = {}
    for name, value in environ.items():
        with contextlib.suppress(UnicodeEncodeError):
            os.fsencode(name + value)
            kept[name] = value
    return kept


def _unnameable(environ: Mapping[str, str]) -> list[str]:
    """Variables that jobs under Flux cannot have: not UTF-8, so not in a jobspec; nor to be set by a shell."""
    return [
        name
        for name, value in environ.items()
        if not is_text(name + value) and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name)
    ]


def _placeholder(session: Session, job_id: str) -> JobHandle:
    handle = JobHandle(session, "", "")
    handle._id = job_id
    return handle
