"""Our Flux Operator on a real Kubernetes: from a MiniCluster to its output and to its end, and what many of them cost.

Needs what tests/cluster needs. Upstream's operator is measured beside ours where FLUXOP_TEST_CRD and
FLUXOP_TEST_OPERATOR name it.
"""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from bench import bare
from bench.common import NotHere, Row
from tests.cluster.operators import installed, operator_program, wait_for_leader
from tests.cluster.testbed.cluster import Cluster
from tests.cluster.testbed.missing import Missing

_PAIRS = 9
_ENDS = 5
_MANY = 200
_LIMIT = 120.0
#: Seconds for which a controller is looked at that has nothing to do.
_IDLE = 60.0
_PATH = "/apis/flux-framework.org/v1alpha2/namespaces/{}/miniclusters"


def measure_operator() -> list[Row]:
    """Starts, ends, and two hundred at once."""
    try:
        bed = Cluster()
    except Missing as reason:
        raise NotHere(str(reason)) from None
    with bed as cluster, tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o777)
        namespace = cluster.create_namespace(labels={})
        with _controller(cluster, directory):
            rows = _starts(cluster, namespace, directory)
            rows.append(_deletion(cluster, namespace, directory))
            rows += _many(cluster)
        return rows


@contextlib.contextmanager
def _controller(cluster: Cluster, directory: Path) -> Iterator[None]:
    with installed(cluster, directory) as kubeconfig:
        program = operator_program(cluster, kubeconfig)
        program.start()
        try:
            wait_for_leader(cluster)
            yield
        finally:
            program.stop()


def _resource(cluster: Cluster, name: str, command: str, **more: Any) -> dict[str, Any]:
    volumes = more.pop("volumes", {})
    container = {
        "image": cluster.image.name,
        "command": command,
        "resources": {"requests": {"cpu": "100m"}},
        **({"volumes": volumes} if volumes else {}),
    }
    return {
        "apiVersion": "flux-framework.org/v1alpha2",
        "kind": "MiniCluster",
        "metadata": {"name": name},
        "spec": {
            "size": 2,
            "logging": {"quiet": True},
            "flux": {"container": {"disable": True}},
            "containers": [container],
            **more,
        },
    }


def _until(condition: Callable[[], bool], what: str, pause: float = 0.01) -> None:
    deadline = time.monotonic() + _LIMIT
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what}: not within {_LIMIT:g} s")
        time.sleep(pause)  # asked for by a person's kubectl, so to speak


def _starts(cluster: Cluster, namespace: str, directory: Path) -> list[Row]:
    """Ours and the bare Job in turn: to the first output, and ours from there to the condition Completed."""
    path = _PATH.format(namespace)

    def ours() -> tuple[float, float]:
        name = f"ours-{uuid.uuid4().hex[:8]}"
        volumes = {"out": {"hostPath": str(directory), "path": "/out"}}
        command = f"sh -c 'hostname >/out/{name}'"
        begin = time.monotonic()
        cluster.api.post(path, _resource(cluster, name, command, volumes=volumes))
        bare.wait_for_file(directory / name)
        first = time.monotonic()

        def completed() -> bool:
            conditions = cluster.api.get(f"{path}/{name}").get("status", {}).get("conditions", [])
            return any(one["type"] == "Completed" and one["status"] == "True" for one in conditions)

        _until(completed, "Completed")
        end = time.monotonic()
        cluster.kubectl("delete", f"minicluster/{name}", f"--namespace={namespace}")
        selector = (f"--selector=job-name={name}", f"--namespace={namespace}", f"--timeout={_LIMIT:g}s")
        cluster.kubectl("wait", "pods", "--for=delete", *selector)
        return first - begin, end - first

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


def _deletion(cluster: Cluster, namespace: str, directory: Path) -> Row:
    """While a job traps TERM and writes its file for a second."""
    path = _PATH.format(namespace)
    script = directory / "trap.sh"
    script.write_text('echo up >"$1"\ntrap "sleep 1; echo tidy >$1.tidy; exit" TERM\nsleep 600 &\nwait\n')
    script.chmod(0o755)
    times = []
    for _ in range(_ENDS):
        name = f"trap-{uuid.uuid4().hex[:8]}"
        volumes = {"out": {"hostPath": str(directory), "path": "/out"}}
        cluster.api.post(path, _resource(cluster, name, f"sh /out/trap.sh /out/{name}", volumes=volumes))
        bare.wait_for_file(directory / name)
        begin = time.monotonic()
        cluster.kubectl("delete", f"minicluster/{name}", f"--namespace={namespace}", "--wait=false")
        selector = (f"--selector=job-name={name}", f"--namespace={namespace}", f"--timeout={_LIMIT:g}s")
        cluster.kubectl("wait", "pods", "--for=delete", *selector)
        times.append(time.monotonic() - begin)
        if not (directory / f"{name}.tidy").exists():
            raise RuntimeError("the job could not write its file")
    middle = statistics.median(times)
    what = "our Flux Operator: deleted while a job traps TERM and writes for 1 s -> all pods gone"
    return Row(what, f"{middle:.1f} s", "<= 3 s", middle <= 3, [f"{min(times):.1f}-{max(times):.1f} s"])


def _process() -> psutil.Process:
    """The controller's. Programs of the bed have a pid namespace of their own, with a program in between."""
    for one in psutil.process_iter(["cmdline"]):
        words = one.info["cmdline"] or []
        if any(word.endswith("/flux-operator") for word in words[:2]) and "run" in words:
            return one
    raise RuntimeError("the controller does not run")


def _many(cluster: Cluster) -> list[Row]:
    """Of 2 pods each, which no node takes."""
    namespace = cluster.create_namespace(labels={})
    path = _PATH.format(namespace)
    process = _process()
    before = process.memory_info().rss
    begin = time.monotonic()
    for number in range(_MANY):
        pod = {"nodeSelector": {"bench": "nowhere"}}
        cluster.api.post(path, _resource(cluster, f"many-{number}", "true", pod=pod))
    posted = time.monotonic() - begin
    jobs = f"/apis/batch/v1/namespaces/{namespace}/jobs"
    _until(lambda: len(cluster.api.get(jobs)["items"]) == _MANY, "a Job for each", 0.2)
    seconds = time.monotonic() - begin
    time.sleep(15.0)  # the pods are made, and the statuses written
    memory = process.memory_info().rss
    used = sum(process.cpu_times()[:2])
    time.sleep(_IDLE)
    share = (sum(process.cpu_times()[:2]) - used) / _IDLE
    cluster.kubectl("delete", "miniclusters", "--all", f"--namespace={namespace}", "--wait=false")
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
