"""The protocol of all provisioners, and the choice among them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from executors.config import RunConfig
from executors.errors import ConfigError
from executors.transport import Endpoint


class Provisioner(Protocol):
    """Creates or finds the instance of one run. Not thread-safe; one belongs to one session."""

    def describe(self) -> str:
        """One line for people: which way was taken, and why. Valid after `ensure`."""

    def ensure(self) -> None:
        """Create the instance, or find the one that this run has already. Raises ProvisionError."""

    def find(self, patience: float) -> None:
        """Take the instance that is there, and give it ``patience`` seconds to answer from `wait_ready` on.

        Raises ProvisionError when there is none.
        """

    def wait_ready(self, announce: Callable[[str], None]) -> Endpoint:
        """Wait until its agent can be reached; ``announce`` is told why it takes long.

        Raises ProvisionError with the reason as soon as that is impossible; EndingError when one that was there before
        is about to go: then `ensure` makes a new one.
        """

    def early(self) -> bool:
        """Whether `wait_ready` has given an endpoint before it was sure of it: asked again, it waits until it is."""

    def inherits_environment(self) -> bool:
        """Whether jobs run on this machine, so that they inherit the client's environment and working directory."""

    def patience(self) -> float:
        """Seconds for which an agent that cannot be reached may still be there."""

    def adopted(self) -> bool:
        """Whether the instance was there before. Valid after `ensure`."""

    def gone(self) -> str | None:
        """Why the agent can never come back; None while it may, or while that cannot be told. Does not wait to learn
        it: who asks asks again.
        """

    def in_use(self) -> str | None:
        """Whether an instance whose agent does not answer has a client or a job all the same, as far as can be seen
        from outside: what is seen, in words; None: nothing.
        """

    def detach(self) -> None:
        """Leave the instance to itself: it ends by its own time-outs."""

    def abandon(self) -> None:
        """After a start that failed: end what this object created, leave what was there before. Never raises."""

    def delete(self) -> None:
        """Wait for the end of an instance that was told to end; end it by force if it does not. Never raises."""


@runtime_checkable
class Resizable(Protocol):
    """A provisioner whose instances can change their number of brokers."""

    def size(self) -> tuple[int, int]:
        """How many are wanted, and how many there may be at most."""

    def resize(self, size: int) -> None:
        """Want another number. Raises ConfigError for one that is not possible."""


@runtime_checkable
class Explaining(Protocol):
    """A provisioner that knows why brokers are not there."""

    def lacks(self, ranks: Collection[int]) -> bool:
        """Whether a broker that is wanted is not among these. Raises ProvisionError."""

    def unconnected(self, ranks: Collection[int]) -> list[str]:
        """What keeps the brokers away that are wanted and not among these, one line each; none: all are there.

        Raises ProvisionError.
        """

    def losses(self) -> dict[str, str]:
        """How followers' brokers have ended that came back or will, by a mark of each. Raises ProvisionError."""


@dataclass(frozen=True)
class Instance:
    """An instance of ours, as `executors.provision.inventory` finds it."""

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


@dataclass(frozen=True)
class Choice:
    """Which provisioner, and why: always printed, so that nothing is guessed silently."""

    name: str
    reason: str


def choose(config: RunConfig, environ: Mapping[str, str]) -> Choice:
    """``run.provisioner`` if set; else local for the embedded engine; else attach where FLUX_URI is set; else local.

    Raises ConfigError where these contradict each other.
    """
    embedded = config.run.engine == "embedded"
    if config.run.provisioner == "attach" and embedded:
        raise ConfigError(["run.engine: embedded cannot be used with the provisioner attach; give one of the two"])
    if config.run.provisioner is not None:
        return Choice(config.run.provisioner, "asked for")
    if embedded:
        return Choice("local", "run.engine is embedded")
    if environ.get("FLUX_URI"):
        return Choice("attach", "FLUX_URI is set")
    return Choice("local", "FLUX_URI is not set")


def make_provisioner(run_name: str, config: RunConfig, environ: Mapping[str, str]) -> Provisioner:
    """The provisioner for a config. Raises ConfigError for a name that this version does not have."""
    # Imported here: each way has needs of its own, and a run uses one.
    from executors.provision.local import AttachProvisioner, LocalProvisioner

    choice = choose(config, environ)
    match choice.name:
        case "local":
            return LocalProvisioner(run_name, config, environ, choice.reason)
        case "attach":
            return AttachProvisioner(run_name, config, environ, choice.reason)
        case "direct":
            from executors.provision.direct import DirectProvisioner

            return DirectProvisioner(run_name, config, choice.reason)
        case "operator":
            from executors.provision.operator import OperatorProvisioner

            return OperatorProvisioner(run_name, config, choice.reason)
    raise ConfigError([f"run.provisioner: {choice.name!r} is not known; give local, attach, direct or operator"])
