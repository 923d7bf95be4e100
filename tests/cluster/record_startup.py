"""Records what an API server says while MiniClusters come up, for tests/unit/test_startup_recorded.py.

    python -m tests.cluster.record_startup tests/unit/startup_streams

One file for each case, one line for each change: seconds, kind, and of the object what `executors.kube.objects` says is
read. Names, uids and addresses are replaced.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints, is_typeddict

from executors import ProvisionError, RunId
from executors.kube.api import EVENTS, JOBS, PODS
from executors.kube.objects import Event, Job, Pod
from executors.names import run_name
from executors.provision.kubernetes import diagnosis
from executors.provision.kubernetes.target import Target
from executors.provision.kubernetes.watching import Change, Listed, Wanted
from tests.cluster.runs import LIMIT, Runs, spec
from tests.cluster.testbed.cluster import Cluster
from tests.cluster.testbed.waiting import wait_until

NAME = "snakemake-9f2c61d0aa"
_TYPES: dict[str, Any] = {JOBS.plural: Job, PODS.plural: Pod, EVENTS.plural: Event}
#: Of these mappings, what a start is judged by.
_KEPT = {"annotations": {diagnosis.INDEX}, "labels": {"job-name", diagnosis.QUEUE_LABEL}}
#: Read by others than those that judge a start.
_LEFT_OUT = {"namespace", "resourceVersion", "generation", "managedFields", "podFailurePolicy", "parallelism", "env"}


def reduced(value: Any, kind: Any) -> Any:
    """The fields of a value that its type has."""
    if is_typeddict(kind):
        hints = get_type_hints(kind)
        kept = {name: inner for name, inner in value.items() if name in hints and name not in _LEFT_OUT}
        for name in kept.keys() & _KEPT.keys():
            kept[name] = {one: text for one, text in kept[name].items() if one in _KEPT[name]}
        return {name: reduced(inner, hints[name]) for name, inner in kept.items() if inner not in (None, {})}
    if get_origin(kind) is list:
        return [reduced(one, get_args(kind)[0]) for one in value]
    return value


class Recording:
    """Of one MiniCluster, from when it is `running`. Changes are taken by a thread."""

    def __init__(self, runs: Runs, run_id: str) -> None:
        self._runs = runs
        self.name = run_name(RunId("test", run_id))
        self._target = Target(runs.config().run, self.name)
        self._lines: list[dict[str, Any]] = []
        self._done = threading.Event()

    @contextmanager
    def running(self) -> Iterator[None]:
        thread = threading.Thread(target=self._record)
        thread.start()
        try:
            yield
            time.sleep(1.0)  # what still follows
        finally:
            self._done.set()
            thread.join()

    def _record(self) -> None:
        began = time.monotonic()
        wanted = [self._target.watched_pods(), Wanted(EVENTS), self._target.watched(JOBS)]
        with self._target.watch(wanted) as watcher:
            for change in watcher.changes(lambda: time.monotonic() + 0.2):
                if self._done.is_set():
                    return
                if change is not None:
                    self._lines.append({"at": round(time.monotonic() - began, 3), **_line(change)})

    def wait(self, what: str, holds: Callable[[list[dict[str, Any]]], bool]) -> None:
        """Until it has recorded that."""
        wait_until(what, lambda: holds(list(self._lines)), LIMIT)

    def write(self, path: Path) -> None:
        text = "".join(json.dumps(line) + "\n" for line in self._lines)
        for word, other in {
            self.name: NAME,
            self._runs.namespace: "science",
            self._runs.image: "registry.example/app:1",
            "localhost": "registry.example",
        }.items():
            text = text.replace(word, other)
        nodes = sorted(set(re.findall(r'"nodeName": "([^"]+)"', text)))
        for number, node in enumerate(nodes, 1):
            text = re.sub(rf"\b{re.escape(node)}\b", f"node-{number}", text)
        uids = dict.fromkeys(re.findall(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", text))
        for number, uid in enumerate(uids, 1):
            text = text.replace(uid, f"uid-{number}")
        path.write_text(re.sub(r"\b\d+\.\d+\.\d+\.\d+(:\d+)?\b", "192.0.2.1", text))


def _line(change: Change | Listed) -> dict[str, Any]:
    kind = change.kind.plural
    if isinstance(change, Listed):
        return {"kind": kind, "listed": change.count}
    more = {"deleted": True} if change.deleted else {}
    return {"kind": kind, **more, "object": reduced(change.object, _TYPES[kind])}


def brokers_that_run(lines: list[dict[str, Any]]) -> set[str]:
    """Uids of pods, by what was recorded last of each."""
    last = {line["object"]["metadata"]["uid"]: line for line in lines if line["kind"] == "pods" and "object" in line}
    return {
        uid
        for uid, line in last.items()
        if not line.get("deleted")
        and "deletionTimestamp" not in line["object"]["metadata"]
        and any("running" in one.get("state", {}) for one in line["object"]["status"].get("containerStatuses", []))
    }


def record_good_start_and_lost_follower(runs: Runs, directory: Path) -> None:
    good = Recording(runs, "good")
    with good.running():
        session = runs.open(spec(runs.image, size=2), run_id="good")
        good.wait("two brokers", lambda lines: len(brokers_that_run(lines)) == 2)
    good.write(directory / "good.jsonl")

    lost = Recording(runs, "good")
    with lost.running():
        lost.wait("two brokers", lambda lines: len(brokers_that_run(lines)) == 2)
        pod = runs.pod(session.run_name, 1)["metadata"]
        runs.bed.kubectl("delete", "pod", pod["name"], f"--namespace={runs.namespace}", "--wait=false")
        lost.wait("it to be replaced", lambda lines: len(brokers_that_run(lines) - {pod["uid"]}) == 2)
    lost.write(directory / "follower-lost.jsonl")


def record_no_image(runs: Runs, directory: Path) -> None:
    recording = Recording(runs, "no-image")
    with recording.running(), suppress(ProvisionError):
        runs.open(spec("localhost/no-such-image:1", size=2), run_id="no-image")
    recording.write(directory / "no-image.jsonl")


def record_no_room(runs: Runs, directory: Path) -> None:
    too_much = {"resources": {"requests": {"cpu": "64"}}}
    recording = Recording(runs, "no-room")
    with recording.running(), suppress(ProvisionError):
        runs.open(spec(runs.image, size=2, container=too_much), run_id="no-room", scheduleTimeout=3)
    recording.write(directory / "no-room.jsonl")


def main(directory: str) -> None:
    with Cluster() as cluster, tempfile.TemporaryDirectory() as configs:
        for record in (record_good_start_and_lost_follower, record_no_image, record_no_room):
            runs = Runs(cluster, cluster.create_namespace(), Path(configs), cluster.image.name)
            try:
                record(runs, Path(directory))
            finally:
                runs.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
