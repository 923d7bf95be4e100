"""A watcher of objects that is told nothing does not ask all the time."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from executors.kube import ClusterAccess, connect
from executors.kube.api import JOBS
from executors.provision.kubernetes.watching import ResourceWatcher, Wanted
from tests.support.servers import Answer, ApiServer, Asked, kubeconfig

_PAUSES = 3
#: Requests after which a watcher that never pauses is stopped.
_MANY = 50


class Pauses(threading.Event):
    """Set after a few waits, which take no time."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = 0

    def wait(self, timeout: float | None = None) -> bool:
        if self.is_set():
            return True
        self.waits += 1
        if self.waits == _PAUSES:
            self.set()
        return self.is_set()


def followed(directory: Path, watched: Callable[[int], Answer]) -> tuple[int, int]:
    """How many watches there were until a few pauses were made, and how many pauses."""
    watches = 0
    closing = Pauses()

    def answer(asked: Asked) -> Answer:
        nonlocal watches
        if "watch=1" not in asked.path:
            return Answer(200, {"metadata": {"resourceVersion": "1"}, "items": []})
        watches += 1
        if watches == _MANY:
            closing.set()
        return watched(watches)

    with ApiServer(answer) as server:
        watcher = ResourceWatcher(connect(ClusterAccess(str(kubeconfig(directory, server.url)))), "ns", [])
        watcher._closing = closing
        watcher._follow(Wanted(JOBS))
    return watches, closing.waits


EXPIRED = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}}


@pytest.mark.parametrize("body", [b"", json.dumps(EXPIRED).encode() + b"\n"], ids=["ends", "expired"])
def test_a_watch_that_ends_at_once_is_not_begun_again_at_once(tmp_path: Path, body: bytes) -> None:
    assert followed(tmp_path, lambda _: Answer(200, body)) == (_PAUSES, _PAUSES)


def test_a_watch_that_tells_something_goes_on_without_a_pause(tmp_path: Path) -> None:
    def told(number: int) -> Answer:
        change = {"type": "MODIFIED", "object": {"metadata": {"uid": "j", "resourceVersion": str(number + 1)}}}
        return Answer(200, json.dumps(change).encode() + b"\n")

    assert followed(tmp_path, told) == (_MANY, 0)
