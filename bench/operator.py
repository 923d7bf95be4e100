"""Our Flux Operator on a real Kubernetes: from a MiniCluster to its output and to its end, and what many of them cost.

Needs what tests/cluster needs. Upstream's operator is measured beside ours where FLUXOP_TEST_OPERATOR names it.
"""

from __future__ import annotations

import itertools
import os
import statistics
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from bench import bare
from bench.common import NotHere, Row, until
from bench.kubernetes import bed
from tests.cluster.operators import installed, operator_program, running
from tests.cluster.testbed.cluster import Cluster
from tests.cluster.testbed.control_plane import ControlPlane
from tests.cluster.testbed.keeper import MARK
from tests.cluster.testbed.processes import Program

_PAIRS = 12
_ENDS = 5
#: Of the two operators, only one of which can run at a time: how often each has its turn, and starts in one.
_TURNS, _IN_TURN = 3, 4
#: Seconds to wait before each start: a kubelet looks at its pods once a second, and the one before has gone at a
#: certain moment of its second.
_MOMENTS = itertools.cycle([0.0, 0.25, 0.5, 0.75])
_MANY = 200
_LIMIT = 120.0
#: Seconds for which a controller is looked at that has nothing to do.
_IDLE = 60.0
#: Seconds for which a MiniCluster has run that is deleted.
_SETTLED = 4.0
PATH = "/apis/flux-framework.org/v1alpha2/namespaces/{}/miniclusters"


def measure_operator() -> list[Row]:
    """Starts, ends, and two hundred at once."""
    with bed() as (cluster, namespace, directory), running(cluster, directory):
        rows = _starts(cluster, namespace, directory)
        rows.append(_deletion(cluster, namespace, directory))
        return [*rows, *_many(cluster)]


def measure_upstream() -> list[Row]:
    """Ours and upstream's in turn, each for a few starts and a deletion; and the many of each."""
    with bed() as (cluster, namespace, directory), installed(cluster, directory) as kubeconfig:
        programs = _both(cluster, kubeconfig)
        starts: dict[str, list[float]] = {one: [] for one in programs}
        ends: dict[str, list[float]] = {one: [] for one in programs}
        jobs: dict[str, float] = {}
        for one, is_counted in _turns(programs):
            first = [_first_output(cluster, namespace, directory) for _ in range(_IN_TURN)]
            if is_counted:
                starts[one] += first
                ends[one].append(_deletion_of_one(cluster, namespace, directory, ours=one == "ours"))
        for one, program in programs.items():
            program.start()
            _first_output(cluster, namespace, directory)
            many = cluster.create_namespace(labels={})
            jobs[one] = _jobs_of_many(cluster, many)[0]
            delete_all(cluster, many)
            program.stop()
    end = {one: statistics.median(ends[one]) for one in programs}
    return [
        _start_row(
            "the same MiniCluster of 2, ours against upstream's Flux Operator: applied -> its command's output", starts
        ),
        Row(
            f"the same: deleted after {_SETTLED:g} s, while a job traps TERM and writes for 1 s -> all pods gone",
            f"{end['ours']:.1f} s against {end['upstream']:.1f} s",
            "<= 3 s",
            end["ours"] <= 3,
        ),
        Row(
            f"the same: {_MANY} MiniClusters of 2 at once: all have Jobs",
            f"{jobs['ours']:.1f} s against {jobs['upstream']:.1f} s",
            "not slower",
            jobs["ours"] <= jobs["upstream"],
        ),
    ]


def measure_remembering_dns() -> list[Row]:
    """The starts of both where the pods' DNS remembers for half a minute that a name does not exist."""
    os.environ["FLUXOP_TEST_DNS"] = "caching"
    try:
        with bed() as (cluster, namespace, directory), installed(cluster, directory) as kubeconfig:
            programs = _both(cluster, kubeconfig)
            starts: dict[str, list[float]] = {one: [] for one in programs}
            for one, is_counted in _turns(programs):
                first = [_first_output(cluster, namespace, directory) for _ in range(2)]
                starts[one] += first if is_counted else []
    finally:
        del os.environ["FLUXOP_TEST_DNS"]
    where = "where the cluster's DNS remembers for 30 s that a name does not exist"
    what = f"MiniCluster of 2 {where}, ours against upstream's Flux Operator: applied -> its command's output"
    return [_start_row(what, starts)]


def _both(cluster: Cluster, kubeconfig: Path) -> dict[str, Program]:
    if cluster.operator is None:
        raise NotHere("upstream's Flux Operator, named by FLUXOP_TEST_OPERATOR")
    return {"ours": operator_program(cluster, kubeconfig), "upstream": cluster.operator_program()}


def _turns(programs: dict[str, Program]) -> Iterator[tuple[str, bool]]:
    """Each operator's turns, in which it alone runs; the first of each is for caches, and not counted."""
    for round_ in range(_TURNS + 1):
        for one, program in programs.items():
            program.start()
            yield one, round_ > 0
            program.stop()


def _start_row(what: str, starts: dict[str, list[float]]) -> Row:
    ours, upstream = statistics.median(starts["ours"]), statistics.median(starts["upstream"])
    notes = ["; ".join(f"{one} {min(found):.1f}-{max(found):.1f} s" for one, found in starts.items())]
    measured = f"{ours:.2f} s against {upstream:.2f} s: {ours / upstream:.2f}x"
    return Row(what, measured, "<= 0.45x", ours <= 0.45 * upstream, notes)


def resource(image: str, name: str, command: str, *, size: int = 2, **more: Any) -> dict[str, Any]:
    """A MiniCluster that both operators take."""
    volumes = more.pop("volumes", {})
    container = {
        "image": image,
        "command": command,
        "resources": {"requests": {"cpu": "100m"}},
        **({"volumes": volumes} if volumes else {}),
    }
    return {
        "apiVersion": "flux-framework.org/v1alpha2",
        "kind": "MiniCluster",
        "metadata": {"name": name},
        "spec": {
            "size": size,
            "logging": {"quiet": True},
            # Upstream's init container runs all the same, and needs a shell only.
            "flux": {"container": {"disable": True, "image": image}},
            "containers": [container],
            **more,
        },
    }


def _starts(cluster: Cluster, namespace: str, directory: Path) -> list[Row]:
    """Ours and the bare Job in turn: to the first output, and ours from there to the condition Completed."""
    path = PATH.format(namespace)

    def ours() -> tuple[float, float]:
        ends: list[float] = []

        def completed(name: str) -> None:
            first = time.monotonic()

            def is_completed() -> bool:
                conditions = cluster.api.get(f"{path}/{name}").get("status", {}).get("conditions", [])
                return any(one["type"] == "Completed" and one["status"] == "True" for one in conditions)

            until(is_completed, "Completed")
            ends.append(time.monotonic() - first)

        return _first_output(cluster, namespace, directory, completed), ends[0]

    ours()  # once for caches
    bare.first_output(cluster, namespace, directory)
    rounds = [(*ours(), bare.first_output(cluster, namespace, directory)) for _ in range(_PAIRS)]
    starts, ends, hands = ([one[column] for one in rounds] for column in range(3))
    start, end, hand = map(statistics.median, (starts, ends, hands))
    note = f"{min(starts):.1f}-{max(starts):.1f} s, by hand {min(hands):.1f}-{max(hands):.1f} s"
    return [
        Row(
            "our Flux Operator, MiniCluster of 2: applied -> its command's output, against a hand-written Job",
            f"{start:.2f} s against {hand:.2f} s: {start - hand:+.2f} s",
            "<= 1 s on top",
            start - hand <= 1,
            [note],
        ),
        Row(
            "our Flux Operator: the command's output -> Completed",
            f"{end:.2f} s",
            "<= 0.5 s",
            end <= 0.5,
            [f"{min(ends):.2f}-{max(ends):.2f} s"],
        ),
    ]


def _first_output(
    cluster: Cluster, namespace: str, directory: Path, then: Callable[[str], None] = lambda _: None
) -> float:
    """Seconds from a MiniCluster to what its command has written; ``then`` is called with its name, and it goes."""
    name = f"first-{uuid.uuid4().hex[:8]}"
    volumes = {"out": {"hostPath": str(directory), "path": "/out"}}
    applied = resource(cluster.image.name, name, f"cp /etc/hostname /out/{name}", volumes=volumes)
    time.sleep(next(_MOMENTS))
    begin = time.monotonic()
    cluster.api.post(PATH.format(namespace), applied)
    bare.wait_for_file(directory / name)
    seconds = time.monotonic() - begin
    then(name)
    # In the foreground, upstream's operator would make again what goes before its resource.
    cluster.kubectl("delete", f"minicluster/{name}", "--cascade=background", f"--namespace={namespace}")
    _wait_for_no_pods(cluster, namespace, name)
    return seconds


def _wait_for_no_pods(cluster: Cluster, namespace: str, name: str) -> None:
    selector = (f"--selector=job-name={name}", f"--namespace={namespace}", f"--timeout={_LIMIT:g}s")
    cluster.kubectl("wait", "pods", "--for=delete", *selector)


def _deletion(cluster: Cluster, namespace: str, directory: Path) -> Row:
    times = [_deletion_of_one(cluster, namespace, directory) for _ in range(_ENDS)]
    middle = statistics.median(times)
    what = (
        f"our Flux Operator: deleted after {_SETTLED:g} s, while a job traps TERM and writes for 1 s -> all pods gone"
    )
    return Row(what, f"{middle:.1f} s", "<= 3 s", middle <= 3, [f"{min(times):.1f}-{max(times):.1f} s"])


def _deletion_of_one(cluster: Cluster, namespace: str, directory: Path, *, ours: bool = True) -> float:
    """Seconds, while a job traps TERM and writes its file for one; of which nothing comes with upstream's."""
    script = directory / "trap.sh"
    script.write_text('echo up >"$1"\ntrap "sleep 1; echo tidy >$1.tidy; exit" TERM\nsleep 600 &\nwait\n')
    script.chmod(0o755)
    name = f"trap-{uuid.uuid4().hex[:8]}"
    volumes = {"out": {"hostPath": str(directory), "path": "/out"}}
    applied = resource(cluster.image.name, name, f"sh /out/trap.sh /out/{name}", volumes=volumes)
    cluster.api.post(PATH.format(namespace), applied)
    bare.wait_for_file(directory / name)
    # A kubelet looks at a pod once a second; one that has just begun is looked at twice before it is told to end.
    time.sleep(_SETTLED)
    begin = time.monotonic()
    cluster.kubectl("delete", f"minicluster/{name}", "--cascade=background", f"--namespace={namespace}", "--wait=false")
    _wait_for_no_pods(cluster, namespace, name)
    seconds = time.monotonic() - begin
    if ours and not (directory / f"{name}.tidy").exists():
        raise RuntimeError("the job could not write its file")
    return seconds


def controller_process(cluster: ControlPlane) -> psutil.Process:
    """The controller's. Programs of a bed may have a pid namespace of their own, with a program in between."""
    for one in psutil.process_iter(["cmdline"]):
        words = one.info["cmdline"] or []
        if not any(word.endswith("/flux-operator") for word in words[:2]) or "run" not in words:
            continue
        if one.environ().get(MARK) == str(cluster.directory):
            return one
    raise RuntimeError("the controller does not run")


def _many(cluster: Cluster) -> list[Row]:
    process = controller_process(cluster)
    before = process.memory_info().rss
    namespace = cluster.create_namespace(labels={})
    seconds, posted = _jobs_of_many(cluster, namespace)
    time.sleep(15.0)  # the pods are made, and the statuses written
    memory = process.memory_info().rss
    used = sum(process.cpu_times()[:2])
    time.sleep(_IDLE)
    share = (sum(process.cpu_times()[:2]) - used) / _IDLE
    delete_all(cluster, namespace)
    mib = 2**20
    return [
        Row(
            f"our Flux Operator, {_MANY} MiniClusters of 2 at once: all have Jobs",
            f"{seconds:.1f} s ({posted:.1f} s of it to create them)",
            "",
            None,
        ),
        Row(
            f"the same: the controller's memory with {_MANY} MiniClusters",
            f"{memory / mib:.0f} MiB (before: {before / mib:.0f})",
            "<= 150 MB",
            memory <= 150e6,
        ),
        Row(
            f"the same: processor of {_MANY} MiniClusters in which nothing happens, {_IDLE:g} s",
            f"{share:.2%} of a core",
            "<= 1 %",
            share <= 0.01,
        ),
    ]


def delete_all(cluster: ControlPlane, namespace: str) -> None:
    """MiniClusters, and no more than begin to: nothing of this is measured."""
    cluster.kubectl(
        "delete", "miniclusters", "--all", "--cascade=background", f"--namespace={namespace}", "--wait=false"
    )


def _jobs_of_many(cluster: Cluster, namespace: str) -> tuple[float, float]:
    """Seconds until all of them, of 2 pods each that no node takes, have a Job; of these to create them."""
    path = PATH.format(namespace)
    begin = time.monotonic()
    for number in range(_MANY):
        pod = {"nodeSelector": {"bench": "nowhere"}}
        cluster.api.post(path, resource(cluster.image.name, f"many-{number}", "true", pod=pod))
    posted = time.monotonic() - begin
    jobs = f"/apis/batch/v1/namespaces/{namespace}/jobs"
    until(lambda: len(cluster.api.get(jobs)["items"]) == _MANY, "a Job for each", 0.2)
    return time.monotonic() - begin, posted
