"""Watchers of objects miss nothing of the present state, whatever becomes of their watches."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from executors.kube import Api, ClusterAccess, ExpiredError, Watch, connect
from executors.kube.api import CONFIG_MAPS
from executors.provision.kubernetes import watching
from executors.provision.kubernetes.watching import Change, Listed, ResourceWatcher, Wanted
from tests.cluster.runs import LIMIT
from tests.cluster.testbed.control_plane import ControlPlane
from tests.cluster.testbed.waiting import wait_until

MARK = "watched"


@pytest.fixture
def namespace(control_plane: ControlPlane) -> Iterator[str]:
    name = control_plane.create_namespace()
    yield name
    control_plane.delete_namespace(name)


@pytest.fixture
def api(control_plane: ControlPlane) -> Api:
    return connect(ClusterAccess(str(control_plane.kubeconfig)))


def config_map(name: str, value: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {MARK: "yes"}},
        "data": {"value": value},
    }


class Told:
    """What a watcher tells, read one by one."""

    def __init__(self, watcher: ResourceWatcher) -> None:
        deadline = time.monotonic() + LIMIT
        self._changes = watcher.changes(lambda: deadline)

    def until(self, last: Callable[[Change | Listed], bool]) -> list[tuple[str, str]]:
        """Names of what came, and the value or what else happened, up to the change that is asked for."""
        found: list[tuple[str, str]] = []
        for one in self._changes:
            assert one is not None, f"nothing more came after {found}"
            if isinstance(one, Listed):
                found.append(("list", str(one.count)))
            else:
                found.append((one.object["metadata"]["name"], "-" if one.deleted else one.object["data"]["value"]))
            if last(one):
                return found
        raise AssertionError("the changes never end by themselves")

    def until_listed(self) -> list[tuple[str, str]]:
        return self.until(lambda one: isinstance(one, Listed))

    def until_value(self, value: str) -> list[tuple[str, str]]:
        return self.until(
            lambda one: isinstance(one, Change) and not one.deleted and one.object["data"]["value"] == value
        )


class Sleeper:
    """A client that sleeps, as a laptop whose lid is shut, between what it knows and its next watch."""

    def __init__(self, api: Api) -> None:
        self.asleep = threading.Event()
        self.woken = threading.Event()
        self.errors: list[Exception] = []
        self._watch = api.watch

    @contextmanager
    def watch(self, *arguments: Any, **more: Any) -> Iterator[Watch[Any]]:
        self.asleep.set()
        assert self.woken.wait(LIMIT)
        try:
            with self._watch(*arguments, **more) as watch:
                yield watch
        except Exception as err:
            self.errors.append(err)
            raise


def test_a_place_in_the_history_that_is_gone_is_told_from_other_errors(
    control_plane: ControlPlane, api: Api, namespace: str
) -> None:
    version = api.list(CONFIG_MAPS, namespace)["metadata"]["resourceVersion"]
    api.create(CONFIG_MAPS, namespace, config_map("later", "new"))
    # The new server's history begins now.
    control_plane.restart_api_server()
    with pytest.raises(ExpiredError, match="too old"), api.watch(CONFIG_MAPS, namespace, version, seconds=1) as watch:
        next(iter(watch))


def test_a_follower_that_slept_until_its_place_was_gone_learns_what_it_missed(
    control_plane: ControlPlane, api: Api, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("changed", "deleted", "left-alone"):
        api.create(CONFIG_MAPS, namespace, config_map(name, "old"))
    sleeper = Sleeper(api)
    monkeypatch.setattr(api, "watch", sleeper.watch)
    with ResourceWatcher(api, namespace, [Wanted(CONFIG_MAPS, labels=MARK)]) as watcher:
        told = Told(watcher)
        assert set(told.until_listed()) == {
            *((name, "old") for name in ("changed", "deleted", "left-alone")),
            ("list", "3"),
        }
        assert sleeper.asleep.wait(LIMIT)
        other = connect(ClusterAccess(str(control_plane.kubeconfig)))
        other.patch(CONFIG_MAPS, namespace, "changed", {"data": {"value": "new"}})
        other.delete(CONFIG_MAPS, namespace, "deleted", policy="Background")
        other.create(CONFIG_MAPS, namespace, config_map("made", "new"))
        control_plane.restart_api_server()
        sleeper.woken.set()
        missed = told.until_listed()
        assert missed[0] == ("deleted", "-") and sorted(missed[1:]) == [
            ("changed", "new"),
            ("list", "3"),
            ("made", "new"),
        ]
        assert [type(err) for err in sleeper.errors] == [ExpiredError]
        # And it goes on.
        api.patch(CONFIG_MAPS, namespace, "made", {"data": {"value": "newer"}})
        assert told.until_value("newer") == [("made", "newer")]


def test_a_watch_that_ends_at_its_time_goes_on_where_it_was_without_a_new_list(
    api: Api, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "_WATCH", 1.0)
    sleeper = Sleeper(api)
    sleeper.woken.set()
    begun: list[str] = []

    def watch(*arguments: Any, **more: Any) -> Any:
        begun.append(arguments[2])
        return sleeper.watch(*arguments, **more)

    monkeypatch.setattr(api, "watch", watch)
    api.create(CONFIG_MAPS, namespace, config_map("one", "1"))
    with ResourceWatcher(api, namespace, [Wanted(CONFIG_MAPS, labels=MARK)]) as watcher:
        told = Told(watcher)
        told.until_listed()
        for value in ("2", "3"):
            rounds = len(begun)
            wait_until("the next watch", lambda rounds=rounds: len(begun) > rounds, LIMIT)  # type: ignore[misc]
            api.patch(CONFIG_MAPS, namespace, "one", {"data": {"value": value}})
            assert told.until_value(value) == [("one", value)]
    assert sleeper.errors == []
