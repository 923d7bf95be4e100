"""While the API server is away, nobody waits for an answer that is asked for again, or that is only an extra."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from executors.client import Client
from executors.kube import patience
from executors.provision.kubernetes.direct import DirectMode
from executors.provision.kubernetes.health import Health
from executors.provision.kubernetes.picture import Picture
from executors.provision.kubernetes.target import Target
from executors.spec import default_document, parse_spec
from executors.transport import UnixEndpoint
from executors.transport.base import Endpoint, Stream
from tests.support.servers import Answer, ApiServer, Asked, config_of, refusal


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock:
        @staticmethod
        def monotonic() -> float:
            return 0.0

        @staticmethod
        def sleep(seconds: float) -> None:
            raise AssertionError(f"waited {seconds} s")

    monkeypatch.setattr(patience, "time", Clock)


JOB = {"metadata": {"name": "run-1234", "uid": "j"}, "spec": {}}


def _pod(index: int) -> Any:
    ended = {"terminated": {"exitCode": 1, "reason": "OOMKilled"}}
    return {
        "metadata": {
            "name": f"run-1234-{index}",
            "uid": f"p{index}",
            "annotations": {"batch.kubernetes.io/job-completion-index": str(index)},
        },
        "spec": {},
        "status": {"phase": "Running", "containerStatuses": [{"name": "run-1234", "state": ended}]},
    }


AWAY = refusal(500, "InternalError", "dial tcp 10.0.0.1:10250: connect: no route to host")


class Away:
    """An API server whose requests with ``missing`` in their path get ``answer``, by default as while it is away."""

    def __init__(self, directory: Path, missing: str, answer: Answer = AWAY) -> None:
        self._missing = missing
        self._away = answer
        self.server = ApiServer(self._answer)
        config = config_of(directory, self.server)
        self.target = Target(config.run, "run-1234")
        mode = DirectMode(self.target, config, parse_spec(default_document()))
        self.health = Health(self.target, mode, "j", _pod(0))

    def __enter__(self) -> Health:
        self.server.__enter__()
        assert self.target.api is not None
        return self.health

    def __exit__(self, *exc: object) -> None:
        self.target.close()
        self.server.__exit__(*exc)

    def _answer(self, asked: Asked) -> Answer:
        if self._missing in asked.path:
            return self._away
        if asked.path.partition("?")[0].endswith("/pods"):
            return Answer(200, {"items": [_pod(1)]})
        return Answer(200, _pod(0) if "/pods/" in asked.path else JOB)


@pytest.mark.parametrize("missing", ["/jobs/", "/pods/"])
def test_whether_it_is_gone_is_asked_once(tmp_path: Path, missing: str) -> None:
    with Away(tmp_path, missing) as health:
        assert health.gone() is None


@pytest.mark.parametrize("missing", ["/jobs/", "/pods/"])
def test_only_kubernetes_own_words_say_that_it_is_gone(tmp_path: Path, missing: str) -> None:
    with Away(tmp_path, missing, Answer(404, b"default backend - 404")) as health:
        assert health.gone() is None
    with Away(tmp_path, missing, refusal(404, "NotFound", "not found")) as health:
        assert health.gone() is not None


def test_what_is_known_is_told_without_the_log_of_a_pod_whose_kubelet_is_away(tmp_path: Path) -> None:
    with Away(tmp_path, "/log") as health:
        assert "OOMKilled" in str(health.gone())
        picture = Picture("run-1234", "j", 1)
        pod = _pod(0)
        pod["metadata"]["ownerReferences"] = [{"uid": "j"}]
        picture.take_pod(pod)
        assert "cannot start: why" in str(health.start_failure("why", picture))


def test_why_brokers_were_lost_is_asked_once(tmp_path: Path) -> None:
    from executors.kube import ApiError

    with Away(tmp_path, "nothing") as health:
        assert "OOMKilled" in health.losses()["p1"]
    with Away(tmp_path, "/pods") as health, pytest.raises(ApiError):
        health.losses()


class Lost:
    """A session whose stream is cut at once; what looks for the agent then does not come back until ``answer``."""

    def __init__(self, opens: bool) -> None:
        self.asked, self.answer, self.closed = threading.Event(), threading.Event(), threading.Event()
        self.said: list[str] = []
        self.client = Client(
            UnixEndpoint("/nowhere"),
            cast(Any, self),
            opener=self._wait if opens else self._refuse,
            gone=lambda: None if opens else cast(str, self._wait(UnixEndpoint(""))),
        )
        self.client._stream = cast(Stream, self)
        self.client._reader = threading.Thread(target=self.client._read_forever, daemon=True)
        self.client._reader.start()
        assert self.asked.wait(60)

    def _refuse(self, endpoint: Endpoint) -> Stream:
        raise ConnectionRefusedError("away")

    def _wait(self, endpoint: Endpoint) -> Stream:
        self.asked.set()
        assert self.answer.wait(60)
        return cast(Stream, self)

    def receive(self, timeout: float) -> bytes:
        raise ConnectionResetError("cut")

    def send(self, data: bytes) -> None:
        self.said.append("sent")

    def close(self) -> None:
        if self.asked.is_set():
            self.closed.set()

    def on_lost(self, reason: str) -> None:
        self.said.append(reason)

    on_events = on_snapshot = on_lost


@pytest.fixture(params=[True, False], ids=["opening", "asking whether it is gone"])
def lost(request: pytest.FixtureRequest) -> Iterator[Lost]:
    made = Lost(request.param)
    yield made
    made.answer.set()


def test_a_session_ends_while_its_agent_is_looked_for(lost: Lost) -> None:
    closing = threading.Thread(target=lost.client.close, daemon=True)
    closing.start()
    closing.join(30)
    assert not closing.is_alive(), "waits for the one who looks"
    # What comes later is of no use any more, and is told to nobody.
    lost.answer.set()
    assert lost.client._reader is not None
    lost.client._reader.join(60)
    assert not lost.client._reader.is_alive() and lost.said == []


def test_a_stream_that_opens_after_the_end_is_closed() -> None:
    late = Lost(True)
    late.client.close()
    late.answer.set()
    assert late.closed.wait(60)
