"""Watches whether all brokers of a new connection's instance are there, and says once which are not, and why; and says
why a broker was lost that took jobs along.

An instance is up with its lead broker: jobs run on what there is. A broker that never reaches the lead would leave a
job that needs it waiting without a word.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from executors.agent.wire import NodeSummary
from executors.client import Client
from executors.errors import ExecutorsError
from executors.provision.base import Explaining

log = logging.getLogger(__name__)

#: Seconds between looks. Nothing tells a client of brokers that come; a look costs one answer of the agent, and as a
#: rule the first or the second is the last.
_LOOKS = (0.3, 0.7, 1.0, 2.0, 4.0, 12.0)
#: The same after a loss, of which Kubernetes may hear a moment later than Flux.
_LATER = (0.5, 1.0, 2.0, 4.0)


class BrokerWatch:
    """A thread of its own, which ends by itself after some 20 s at most; `stop` ends it sooner."""

    def __init__(self, provisioner: Explaining, client: Client, report_progress: Callable[[str], None]) -> None:
        self._provisioner = provisioner
        self._client = client
        self._announce = report_progress
        self._stopped = threading.Event()
        self._losses: threading.Thread | None = None
        #: Uids of lost pods.
        self._told: set[str] = set()
        self._thread = threading.Thread(target=self._watch, name="brokers-watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wait(self) -> None:
        """Until all brokers are there, or it has been said which are not."""
        self._thread.join()

    def stop(self) -> None:
        """What is known of a loss by then is still said."""
        if self._losses is not None:
            self._losses.join()
        self._stopped.set()

    def job_was_lost(self) -> None:
        """Say soon why, if a broker's pod tells. Does not wait."""
        if self._losses is None or not self._losses.is_alive():
            self._losses = threading.Thread(target=self._tell_losses, name="brokers-losses", daemon=True)
            self._losses.start()

    def _tell_losses(self) -> None:
        for seconds in _LATER:
            time.sleep(seconds)  # nothing to be woken for: `stop` waits for this
            try:
                found = self._provisioner.losses()
            except ExecutorsError as err:  # the jobs' own results say that they were lost
                log.debug("cannot tell why brokers were lost: %s", err)
                return
            news = [line for pod, line in found.items() if pod not in self._told]
            self._told |= found.keys()
            if news:
                self._announce("warning: " + "; ".join(news))
                return

    def _watch(self) -> None:
        begun = time.monotonic()
        try:
            for seconds in _LOOKS:
                if self._stopped.wait(seconds) or self._is_whole():
                    return
            lines = self._provisioner.unconnected(self._connected())
        except ExecutorsError as err:  # the user of the session hears of it
            log.debug("cannot tell which brokers are there: %s", err)
            return
        if lines and not self._stopped.is_set():
            self._announce(f"warning: after {time.monotonic() - begun:.0f} s " + "\n".join(lines))

    def _connected(self) -> set[int]:
        return connected(self._client.request("resources")["nodes"])

    def _is_whole(self) -> bool:
        nodes = self._client.request("resources")["nodes"]
        there = connected(nodes)
        # A MiniCluster that may grow has ranks for pods that nobody wants yet.
        return len(there) == len(nodes) or not self._provisioner.lacks(there)


def connected(nodes: list[NodeSummary]) -> set[int]:
    """The ranks of an answer's nodes whose brokers are there."""
    return {node["rank"] for node in nodes if node["up"]}
