"""Which of several replicas works, and how what is watched is kept."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from executors.controller import leading, reflecting
from executors.controller.leading import Leadership, UpstreamWatch
from executors.controller.reflecting import Followed, Reflector
from executors.kube import ApiError, ExpiredError, ForbiddenError, Kind, UnreachableError
from executors.kube.api import MINICLUSTERS, PODS
from tests.support.leases import Leases
from tests.support.waiting import wait_for

LIMIT = 10.0


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {"DURATION": 1.0, "RENEWAL": 0.1, "RETRY": 0.05}.items():
        monkeypatch.setattr(leading, name, seconds)
    monkeypatch.setattr(reflecting, "_AWAY", 0.02)


def replica(leases: Leases, name: str) -> Leadership:
    return Leadership(leases, "ns", name, lambda: None)  # type: ignore[arg-type]  # all that it uses


def test_one_leads_and_another_begins_at_once_when_it_is_released() -> None:
    leases = Leases()
    first, second = replica(leases, "a"), replica(leases, "b")
    assert first.acquire(threading.Event())
    waiting = threading.Event()
    got: list[bool] = []
    thread = threading.Thread(target=lambda: got.append(second.acquire(waiting)))
    thread.start()
    assert leases.holder == "a"
    first.release()
    thread.join(LIMIT)
    assert got == [True] and leases.holder == "b"
    assert leases.lease is not None and leases.lease["spec"]["leaseTransitions"] == 1
    second.release()


def test_one_that_waits_can_be_ended() -> None:
    leases = Leases()
    first = replica(leases, "a")
    first.acquire(threading.Event())
    closing = threading.Event()
    closing.set()
    assert replica(leases, "b").acquire(closing) is False
    first.release()


def test_one_whose_request_is_not_answered_stops_before_others_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leading, "DEADLINE", 0.5)
    leases = Leases()
    first = replica(leases, "a")
    assert first.acquire(threading.Event())
    with leases._lock:  # every request waits now
        assert first.lost.wait(LIMIT)
        assert not first.held
    first.release()


class Upstream:
    """An API server with upstream's Lease, or without the right to see it."""

    def __init__(self, renewed: datetime | None) -> None:
        self.renewed = renewed

    def list(self, kind: Kind[Any], namespace: str | None, **more: Any) -> dict[str, Any]:
        if self.renewed is None:
            raise ForbiddenError(403, "Forbidden", "no")
        spec = {"holderIdentity": "x", "leaseDurationSeconds": 15, "renewTime": self.renewed.isoformat()}
        lease = {"metadata": {"uid": "l", "name": "l", "resourceVersion": "1"}, "spec": spec}
        return {"metadata": {"resourceVersion": "1"}, "items": [lease]}

    @contextlib.contextmanager
    def watch(self, *arguments: Any, **more: Any) -> Iterator[Any]:
        threading.Event().wait(0.1)
        yield iter(())


@pytest.mark.parametrize(("age", "runs"), [(1.0, True), (60.0, False), (None, False)])
def test_upstreams_operator_runs_as_long_as_its_lease_is_good(age: float | None, runs: bool) -> None:

    renewed = None if age is None else datetime.now(UTC) - timedelta(seconds=age)
    watch = UpstreamWatch(Upstream(renewed), "ns", lambda: None)  # type: ignore[arg-type]
    assert (watch.until() > time.monotonic()) is runs
    watch.stop()


# -- what is watched


def thing(name: str, version: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "ns", "uid": f"uid-{name}", "resourceVersion": version}}


class Story:
    """An API server whose answers are told in advance: lists, and watches that end as they say."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.since: list[str] = []
        self.told = threading.Event()

    def list(self, kind: Kind[Any], namespace: str | None, **more: Any) -> dict[str, Any]:
        answer = self._next()
        if isinstance(answer, Exception):
            raise answer
        version, *items = answer
        return {"metadata": {"resourceVersion": version}, "items": items}

    @contextlib.contextmanager
    def watch(self, kind: Kind[Any], namespace: str | None, version: str, **more: Any) -> Iterator[Any]:
        self.since.append(version)
        yield self._changes(self._next())

    def _changes(self, answer: Any) -> Iterator[Any]:
        for one in answer:
            if isinstance(one, Exception):
                raise one
            yield one

    def _next(self) -> Any:
        if not self.answers:
            self.told.set()
            threading.Event().wait(0.05)
            return []
        return self.answers.pop(0)


def test_cuts_go_on_where_they_were_and_what_went_behind_a_lost_place_is_noticed() -> None:
    story = Story(
        ("5", thing("a", "3"), thing("b", "4")),
        [("ADDED", thing("c", "6")), ("BOOKMARK", thing("-", "7")), UnreachableError("cut")],
        [("MODIFIED", thing("a", "8")), ExpiredError(410, "Expired", "too old")],
        ("20", thing("c", "6")),
    )
    seen: list[tuple[str, bool]] = []

    def take(kind: Kind[Any], given: dict[str, Any], deleted: bool) -> tuple[str, str]:
        seen.append((given["metadata"]["name"], deleted))
        return "ns", given["metadata"]["name"]

    notified: list[tuple[str, str]] = []
    reflector = Reflector(story, None, Followed(PODS), take, notified.append)  # type: ignore[arg-type]
    reflector.start()
    assert story.told.wait(LIMIT)
    reflector.stop()
    assert story.since[:3] == ["5", "7", "20"]
    assert seen == [
        *(("a", False), ("b", False)),
        ("c", False),
        ("a", False),
        *(("a", True), ("b", True)),
        ("c", False),
    ]
    assert len(notified) == len(seen)


def test_a_cluster_without_the_crd_is_told_from_one_that_is_away(caplog: pytest.LogCaptureFixture) -> None:
    story = Story(ApiError(404, "", "404 page not found"))
    reflector = Reflector(story, None, Followed(MINICLUSTERS), lambda *_: None, lambda _: None)  # type: ignore[arg-type]
    reflector.start()
    wait_for(lambda: bool(caplog.records), "it says so")
    reflector.stop()
    [record] = caplog.records
    assert record.getMessage().startswith("watching miniclusters: their CRD is not installed;")
    assert "flux-operator crd | kubectl apply --server-side -f -" in record.getMessage()
