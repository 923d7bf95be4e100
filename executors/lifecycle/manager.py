"""Get-or-create and release of a run's instance."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import cast

from executors import flux_version
from executors.agent.wire import AgentInfo, JobEvent, JobSummary, NodeSummary, Resources
from executors.client import Client, Handler, Hello
from executors.config import RunConfig
from executors.errors import (
    AgentError,
    AgentSilentError,
    ConfigError,
    EndingError,
    ProtocolError,
    ProvisionError,
    SessionClosedError,
    TransportError,
)
from executors.lifecycle.brokers import BrokerWatch, connected
from executors.lifecycle.resizing import resize
from executors.provision import Provisioner, Resizable, make_provisioner
from executors.provision.base import Explaining

log = logging.getLogger(__name__)

#: Seconds to wait for the end of an instance that takes no clients any more.
_ENDING_LIMIT = 60.0
#: Seconds for an agent that was there already: its supervisor may be starting it again.
_ANSWER_LIMIT = 15.0
#: Seconds for an agent's answer, where the user is not to be kept waiting.
_TOLD_LIMIT = 3.0
#: Seconds after which Kubernetes has told of a container's end, as a rule.
_TOLD_LATE = 3.0


class Lifecycle:
    """The instance of one run, as one client sees it."""

    def __init__(self, run_name: str, config: RunConfig, environ: Mapping[str, str]) -> None:
        self.run_name = run_name
        self._provisioner: Provisioner = make_provisioner(run_name, config, environ)
        # On this machine an agent that can be reached has started: one that does not answer is stopped, or hangs.
        self._start_limit = 0.0 if self.inherits_environment else config.run.start_timeout
        self._config = config
        self._brokers: BrokerWatch | None = None

    @property
    def inherits_environment(self) -> bool:
        return self._provisioner.inherits_environment()

    def acquire(self, handler: Handler, report_progress: Callable[[str], None]) -> Client:
        """A connected client of the run's instance. Raises ProvisionError or TransportError; then nothing is left."""
        described = False
        deadline = time.monotonic() + _ENDING_LIMIT
        try:
            while True:
                self._provisioner.ensure()
                if not described:
                    report_progress(self._provisioner.describe())
                    described = True
                try:
                    client, hello = self._reach(handler, report_progress)
                except EndingError:  # its last client has just left: wait until it is gone, and begin again
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.05)
                except ProtocolError:
                    raise
                except TransportError as err:
                    reason = self._why_gone()
                    # One that was there before us may have ended just now; our own should not have.
                    if reason is None or not self._provisioner.adopted() or time.monotonic() > deadline:
                        if reason is not None and not self.inherits_environment and not self._provisioner.adopted():
                            # It ended between being up and being reached: the wait tells in full why it cannot start.
                            self._provisioner.wait_ready(report_progress)
                        why = reason or (self.in_use() if isinstance(err, AgentSilentError) else None)
                        raise TransportError(f"{err}; {why}" if why else str(err)) from err
                else:
                    report_progress(_describe(hello))
                    self._check(hello, report_progress)
                    self._watch_brokers(client, report_progress)
                    return client
        except BaseException:
            self._provisioner.abandon()
            raise

    def _reach(self, handler: Handler, report_progress: Callable[[str], None]) -> tuple[Client, Hello]:
        while True:
            client = Client(
                self._provisioner.wait_ready(report_progress),
                handler,
                gone=self._provisioner.gone,
                patience=self._provisioner.patience(),
                start_limit=self._start_limit,
            )
            try:
                return client, client.connect()
            except TransportError as err:
                if not self._provisioner.endpoint_is_tentative():
                    raise
                log.debug("tried too early: %s", err)

    def _why_gone(self) -> str | None:
        """As the provisioner's ``gone``, which on Kubernetes may know of a container's end a moment late."""
        deadline = time.monotonic() + (0.0 if self._provisioner.inherits_environment() else _TOLD_LATE)
        while (reason := self._provisioner.gone()) is None and time.monotonic() < deadline:
            time.sleep(0.2)
        return reason

    def _check(self, hello: Hello, report_progress: Callable[[str], None]) -> None:
        """Say so where the image that was named brings a Flux that is too old for MiniClusters, though it came up."""
        run, spec = self._config.run, self._config.minicluster
        if self._provisioner.inherits_environment() or spec is None:
            return
        problem = flux_version.problem(hello.engine_version, spec, run.provisioner or "")
        if problem is not None:
            report_progress(f"warning: {problem}")

    def join(self, handler: Handler, report_progress: Callable[[str], None]) -> Client:
        """A connected client of an instance that is there. Raises ProvisionError or TransportError."""
        client = self._client(handler, report_progress)
        try:
            report_progress(_describe(client.connect()))
        except BaseException:
            self._provisioner.detach()
            raise
        self._watch_brokers(client, report_progress)
        return client

    def _watch_brokers(self, client: Client, report_progress: Callable[[str], None]) -> None:
        if isinstance(self._provisioner, Explaining):
            self._brokers = BrokerWatch(self._provisioner, client, report_progress)
            self._brokers.start()

    def job_was_lost(self) -> None:
        """After `acquire` or `join`: have it reported why, where a broker's pod tells. Does not wait."""
        if self._brokers is not None:
            self._brokers.job_was_lost()

    def wait_for_brokers(self) -> None:
        """After `acquire` or `join`: until all brokers are there, or it was reported which are not."""
        if self._brokers is not None:
            self._brokers.wait()

    def unconnected(self, nodes: list[NodeSummary]) -> list[str]:
        """After `observe`: what keeps brokers away, by the nodes that the agent has answered. Raises ProvisionError."""
        return self._provisioner.unconnected(connected(nodes)) if isinstance(self._provisioner, Explaining) else []

    def observe(self) -> AgentInfo:
        """What the agent of an instance that is there says of itself, without keeping the instance alive.

        Raises ProvisionError or TransportError when it does not answer.
        """
        with self._observing() as client:
            return cast(AgentInfo, client.request("info"))

    def observe_nodes(self) -> tuple[AgentInfo, list[NodeSummary]]:
        """The same, and the instance's nodes."""
        with self._observing() as client:
            resources = cast(Resources, client.request("resources"))
            return cast(AgentInfo, client.request("info")), resources["nodes"]

    @contextlib.contextmanager
    def _observing(self) -> Iterator[Client]:
        client = self._client(_IgnoreEvents(), log.debug, observer=True)
        try:
            client.connect()
            yield client
        finally:
            client.close()
            self._provisioner.detach()

    def end(self) -> None:
        """End an instance that is there, no matter who uses it, and wait until it is gone; by force where need be."""
        self._end(only_if_unused=False, by_force=True)

    def end_unused(self, *, by_force: bool) -> bool:
        """The same, unless its agent answers and has a client or a job. Whether it was ended.

        Without ``by_force`` one whose agent does not answer is left alone: raises ProvisionError or TransportError.
        """
        return self._end(only_if_unused=True, by_force=by_force)

    def _end(self, *, only_if_unused: bool, by_force: bool) -> bool:
        try:
            # What does not run yet has nothing to end in good order.
            client = self._client(_IgnoreEvents(), log.debug, observer=True, patience=1.0)
        except (ProvisionError, EndingError) as err:
            if not by_force:
                raise
            log.debug("ended without its agent: %s", err)
        else:
            try:
                client.connect()
                # The agent decides: between our look and its end somebody may come.
                if not client.request("shutdown", only_if_unused=only_if_unused, reason="asked to end")["stopping"]:
                    self._provisioner.detach()
                    return False
            except (AgentError, SessionClosedError, TransportError) as err:
                if not by_force:
                    self._provisioner.detach()
                    raise
                log.debug("the agent of %s does not answer: %s", self.run_name, err)
            finally:
                client.close()
        self._provisioner.delete()
        return True

    def in_use(self) -> str | None:
        """What of an instance whose agent does not answer is seen in use from outside; None: nothing."""
        return self._provisioner.in_use()

    def resize(self, size: int, grace: float, report_progress: Callable[[str], None]) -> None:
        """Change the number of brokers of an instance that is there. Shrinking drains the highest ranks first and waits
        for their jobs, ``grace`` seconds at most; what then still runs there ends as LOST.

        Raises ConfigError for a size that is not possible, ProvisionError or TransportError.
        """
        if not isinstance(self._provisioner, Resizable):
            raise ConfigError(["size: only MiniClusters on Kubernetes can be resized"])
        client = self._client(_IgnoreEvents(), report_progress, observer=True)
        try:
            client.connect()
            resize(self._provisioner, client, size, grace, report_progress)
        finally:
            client.close()
            self._provisioner.detach()

    def _client(
        self,
        handler: Handler,
        report_progress: Callable[[str], None],
        *,
        observer: bool = False,
        patience: float = _ANSWER_LIMIT,
    ) -> Client:
        try:
            self._provisioner.find(patience)
            endpoint = self._provisioner.wait_ready(report_progress)
        except BaseException:
            self._provisioner.detach()
            raise
        waiting = self._provisioner.patience() if not observer else _ANSWER_LIMIT
        return Client(endpoint, handler, gone=self._provisioner.gone, patience=waiting, observer=observer)

    def _stop_watching(self) -> None:
        if self._brokers is not None:
            self._brokers.stop()

    def release(self, client: Client) -> bool:
        """End the instance unless another client uses it; wait until it is gone. Whether it was ended.

        Jobs that are still active end as CANCELLED, and their events arrive before this returns.
        """
        self._stop_watching()
        try:
            stopping = client.request("shutdown", only_if_last=True, reason="released by its client")["stopping"]
        except (AgentError, SessionClosedError, TransportError) as err:
            log.warning("the instance of %s cannot be told to end: %s", self.run_name, err)
            # Without its word it may be somebody else's by now, and ends by its time-outs when it is nobody's.
            stopping = client.ended or self._provisioner.gone() is not None
        if stopping:
            self._provisioner.delete()
            return True
        self._provisioner.detach()
        return False

    def release_soon(self, client: Client) -> None:
        """Have the instance end unless another client uses it, without waiting for its end."""
        try:
            # What is sent just before a stream is cut may not be read any more, so the answer is waited for.
            client.request("shutdown", timeout=_TOLD_LIMIT, only_if_last=True, reason="released by its client")
        except (AgentError, SessionClosedError, TransportError) as err:
            if not client.ended:  # else it has been told before, and is about it
                log.warning(
                    "the instance of %s cannot be told to end, and ends by its time-outs: %s", self.run_name, err
                )
        self._provisioner.detach()

    def detach(self) -> None:
        """Leave the instance to itself."""
        self._stop_watching()
        self._provisioner.detach()


class _IgnoreEvents:
    """A handler for clients that only send requests."""

    def on_events(self, events: list[JobEvent]) -> None:
        pass

    def on_snapshot(self, jobs: list[JobSummary]) -> None:
        pass

    def on_lost(self, reason: str) -> None:
        pass


def _describe(hello: Hello) -> str:
    engine = f"Flux {hello.engine_version}" if hello.engine == "flux" else "the embedded engine"
    return f"run {hello.run} on {engine}, instance {hello.instance}"
