"""The protocols of all provisioners, and the values that they return."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from executors.transport import Endpoint


class Provisioner(Protocol):
    """Creates or finds the instance of one run. Not thread-safe; one belongs to one session."""

    def describe(self) -> str:
        """Returns one line for people: which provisioner was taken, and why. Valid after `ensure`."""

    def ensure(self) -> None:
        """Create the instance, or find the one that this run has already. Raises ProvisionError."""

    def find(self, patience: float) -> None:
        """Take the instance that exists; from `wait_ready` on it has ``patience`` seconds to answer.

        Raises ProvisionError when there is none.
        """

    def wait_ready(self, report_progress: Callable[[str], None]) -> Endpoint:
        """Wait until its agent can be reached; ``report_progress`` is called with the reason when that takes long.

        Raises ProvisionError with the reason as soon as that is impossible; EndingError when an instance that existed
        before is about to end: then `ensure` makes a new one.
        """

    def endpoint_is_tentative(self) -> bool:
        """Returns whether `wait_ready` has returned before it was sure: called again, it waits until it is."""

    def inherits_environment(self) -> bool:
        """Returns whether jobs run on this machine, with the client's environment and working directory."""

    def patience(self) -> float:
        """Returns the seconds for which an agent that cannot be reached may still exist."""

    def adopted(self) -> bool:
        """Returns whether the instance existed before. Valid after `ensure`."""

    def gone(self) -> str | None:
        """Returns why the agent can never come back; None while it may, or while that is not known.

        It does not wait to learn more; the caller asks again.
        """

    def in_use(self) -> str | None:
        """Returns what can be seen from outside of a client or a job of an instance whose agent does not answer.

        None: nothing is seen.
        """

    def detach(self) -> None:
        """Leave the instance to itself: it ends by its own time-outs."""

    def abandon(self) -> None:
        """After a failed start: end what this object created, leave what existed before. Never raises."""

    def delete(self) -> None:
        """Wait for the end of an instance that was told to end; end it by force if it does not. Never raises."""


@runtime_checkable
class Resizable(Protocol):
    """A provisioner whose instances can change their number of brokers."""

    def size(self) -> tuple[int, int]:
        """Returns the number of brokers that are wanted, and the greatest possible one. Raises ProvisionError."""

    def resize(self, size: int) -> None:
        """Ask for another number. Raises ConfigError for one that is not possible."""


@runtime_checkable
class Explaining(Protocol):
    """A provisioner that knows why brokers are missing."""

    def lacks(self, ranks: Collection[int]) -> bool:
        """Returns whether a broker that is wanted is not among these. Raises ProvisionError."""

    def unconnected(self, ranks: Collection[int]) -> list[str]:
        """Returns what keeps the wanted brokers away that are not among these, one line each; empty: all are there.

        Raises ProvisionError.
        """

    def losses(self) -> dict[str, str]:
        """Returns how brokers of followers have ended that came back or will, by a pod's uid. Raises ProvisionError."""


@dataclass(frozen=True)
class Instance:
    """An instance that `executors.provision.inventory` has found."""

    name: str
    provisioner: str
    #: "" on this machine.
    namespace: str
    #: suspended, starting, running, ending or ended.
    state: str
    #: Why it does not run.
    reason: str
    #: Brokers (pods) that are wanted, and that run.
    size: int
    running: int
    #: Seconds since the epoch.
    created: float
    #: The same, of when Kubernetes let it begin; a queue may have held it before. 0 on this machine.
    begun: float = 0.0
