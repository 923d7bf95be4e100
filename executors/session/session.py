"""The facade that adapters use: a run's instance in use.

All public methods may be called from any thread, except inside a callback those that wait (``result``, ``close`` ...):
they raise RuntimeError there, since nothing that they wait for would go on.
"""

from __future__ import annotations

import atexit
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Self

from executors import forks
from executors.agent.wire import Cursor, JobEvent, JobSummary
from executors.client import Client, Handler, OutputSubscription, Sink
from executors.config import RunConfig
from executors.errors import ForkedError, RequestError, SessionClosedError
from executors.job import JobRequest
from executors.lifecycle import Lifecycle
from executors.results import JobInfo, JobResult, NodeInfo, Outcome, Reason
from executors.session.control import JobControl
from executors.session.handle import JobHandle, jobs_of
from executors.session.job import NO_FILES, Job, OutputFiles
from executors.session.preparation import Preparation, not_for_flux, passable, working_directory

log = logging.getLogger(__name__)

MAX_IN_FLIGHT = 2000


class Session:
    """A run's instance in use.

    A context manager: at its end the instance that was opened is released, one that was joined is left as it is.

    Long, because it is the whole of what adapters may use; each method is a line or two over `JobControl`.
    """

    def __init__(
        self,
        lifecycle: Lifecycle,
        connect: Callable[[Handler, Callable[[str], None]], Client],
        config: RunConfig,
        environ: Mapping[str, str],
        report_progress: Callable[[str], None],
        *,
        max_in_flight: int,
        auto_acknowledge: bool,
        releases: bool,
    ) -> None:
        """``releases``: what `close` and the end of a ``with`` block do, rather than leave."""
        self._lifecycle = lifecycle
        self._releases = releases
        self._pid = os.getpid()
        here = lifecycle.inherits_environment
        inherited = passable(environ) if here else None
        self._preparation = Preparation(config, inherited, working_directory(releases) if here else "/")
        #: Whether `close` has done all that it can.
        self._done = False
        self._control = JobControl(
            lambda handler: connect(handler, report_progress), max_in_flight, auto_acknowledge, lifecycle.job_was_lost
        )
        self.hello = self._control.hello
        if self.hello.engine == "flux" and (without := not_for_flux(inherited or {})):
            report_progress(
                f"environment: jobs under Flux do not get {', '.join(map(repr, without))}: its value is not UTF-8, and "
                "a shell cannot set its name"
            )
        self._control.start()
        forks.bind(self, "_preparation")

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
        if self._releases and not self._done and self._pid == os.getpid():
            self._release_soon()

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
        return self._control.lost

    def external_id(self, handle: JobHandle) -> str:
        """``instance/jobid``: tells a job of this instance from one with the same id in another."""
        return f"{self.hello.instance}/{handle.id}"

    # -- jobs

    def submit(self, requests: Sequence[JobRequest]) -> list[JobHandle]:
        """One handle per request, in order. A request that is wrong yields a handle that is REJECTED, with the reason.

        Does not wait: `JobHandle.id` comes later. Raises SessionClosedError, or TypeError for other than JobRequests.
        """
        self._must_be_open()
        if isinstance(requests, JobRequest) or not all(isinstance(request, JobRequest) for request in requests):
            raise TypeError("requests: give a list of JobRequest objects")
        jobs, prepared, refused = [], [], []
        for request in requests:
            key = request.key if isinstance(request.key, str) and request.key else os.urandom(16).hex()
            job = Job(key, request.name, _output_files(request))
            jobs.append(job)
            try:
                prepared.append((job, self._preparation.prepare(request, key)))
            except (RequestError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as err:
                # The others of the list are to have their handles, whatever one of them holds.
                refused.append((job, JobResult.without_run(Outcome.REJECTED, Reason.BAD_REQUEST, str(err))))
        self._control.submit(prepared, refused)
        return [JobHandle(self._control, job) for job in jobs]

    def submit_one(self, request: JobRequest) -> JobHandle:
        """`submit` of a single request."""
        [handle] = self.submit([request])
        return handle

    def attach(self, job_ids: Sequence[str]) -> list[JobHandle]:
        """Handles of jobs that are known by id, in order. Does not wait; one that is not there ends as UNKNOWN.

        Such a handle has no key here, and its output is that of a job that writes to no file.
        """
        return [JobHandle(self._control, job) for job in self._control.attach(list(job_ids))]

    def cancel(self, handles: Iterable[JobHandle], note: str = "cancelled") -> None:
        """Cancel many jobs with one message. Jobs that still wait here end at once."""
        self._control.cancel_jobs(jobs_of(handles), note)

    def acknowledge(self, handles: Iterable[JobHandle]) -> None:
        """End the keys of ended jobs, in batches behind the scenes."""
        self._control.acknowledge_jobs(jobs_of(handles))

    def events(self, after: Cursor | None = None) -> Iterator[JobEvent]:
        """Events of all jobs of the run after a cursor (None: all that the session has seen), until it is closed.

        Raises ExecutorsError when the cursor is older than what is kept, RuntimeError in a callback.
        """
        self._control.must_be_free("events()")
        return self._control.events(after)

    # -- jobs by id, no matter who has submitted them

    def jobs(
        self, *, ids: Sequence[str] | None = None, keys: Sequence[str] | None = None, unacknowledged: bool = False
    ) -> list[JobInfo]:
        """What the agent knows of jobs: those of these ids and keys, or all of the run.

        Those that it does not know are left out, and with ``unacknowledged`` those whose result was acknowledged.
        Raises AgentError, TransportError or SessionClosedError.
        """
        return _infos(self._client.request("list", **_selection(ids, keys))["jobs"], unacknowledged)

    def jobs_later(
        self, *, ids: Sequence[str] | None = None, keys: Sequence[str] | None = None, unacknowledged: bool = False
    ) -> Future[list[JobInfo]]:
        """`jobs` without waiting."""
        answer: Future[list[JobInfo]] = Future()

        def answered(reply: Future[dict[str, Any]]) -> None:
            error = reply.exception()
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(_infos(reply.result()["jobs"], unacknowledged))

        self._client.request_later("list", **_selection(ids, keys)).add_done_callback(answered)
        return answer

    def cancel_ids(self, job_ids: Sequence[str], note: str = "cancelled") -> dict[str, str]:
        """Ask for the cancellation of jobs. Returns why not, for those for which it was not possible.

        Raises TypeError for one id that is no list.
        """
        if isinstance(job_ids, str):
            raise TypeError(f"job_ids: {job_ids!r} is one string; give a list of ids")
        errors: dict[str, str] = self._client.request("cancel", ids=list(job_ids), note=note)["errors"]
        return errors

    def kill_ids(self, job_ids: Sequence[str], signal: int) -> dict[str, str]:
        """Send a signal to running jobs. Returns why not, for those for which it was not possible.

        Raises TypeError for one id that is no list.
        """
        if isinstance(job_ids, str):
            raise TypeError(f"job_ids: {job_ids!r} is one string; give a list of ids")
        errors: dict[str, str] = self._client.request("kill", ids=list(job_ids), signal=signal)["errors"]
        return errors

    def acknowledge_ids(self, job_ids: Sequence[str]) -> None:
        """End the keys of ended jobs, and wait until they have ended."""
        self._client.request("ack", ids=list(job_ids))

    def cancel_and_wait(self, job_ids: Sequence[str], timeout: float) -> None:
        """Cancel jobs, wait until they are INACTIVE, and end their keys. Raises TimeoutError after so many seconds."""
        self._control.must_be_free("cancel_and_wait()")
        ids = list(job_ids)
        handles = self.attach(ids)
        self.cancel_ids(ids, "replaced")
        self._control.look_up(ids)
        deadline = time.monotonic() + timeout
        for job in jobs_of(handles):
            self._control.wait_ended(job, deadline - time.monotonic())
        self.acknowledge_ids(ids)

    def save_bookmark(self, job_id: str, bookmark: str) -> None:
        """Keep with a job how far a reader of its output has come, in the reader's own words; `JobInfo.bookmark` shows
        it. Does not wait.
        """
        self._control.has_told = True
        self._client.request_later("mark", job=job_id, place=bookmark)

    # -- output

    def follow(self, job_id: str, stream: str, offset: int, sink: Sink, *, paced: bool = False) -> OutputSubscription:
        """Pass a job's output to ``sink`` as it is written, without a thread of its own, until what is returned is
        stopped. For a job that writes to no file; `JobHandle.output` waits instead.

        ``sink`` is passed bytes, then None at the end, or the error because of which the rest cannot be read. It is
        called on the session's reader and must be quick. Of a ``paced`` subscription the reader tells what it has
        `OutputSubscription.taken`, and gets at most 4 MiB ahead of that.
        """
        return self._client.follow(job_id, stream, None, offset, sink, paced=paced)

    def output_of(self, job_id: str, stream: str = "stdout", offset: int = 0) -> Iterator[bytes]:
        """Output of a job that is known by its id only, as `JobHandle.output`; of one that writes to no file."""
        return self._control.read_output(Job.known_by_id(job_id), stream, offset)

    # -- the instance

    def nodes(self) -> list[NodeInfo]:
        """Nodes of the instance, by rank."""
        return [NodeInfo.from_wire(node) for node in self._client.request("resources")["nodes"]]

    def path_kinds(self, paths: Sequence[str]) -> list[str | None]:
        """What each path is on the instance's lead node: "file", "directory", "other", or None: not there."""
        kinds: list[str | None] = self._client.request("stat", paths=list(paths))["kinds"]
        return kinds

    def unwritable(self, directories: Sequence[str]) -> list[str]:
        """What is wrong with each directory that is on the instance's lead node and that jobs cannot write to."""
        answer = self._client.request("stat", paths=list(directories))
        uid, gid = answer["user"]
        return [
            f"{directory} belongs to user {owner[0]}, group {owner[1]} (mode {owner[2]:o}), so the jobs, which run "
            f"as user {uid}, group {gid}, cannot write to it"
            for directory, writable, owner in zip(directories, answer["writable"], answer["owners"], strict=True)
            if writable is False and owner is not None
        ]

    def start_helper(self, name: str, argv: Sequence[str], env: Mapping[str, str | None]) -> Future[dict[str, Any]]:
        """Have a program run once on every node, outside of any job, until it or the instance ends; where one of this
        name runs, it is left alone. ``env``: as that of a JobRequest. Does not wait; what is returned has an exception
        (AgentError, TransportError) where it cannot be started.
        """
        environment = self._preparation.environment(env)
        return self._client.request_later("helper", name=name, command=list(argv), env=environment)

    def wait_for_brokers(self) -> None:
        """Wait until all brokers of a MiniCluster are there, or it was reported which are not and why: 20 s or so."""
        self._lifecycle.wait_for_brokers()

    # -- ends

    def release(self) -> None:
        """End the session and its instance, unless others use that: jobs that are still active end as CANCELLED.

        Returns when the instance is gone. Interrupted (Ctrl-C), it does not wait, and the instance ends all the same.
        Raises RuntimeError in a callback.
        """
        self._close(release=True)

    def leave(self) -> None:
        """End the session only: the instance and its jobs go on until its own time-outs. Raises RuntimeError in a
        callback.
        """
        self._close(release=False)

    def close(self) -> None:
        """`release` the instance if this session has opened it, `leave` it if it was joined."""
        self._close(release=self._releases)

    def _close(self, *, release: bool) -> None:
        self._control.must_be_free("close()")
        try:
            if not self._control.set_closed():
                return
            try:
                self._control.send_the_rest()
                if release:
                    self._lifecycle.release(self._client)
                else:
                    self._control.confirm_acknowledgements()
                    self._lifecycle.detach()
                self._client.close()
            finally:
                self._control.stop()
            self._control.join()
            self._done = True
        except BaseException as err:
            # A Ctrl-C above all, which may come before anything else; but a forked child has nothing to release.
            if release and not isinstance(err, ForkedError):
                self._release_soon()
            self._done = True
            raise

    def _release_soon(self) -> None:
        self._control.closed = True
        self._lifecycle.release_soon(self._client)
        self._client.close()

    @property
    def _client(self) -> Client:
        return self._control.client

    def _must_be_open(self) -> None:
        if self._control.closed:
            raise SessionClosedError("the session is closed")


def _output_files(request: JobRequest) -> OutputFiles:
    if request.stdout is None and request.stderr is None:
        return NO_FILES
    return request.stdout, request.stderr or request.stdout


def _selection(ids: Sequence[str] | None, keys: Sequence[str] | None) -> dict[str, Any]:
    return {name: list(values) for name, values in (("ids", ids), ("keys", keys)) if values is not None}


def _infos(jobs: Iterable[JobSummary], unacknowledged: bool) -> list[JobInfo]:
    infos = [JobInfo.from_wire(job) for job in jobs]
    return [info for info in infos if not info.acknowledged] if unacknowledged else infos
