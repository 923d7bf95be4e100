"""Streams that are cut, go silent or carry garbage, between a real agent and a client: a proxy stands in between."""

from __future__ import annotations

import os
import select
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from executors import JobEvent, ProtocolError, Session, TransportError
from executors.agent import wire
from executors.agent.wire import JobSummary
from executors.client import Client
from executors.provision.local.rundir import base_directory
from executors.transport import UnixEndpoint
from tests.support.environment import environment
from tests.support.pipes import ProcessStream
from tests.support.waiting import wait_for

LIMIT = 60.0


class Proxy:
    """Forwards between a client and an agent until told otherwise."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._directory = tempfile.mkdtemp(prefix="proxy-", dir="/tmp")
        self.path = os.path.join(self._directory, "sock")
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen(5)
        self.frozen = False
        self.refuse = False
        #: Cut after so many more bytes towards the client, in the middle of whatever line that is.
        self.cut_after: int | None = None
        self.inject = b""
        self.connections = 0
        self._closed = False
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    def _accept(self) -> None:
        while not self._closed:
            ready, _, _ = select.select([self._listener], [], [], 0.1)
            if not ready:
                continue
            client, _ = self._listener.accept()
            if self.refuse:
                client.close()
                continue
            agent = socket.socket(socket.AF_UNIX)
            agent.connect(self._target)
            self.connections += 1
            self._pairs.append((client, agent))
            threading.Thread(target=self._forward, args=(client, agent), daemon=True).start()

    def _forward(self, client: socket.socket, agent: socket.socket) -> None:
        try:
            while True:
                ready, _, _ = select.select([client, agent], [], [], 0.05)
                if self.frozen:
                    time.sleep(0.05)
                    continue
                for source in ready:
                    data = source.recv(65536)
                    if not data:
                        raise ConnectionError
                    if source is client:
                        agent.sendall(data)
                        continue
                    if self.inject:
                        data, self.inject = self.inject + data, b""
                    if self.cut_after is not None:
                        data, self.cut_after = data[: self.cut_after], self.cut_after - len(data)
                        if self.cut_after <= 0:
                            self.cut_after = None
                            client.sendall(data)
                            raise ConnectionError
                    client.sendall(data)
        except (OSError, ValueError):
            self._end(client, agent)

    def _end(self, *sockets: socket.socket) -> None:
        for one in sockets:
            one.close()

    def cut(self) -> None:
        for pair in self._pairs:
            for one in pair:
                try:
                    one.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass  # cut already
        self._pairs.clear()

    def close(self) -> None:
        self._closed = True
        self.frozen = False
        self._acceptor.join()
        self.cut()
        self._listener.close()
        os.unlink(self.path)
        os.rmdir(self._directory)


class Recorder:
    """A handler that keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[JobEvent] = []
        self.snapshots: list[list[JobSummary]] = []
        self.lost: list[str] = []

    def on_events(self, events: list[JobEvent]) -> None:
        self.events += events

    def on_snapshot(self, jobs: list[JobSummary]) -> None:
        self.snapshots.append(jobs)

    def on_lost(self, reason: str) -> None:
        self.lost.append(reason)


def socket_of(session: Session) -> str:
    return str(base_directory(environment()) / session.run_name / "agent.sock")


@pytest.fixture
def proxy(session: Session) -> Iterator[Proxy]:
    one = Proxy(socket_of(session))
    yield one
    one.close()


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def client(proxy: Proxy, recorder: Recorder) -> Iterator[Client]:
    one = Client(UnixEndpoint(proxy.path), recorder, ping_interval=0.2, silence_limit=1.0, patience=10.0)
    one.connect()
    yield one
    one.close()


def jobs(client: Client, count: int, tag: str) -> list[str]:
    """Submit trivial jobs through the client; their ids."""
    spec = {
        "version": 1,
        "resources": [{"type": "slot", "count": 1, "label": "task", "with": [{"type": "core", "count": 1}]}],
        "tasks": [{"command": ["true"], "slot": "task", "count": {"per_slot": 1}}],
        "attributes": {"system": {"duration": 0, "cwd": "/", "environment": {"PATH": os.environ["PATH"]}}},
    }
    items = [{"jobspec": spec, "key": f"{tag}-{index}"} for index in range(count)]
    return [item["id"] for item in client.request("submit", items=items)["items"]]


def ends(recorder: Recorder, ids: list[str]) -> list[str]:
    return [event.id for event in recorder.events if event.name == "clean" and event.id in ids]


@pytest.mark.parametrize("cuts", [1, 5])
def test_a_cut_loses_and_repeats_no_event(client: Client, proxy: Proxy, recorder: Recorder, cuts: int) -> None:
    ids = []
    for number in range(cuts):
        ids += jobs(client, 10, f"cut-{cuts}-{number}-{time.monotonic_ns()}")
        proxy.cut()
    wait_for(lambda: len(ends(recorder, ids)) >= len(ids), "all ends arrive")
    assert sorted(ends(recorder, ids)) == sorted(ids)
    sequences = [event.cursor.sequence for event in recorder.events]
    assert sequences == sorted(set(sequences))
    assert proxy.connections > cuts and not recorder.snapshots and not recorder.lost


@pytest.mark.parametrize("after", [1, 50, 333])
def test_a_cut_in_the_middle_of_a_line_is_no_harm(client: Client, proxy: Proxy, recorder: Recorder, after: int) -> None:
    proxy.cut_after = after
    ids = jobs(client, 20, f"mid-{after}-{time.monotonic_ns()}")
    wait_for(lambda: len(ends(recorder, ids)) >= len(ids), "all ends arrive")
    assert sorted(ends(recorder, ids)) == sorted(ids)
    assert proxy.connections == 2


def test_a_stream_that_goes_silent_without_closing_is_noticed(client: Client, proxy: Proxy, recorder: Recorder) -> None:
    proxy.frozen = True
    waiting = client.request_later("list")
    wait_for(lambda: proxy.connections >= 2, "the silence is noticed, and the client tries again")
    proxy.frozen = False
    assert "jobs" in waiting.result(LIMIT)
    assert not recorder.lost


def test_garbage_from_the_other_side_is_a_cut(client: Client, proxy: Proxy, recorder: Recorder) -> None:
    proxy.inject = b"\xff\xfe not a message\n"
    assert "jobs" in client.request("list", timeout=LIMIT)
    wait_for(lambda: proxy.connections == 2, "the client comes back on a new stream")
    assert not recorder.lost


def test_an_agent_that_does_not_come_back_is_lost_with_the_reason(session: Session, recorder: Recorder) -> None:
    proxy = Proxy(socket_of(session))
    client = Client(UnixEndpoint(proxy.path), recorder, patience=0.5)
    client.connect()
    waiting = client.request_later("kill", ids=[], signal=15)
    waiting.result(LIMIT)
    proxy.refuse = True
    proxy.cut()
    wait_for(lambda: bool(recorder.lost), "the loss is reported")
    with pytest.raises(Exception, match="did not come back"):
        client.request("list")
    client.close()
    proxy.close()


def test_a_request_that_must_not_be_repeated_fails_with_the_cut(client: Client, proxy: Proxy) -> None:
    proxy.frozen = True
    waiting = client.request_later("kill", ids=["nobody"], signal=15)
    proxy.cut()
    with pytest.raises(TransportError, match=r"cut|closed"):
        waiting.result(LIMIT)
    proxy.frozen = False


def test_another_instance_in_the_same_place_is_not_taken_for_ours(
    session: Session, client: Client, proxy: Proxy, recorder: Recorder
) -> None:
    assert client.hello is not None
    object.__setattr__(client.hello, "instance", "an instance of another time")
    proxy.cut()
    wait_for(lambda: bool(recorder.lost), "the loss is reported")
    assert "replaced" in recorder.lost[0]


def test_a_version_that_nobody_speaks_is_said_at_once(
    session: Session, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "VERSION", 99)
    with pytest.raises(ProtocolError, match="speaks version 1"):
        Client(UnixEndpoint(socket_of(session)), recorder).connect()


def test_the_relay_carries_a_session(session: Session, recorder: Recorder) -> None:
    agent = str(base_directory(environment()) / session.run_name / "agent.pyz")
    argv = ("python3", agent, "relay", socket_of(session))
    client = Client(UnixEndpoint("none"), recorder, opener=lambda _: ProcessStream(argv))
    client.connect()
    ids = jobs(client, 3, f"relay-{time.monotonic_ns()}")
    wait_for(lambda: len(ends(recorder, ids)) == 3, "all ends arrive")
    client.close()


def test_nobody_there_is_an_error_and_not_a_wait(tmp_path: Path, recorder: Recorder) -> None:
    with pytest.raises(TransportError, match="cannot be reached"):
        Client(UnixEndpoint(str(tmp_path / "none")), recorder).connect()
