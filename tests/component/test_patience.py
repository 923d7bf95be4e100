"""What an API server refuses for a moment is waited out, in every request; what does not pass is said at once."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from executors.kube import (
    Api,
    ApiError,
    BusyError,
    ClusterAccess,
    ConflictError,
    ForbiddenError,
    NotFoundError,
    UnreachableError,
    connect,
)  # fmt: skip
from executors.kube import patience as patience_module
from executors.kube.api import JOBS, MINICLUSTERS, SECRETS
from executors.transport.base import PodExecEndpoint
from executors.transport.pod_exec import PodExecStream
from tests.support.servers import LOSE, RESET, Answer, ApiServer, Asked, closed_port, kubeconfig, refusal

QUOTA = 'Operation cannot be fulfilled on resourcequotas "quota": the object has been modified; please try again'
PASSING: list[Answer | str] = [
    refusal(429, "TooManyRequests", "slow down", Retry_After="1"),
    refusal(429, Retry_After="0"),
    refusal(500, "InternalError"),
    Answer(503, b"upstream connect error"),
    refusal(504, "Timeout"),
    RESET,
]
REQUESTS: dict[str, Callable[[Api], object]] = {
    "get": lambda api: api.get(JOBS, "ns", "one"),
    "list": lambda api: api.list(JOBS, "ns"),
    "create": lambda api: api.create(SECRETS, "ns", {"kind": "Secret"}),
    "patch": lambda api: api.patch(JOBS, "ns", "one", {"spec": {}}),
    "delete": lambda api: api.delete(JOBS, "ns", "one", uid="1"),
    "version": lambda api: api.request("GET", "/version"),
    "review": lambda api: api.request("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body={}),
    "watch": lambda api: _watch(api),
}


def _watch(api: Api) -> list[Any]:
    with api.watch(JOBS, "ns", "1", seconds=5) as watch:
        return list(watch)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long was to be waited, in place of waiting; the clock goes on by as much."""
    found: list[float] = []
    begin = time.monotonic

    class Clock:
        monotonic = staticmethod(lambda: begin() + sum(found))
        sleep = staticmethod(found.append)

    monkeypatch.setattr(patience_module, "time", Clock)
    return found


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with ApiServer(lambda asked: Answer(200, b"" if "watch=1" in asked.path else {"kind": "Job"})) as made:
        yield made


def api_of(directory: Path, server: ApiServer) -> Api:
    return connect(ClusterAccess(str(kubeconfig(directory, server.url))))


@pytest.mark.parametrize("name", REQUESTS)
def test_what_passes_is_waited_out(tmp_path: Path, server: ApiServer, waits: list[float], name: str) -> None:
    api = api_of(tmp_path, server)
    api.request("GET", "/version")
    server.first = list(PASSING)
    REQUESTS[name](api)
    assert len(server.asked) == 1 + len(PASSING) + 1
    assert len({(one.method, one.path) for one in server.asked[1:]}) == 1
    assert waits[0] == 1.0 and all(one > 0 for one in waits)


def test_a_quotas_own_conflict_is_waited_out_and_only_alreadyexists_means_exists(
    tmp_path: Path, server: ApiServer, waits: list[float]
) -> None:
    api = api_of(tmp_path, server)
    server.first = [refusal(409, "Conflict", QUOTA)]
    made: Any = api.create(SECRETS, "ns", {})
    assert made == {"kind": "Job"}
    server.first = [refusal(409, "Conflict", QUOTA)]
    api.delete(JOBS, "ns", "one", uid="1")
    server.first = [refusal(409, "Conflict", "the object has been modified")]
    api.patch(JOBS, "ns", "one", {"spec": {}})
    assert len(waits) == 3
    server.first = [refusal(409, "AlreadyExists", "there it is")]
    with pytest.raises(ConflictError):
        api.create(SECRETS, "ns", {})
    server.first = [refusal(409, "Conflict", "Precondition failed: UID in precondition: 1, UID in object meta: 2")]
    with pytest.raises(ConflictError):
        api.delete(JOBS, "ns", "one", uid="1")
    server.first = [refusal(409, "Conflict", "the object has been modified")]
    with pytest.raises(ConflictError):
        api.patch(JOBS, "ns", "one", {"metadata": {"resourceVersion": "1"}})
    assert len(waits) == 3


def test_a_conflict_that_does_not_pass_is_never_taken_for_an_object_that_is_there(
    tmp_path: Path, server: ApiServer, waits: list[float]
) -> None:
    server.first = [refusal(409, "Conflict", QUOTA)] * 1000
    with pytest.raises(BusyError, match=r"resourcequotas .* \(for \d+ s by now\)"):
        api_of(tmp_path, server).create(SECRETS, "ns", {})
    assert 40 < sum(waits) <= patience_module.LIMIT


def test_the_server_says_how_long_and_an_end_is_told(
    tmp_path: Path, server: ApiServer, waits: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    server.first = [refusal(429, Retry_After="7"), refusal(503, Retry_After="600")]
    with pytest.raises(ApiError, match=r"the server wants 600 s more"):
        api_of(tmp_path, server).request("GET", "/version")
    assert waits == [7.0] and "waiting for the Kubernetes API server" in caplog.text
    server.first = [refusal(429, Retry_After="Wed, 21 Oct 2015 07:28:00 GMT"), refusal(429, Retry_After="soon")]
    api_of(tmp_path, server).request("GET", "/version")


@pytest.mark.parametrize(
    ("status", "kind"), [(403, ForbiddenError), (404, NotFoundError), (410, ApiError), (501, ApiError)]
)
def test_what_does_not_pass_is_said_at_once(
    tmp_path: Path, server: ApiServer, waits: list[float], status: int, kind: type[ApiError]
) -> None:
    server.first = [refusal(status)]
    with pytest.raises(kind):
        api_of(tmp_path, server).request("GET", "/version")
    assert waits == []


@pytest.mark.parametrize("words", [b"default backend - 404", b'{"error": "no route"}', b"404 page not found\n"])
def test_a_404_of_what_stands_before_the_server_passes(
    tmp_path: Path, server: ApiServer, waits: list[float], words: bytes
) -> None:
    api = api_of(tmp_path, server)
    server.first = [Answer(404, words)]
    there: Any = api.get(JOBS, "ns", "one")
    assert there == {"kind": "Job"} and len(waits) == 1
    server.first = [Answer(404, words)] * 1000
    with pytest.raises(UnreachableError, match="is not the API server's"):
        api.delete(JOBS, "ns", "one", uid="1")


def test_a_404_of_a_wrong_address_is_told_soon(tmp_path: Path, waits: list[float]) -> None:
    with (
        ApiServer(lambda _: Answer(404, b"<html>nothing here</html>")) as server,
        pytest.raises(UnreachableError, match="nothing here"),
    ):
        api_of(tmp_path, server).request("GET", "/version")
    assert sum(waits) <= patience_module.NOBODY_LIMIT


def test_an_api_group_that_the_server_does_not_know_is_not_there(
    tmp_path: Path, server: ApiServer, waits: list[float]
) -> None:
    server.first = [Answer(404, b"404 page not found\n"), Answer(404, b"404 page not found\n")]
    api = api_of(tmp_path, server)
    with pytest.raises(NotFoundError):
        api.request("GET", "/apis/kueue.x-k8s.io")
    with pytest.raises(NotFoundError):
        api.list(MINICLUSTERS, "ns")
    assert waits == []


def test_a_server_that_was_never_there_is_not_waited_for_as_long_as_one_that_was(
    tmp_path: Path, waits: list[float]
) -> None:
    with closed_port() as port:
        api = connect(ClusterAccess(str(kubeconfig(tmp_path, f"http://127.0.0.1:{port}"))))
        with pytest.raises(UnreachableError, match="does not answer"):
            api.request("GET", "/version")
    assert sum(waits) <= patience_module.NOBODY_LIMIT
    with ApiServer(lambda _: Answer(200, {}, {"Connection": "close"})) as server:
        api = api_of(tmp_path, server)
        api.request("GET", "/version")
    before = sum(waits)
    with pytest.raises(UnreachableError, match="does not answer"):
        api.request("GET", "/version")
    assert sum(waits) - before > 10 * patience_module.NOBODY_LIMIT


def test_an_answer_that_is_lost_after_the_creation_is_the_same_as_one_that_finds_it_there(
    tmp_path: Path, waits: list[float]
) -> None:
    made: list[Any] = []

    def answer(asked: Asked) -> Answer:
        if made:
            return refusal(409, "AlreadyExists")
        made.append(asked.body)
        return Answer(201, asked.body)

    with ApiServer(answer) as server:
        server.first = [LOSE]
        with pytest.raises(ConflictError):
            api_of(tmp_path, server).create(SECRETS, "ns", {"kind": "Secret"})
    assert len(made) == 1


@pytest.mark.parametrize("text", [b"<html>log in</html>", b"[]", b"{"])
def test_what_is_no_api_server_is_said(tmp_path: Path, server: ApiServer, text: bytes) -> None:
    server.first = [Answer(200, text)]
    with pytest.raises(ApiError, match="does not answer like a Kubernetes API server"):
        api_of(tmp_path, server).request("GET", "/version")


class _ExecServer:
    """Shakes hands for an exec stream after some answers that refuse; keeps the heads that it was sent."""

    def __init__(self, answers: list[bytes]) -> None:
        self.heads: list[bytes] = []
        self._answers = answers
        self._door = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._door.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        from websockets.server import ServerProtocol

        while True:
            try:
                client, _ = self._door.accept()
            except OSError:
                return
            with client:
                head = b""
                while b"\r\n\r\n" not in head:
                    head += client.recv(4096)
                self.heads.append(head)
                if self._answers:
                    client.sendall(self._answers.pop(0))
                    continue
                protocol = ServerProtocol(subprotocols=["v5.channel.k8s.io"])  # type: ignore[list-item]
                protocol.receive_data(head)
                [request] = protocol.events_received()
                protocol.send_response(protocol.accept(request))  # type: ignore[arg-type]
                protocol.send_binary(b"\x01hello")
                client.sendall(b"".join(protocol.data_to_send()))
                client.recv(4096)

    def close(self) -> None:
        self._door.close()


def test_the_handshake_of_an_exec_stream_is_waited_out_too_and_says_who_asks(
    tmp_path: Path, waits: list[float]
) -> None:
    refusals = [
        b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
        b"",
    ]
    server = _ExecServer(list(refusals))
    user = {"token": "sesame", "as": "jane", "as-groups": ["a", "b"]}
    access = ClusterAccess(str(kubeconfig(tmp_path, server.url, user)))
    try:
        stream = PodExecStream(PodExecEndpoint(access, "ns", "pod", "main", ("relay",)))
        assert stream.receive(10) == b"hello"
        stream.close()
    finally:
        server.close()
    assert len(server.heads) == len(refusals) + 1 and waits[0] == 1.0
    for line in (
        b"Authorization: Bearer sesame",
        b"Impersonate-User: jane",
        b"Impersonate-Group: a",
        b"Impersonate-Group: b",
    ):
        assert line in server.heads[-1].split(b"\r\n")
