"""Endpoints (values that a provisioner returns) and what a stream can do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from executors.kube.access import ClusterAccess


@dataclass(frozen=True)
class UnixEndpoint:
    """The agent's own socket, on this machine."""

    path: str


@dataclass(frozen=True)
class PodExecEndpoint:
    """A program in a container of a pod, started by Kubernetes' exec; its stdin and stdout are the stream.

    ``tty``: it gets a terminal, on which stderr is stdout.
    """

    access: ClusterAccess
    namespace: str
    pod: str
    container: str
    argv: tuple[str, ...]
    tty: bool = False


Endpoint = UnixEndpoint | PodExecEndpoint


class ProgramEnded(OSError):
    """The program at the other end of the stream has ended with an error, which the text tells; or it could not be
    started there."""


class Stream(Protocol):
    """A byte stream both ways. ``send`` and ``receive`` may be called from different threads, one each."""

    def send(self, data: bytes) -> None:
        """Send all of it. Raises OSError when the stream is cut."""

    def receive(self, timeout: float) -> bytes | None:
        """The next bytes; b"" at the end of the stream; None after ``timeout`` seconds of silence.

        Raises OSError when the stream is cut.
        """

    def close(self) -> None:
        """End the stream, waking a thread that waits in it. Never raises; may be called twice."""
