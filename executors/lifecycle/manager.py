"""Get-or-create and release of a run's instance."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping

from executors.client import Client, Handler, Hello
from executors.config import RunConfig
from executors.errors import AgentError, EndingError, SessionClosedError, TransportError
from executors.provision import Provisioner, make_provisioner

log = logging.getLogger(__name__)

#: Seconds to wait for the end of an instance that takes no clients any more.
_ENDING_LIMIT = 60.0


class Lifecycle:
    """The instance of one run, as one client sees it."""

    def __init__(self, run_name: str, config: RunConfig, environ: Mapping[str, str]) -> None:
        self.run_name = run_name
        self._provisioner: Provisioner = make_provisioner(run_name, config, environ)

    @property
    def inherits_environment(self) -> bool:
        return self._provisioner.inherits_environment()

    def acquire(self, handler: Handler, announce: Callable[[str], None]) -> Client:
        """A connected client of the run's instance. Raises ProvisionError or TransportError; then nothing is left."""
        announced = False
        deadline = time.monotonic() + _ENDING_LIMIT
        try:
            while True:
                self._provisioner.ensure()
                if not announced:
                    announce(self._provisioner.describe())
                    announced = True
                client = Client(self._provisioner.wait_ready(announce), handler, gone=self._provisioner.gone)
                try:
                    hello = client.connect()
                except EndingError:  # its last client has just left: wait until it is gone, and begin anew
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.05)
                else:
                    break
        except BaseException:
            self._provisioner.abandon()
            raise
        announce(_describe(hello))
        return client

    def release(self, client: Client) -> bool:
        """End the instance unless another client uses it; wait until it is gone. Whether it was ended.

        Jobs that are still active end as CANCELLED, and their events arrive before this returns.
        """
        try:
            stopping = client.request("shutdown", only_if_last=True, reason="released by its client")["stopping"]
        except (AgentError, SessionClosedError, TransportError) as err:
            log.debug("the agent was gone before its release: %s", err)
            # Without its word it may be somebody else's by now, and ends by its time-outs when it is nobody's.
            stopping = client.ended or self._provisioner.gone() is not None
        if stopping:
            self._provisioner.delete()
            return True
        self._provisioner.detach()
        return False

    def detach(self) -> None:
        """Leave the instance to itself."""
        self._provisioner.detach()


def _describe(hello: Hello) -> str:
    engine = f"Flux {hello.engine_version}" if hello.engine == "flux" else "the embedded engine"
    return f"run {hello.run} on {engine}, instance {hello.instance}"
