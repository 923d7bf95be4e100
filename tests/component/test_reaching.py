"""An agent counts as silent only where the stream got to its place: nothing else gives leave to end its instance."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from executors.agent.wire import JobSummary
from executors.client import Client
from executors.errors import AgentSilentError, AgentStartingError, TransportError
from executors.kube import ClusterAccess
from executors.kube.exec_frames import STATUS, STDERR, Channels
from executors.transport import ProgramEnded, UnixEndpoint, open_stream, pod_exec
from executors.transport.base import Endpoint, PodExecEndpoint, Stream
from tests.support.servers import kubeconfig


class Deaf:
    def on_events(self, events: list[Any]) -> None: ...

    def on_snapshot(self, jobs: list[JobSummary]) -> None: ...

    def on_lost(self, reason: str) -> None: ...


class Ended:
    """A stream whose program has ended with a failure."""

    def __init__(self, message: str, stderr: bytes = b"") -> None:
        self._channels = Channels()
        self._channels.feed(bytes([STDERR]) + stderr, final=True)
        status = {"status": "Failure", "message": message}
        self._channels.feed(bytes([STATUS]) + json.dumps(status).encode(), final=True)

    def send(self, data: bytes) -> None: ...

    def receive(self, timeout: float) -> bytes | None:
        raise ProgramEnded(self._channels.failure() or "")

    def close(self) -> None: ...


class Silent(Ended):
    def receive(self, timeout: float) -> bytes | None:
        return None


def told(endpoint: Endpoint, opener: Callable[[Endpoint], Stream]) -> TransportError:
    client = Client(endpoint, Deaf(), opener=opener, silence_limit=0.1)
    with pytest.raises(TransportError) as caught:
        client.connect()
    client.close()
    return caught.value


def of_stream(stream: Stream) -> TransportError:
    return told(UnixEndpoint("/nowhere"), lambda _: stream)


def relay_says(path: Path) -> bytes:
    words = [sys.executable, "-m", "executors.agent", "relay", str(path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        return process.stderr.read()


@pytest.mark.parametrize(
    ("message", "stderr"),
    [
        (
            "Internal error occurred: error executing command in container: OCI runtime exec failed: fork",
            b"",
        ),
        ("Internal error occurred: error dialing backend: dial tcp 10.0.0.1:10250: i/o timeout", b""),
        ("command terminated with exit code 1", b"RuntimeError: can't start new thread\n"),
        ("command terminated with exit code 137", b""),
        ("command terminated with exit code 127", b"sh: flux: not found\n"),
    ],
)
def test_a_relay_that_never_ran_says_nothing_of_the_agent(message: str, stderr: bytes) -> None:
    error = of_stream(Ended(message, stderr))
    assert not isinstance(error, AgentSilentError) and message in str(error)


def test_a_relays_own_words_and_silence_on_a_stream_that_is_open_are_an_agents_silence(tmp_path: Path) -> None:
    ended = "command terminated with exit code 1"
    starting = of_stream(Ended(ended, relay_says(tmp_path / "not-yet" / "agent.sock")))
    assert isinstance(starting, AgentStartingError)
    silent = of_stream(Ended(ended, relay_says(tmp_path / "agent.sock")))
    assert isinstance(silent, AgentSilentError) and not isinstance(silent, AgentStartingError)
    assert isinstance(of_stream(Silent(ended)), AgentSilentError)


def test_an_exec_that_hangs_is_no_silence_of_the_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pod_exec, "_OPEN_LIMIT", 0.1)
    monkeypatch.setattr(pod_exec, "_AGAIN_LIMIT", 0.0)
    # A client that connects waits in its queue, and is never answered.
    with socket.create_server(("127.0.0.1", 0)) as server:
        access = ClusterAccess(str(kubeconfig(tmp_path, f"http://127.0.0.1:{server.getsockname()[1]}")))
        error = told(PodExecEndpoint(access, "ns", "pod", "main", ("relay",)), open_stream)
    assert not isinstance(error, AgentSilentError) and "does not answer: timed out" in str(error)
