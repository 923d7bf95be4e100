"""Creations whose answer was lost, or which a quota refused for a moment: the start goes on, and leaves nothing."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from executors.config import RunConfig
from executors.kube import ForbiddenError
from executors.provision.kubernetes.direct import DirectMode
from executors.provision.kubernetes.operator import OperatorMode
from executors.provision.kubernetes.provisioner import ClusterProvisioner
from executors.provision.kubernetes.target import Target
from executors.spec import parse_spec
from tests.support.servers import LOSE, Answer, ApiServer, Asked, config_of, refusal


class Store:
    """Objects by path, as an API server without controllers keeps them."""

    def __init__(self) -> None:
        self.objects: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._version = 0

    def answer(self, asked: Asked) -> Answer:
        with self._lock:
            return self._answer(asked, urlsplit(asked.path).path)

    def _answer(self, asked: Asked, path: str) -> Answer:
        if path == "/version":
            return Answer(200, {"major": "1", "minor": "34"})
        if asked.method == "POST":
            path += "/" + asked.body["metadata"]["name"]
            if path in self.objects:
                return refusal(409, "AlreadyExists", f"{path} already exists")
            self.objects[path] = self._changed(asked.body, uid=f"uid-{self._version}")
            return Answer(201, self.objects[path])
        if path not in self.objects:
            if asked.method == "GET" and "watch=1" not in asked.path and path.endswith("s"):
                items = [one for key, one in self.objects.items() if key.rpartition("/")[0] == path]
                return Answer(200, {"metadata": {"resourceVersion": "1"}, "items": items})
            return Answer(200, b"") if "watch=1" in asked.path else refusal(404, "NotFound")
        if asked.method == "DELETE":
            return Answer(200, self.objects.pop(path))
        if asked.method == "PATCH":
            self.objects[path] = self._changed(_merged(self.objects[path], asked.body))
        return Answer(200, self.objects[path])

    def _changed(self, document: Any, **metadata: str) -> Any:
        self._version += 1
        metadata["resourceVersion"] = str(self._version)
        return {**document, "metadata": {**document["metadata"], **metadata}}

    def kinds(self) -> list[str]:
        return sorted(one["kind"] for one in self.objects.values())


def _merged(there: Any, change: Any) -> Any:
    if not isinstance(there, dict) or not isinstance(change, dict):
        return change
    return {**there, **{name: _merged(there.get(name), inner) for name, inner in change.items()}}


class _Lossy(Store):
    """Does what it is asked, and loses the first answer to each creation."""

    def __init__(self) -> None:
        super().__init__()
        self.lost: set[str] = set()
        self.server = ApiServer(self.answer)
        handle = self.server._handle

        def lose(request: Any) -> None:
            if request.command == "POST" and request.path not in self.lost:
                self.lost.add(request.path)
                self.server.first.append(LOSE)
            handle(request)

        self.server._handle = lose  # type: ignore[method-assign]


@pytest.mark.parametrize(("mode", "owner"), [(DirectMode, "Job"), (OperatorMode, "MiniCluster")])
def test_what_was_made_by_a_request_without_an_answer_is_ours_to_use_and_to_remove(
    tmp_path: Path, mode: type[DirectMode | OperatorMode], owner: str
) -> None:
    store = _Lossy()
    with store.server as server:
        provisioner = ClusterProvisioner(mode, "run-1234", config_of(tmp_path, server), "asked for")
        provisioner.ensure()
        assert not provisioner.adopted()
        assert owner in store.kinds() and len(set(store.kinds())) == len(store.kinds())
        [made] = [one for one in store.objects.values() if one["kind"] == owner]
        assert "flux-operator-executors/adopted" not in made["metadata"]["annotations"]
        provisioner.abandon()
    assert owner not in store.kinds()


def test_a_quota_that_was_full_a_moment_ago_delays_and_one_that_stays_full_is_the_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("executors.provision.kubernetes.creating._PAUSE", 0.05)
    store = Store()
    full = 'secrets "x" is forbidden: exceeded quota: team, requested: count/secrets=1, used: 3, limited: 3'
    left = [3]

    def answer(asked: Asked) -> Answer:
        if asked.method == "POST" and asked.path.endswith("/secrets") and left[0]:
            left[0] -= 1
            return refusal(403, "Forbidden", full)
        return store.answer(asked)

    with ApiServer(answer) as server:
        config = config_of(tmp_path, server)
        ClusterProvisioner(DirectMode, "run-1234", config, "asked for").ensure()
        assert "Secret" in store.kinds() and left == [0]
        store.objects.clear()
        left[0] = 1_000_000
        short = replace(config, run=replace(config.run, schedule_timeout=0.2))
        with pytest.raises(ForbiddenError, match="exceeded quota: team"):
            ClusterProvisioner(DirectMode, "run-1234", short, "asked for").ensure()


def _with_sidecar_and_services(config: RunConfig) -> RunConfig:
    sidecar = {"name": "tool", "image": "tool", "command": "serve", "ports": [9000]}
    document = {
        "size": 1,
        "containers": [{"image": "app", "runFlux": True}, sidecar],
        "services": [{"name": "data", "image": "data"}],
    }
    return replace(config, minicluster=parse_spec(document))


@pytest.mark.parametrize("may_see", [True, False])
def test_what_is_left_of_an_earlier_time_of_the_run_does_not_stand_for_what_is_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, may_see: bool
) -> None:
    monkeypatch.setattr("executors.provision.kubernetes.direct._LEFTOVER_PAUSE", 0.0)
    store, left = Store(), list[str]()

    def answer(asked: Asked) -> Answer:
        if asked.method == "GET" and "/services/" in asked.path and not may_see:
            return refusal(403, "Forbidden", "no")
        if asked.method == "POST" and left and asked.path.endswith("/services"):
            answered = store.answer(asked)
            if answered.status == 409:  # it goes while it is waited for
                store.objects.pop(left.pop())
            return answered
        return store.answer(asked)

    with ApiServer(answer) as server:
        config = _with_sidecar_and_services(config_of(tmp_path, server))
        ClusterProvisioner(DirectMode, "run-1234", config, "asked for").ensure()
        first = {one["metadata"]["name"] for one in store.objects.values() if one["kind"] == "Pod"}
        # Its Job is gone, what hung on it is not yet.
        [job] = [key for key, one in store.objects.items() if one["kind"] == "Job"]
        store.objects.pop(job)
        left += [key for key in store.objects if key.endswith("/run-1234-tool")]
        ClusterProvisioner(DirectMode, "run-1234", config, "asked for").ensure()
    uid = store.objects[job]["metadata"]["uid"]
    new = {
        one["metadata"]["name"]
        for one in store.objects.values()
        if any(owner["uid"] == uid for owner in one["metadata"].get("ownerReferences", []))
    }
    assert ("run-1234-tool" in new) == may_see
    [services] = [name for name in new if name.startswith("run-1234-services-")]
    assert services not in first


def test_a_service_that_another_client_has_made_for_the_same_job_is_as_good(tmp_path: Path) -> None:
    store = Store()
    with ApiServer(store.answer) as server:
        config = _with_sidecar_and_services(config_of(tmp_path, server))
        provisioner = ClusterProvisioner(DirectMode, "run-1234", config, "asked for")
        provisioner.ensure()
        [job] = [one for one in store.objects.values() if one["kind"] == "Job"]
        there = len(store.objects)
        assert config.minicluster is not None
        again = DirectMode(Target(config.run, "run-1234"), config, config.minicluster)
        job["spec"]["suspend"] = True
        again.complete(job, created=False)
    assert len(store.objects) == there
