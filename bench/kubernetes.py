"""One MiniCluster per run on a real Kubernetes: start, end, requests, rate. Needs what tests/cluster needs.

Upstream's operator is measured beside direct mode where FLUXOP_TEST_CRD and FLUXOP_TEST_OPERATOR name it.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench import bare, kubernetes_rules
from bench.common import NotHere, Row
from executors import JobRequest, RunConfig, RunId, Session, load_config, open_session
from tests.cluster.runs import KINDS, spec, write_config
from tests.cluster.testbed.cluster import Cluster
from tests.cluster.testbed.missing import Missing

_REPEATS = 5
#: More: now and then a kubelet waits a second or two for a ConfigMap, no matter who made it.
_STARTS = 9
_LIMIT = 300.0


def measure_kubernetes() -> list[Row]:
    """Sessions: start, end, requests, rate."""
    with bed() as (cluster, namespace, directory):
        rows = _start(cluster, namespace, directory)
        rows += _end(cluster, namespace, directory)
        rows += _requests(cluster, namespace, directory)
        rows.append(_rate(cluster, namespace, directory))
        return rows


def measure_kubernetes_rules() -> list[Row]:
    """Snakemake's rules: their rate against others, and when it hears of their end."""
    with bed() as (cluster, namespace, directory):
        container = {
            "resources": {"requests": {"cpu": "1500m"}},
            "volumes": {"work": {"hostPath": str(directory), "path": str(directory)}},
        }
        config = directory / "rules.yaml"
        given = {"kubeconfig": str(cluster.kubeconfig), "provisioner": "direct", "namespace": namespace}
        write_config(config, spec(cluster.image.name, container=container), **given)
        # First: the node is still busy with the other way's pods for a while after they are deleted.
        latency = kubernetes_rules.latency(directory, config)
        return [*kubernetes_rules.rates(cluster, namespace, directory, config), latency]


@contextlib.contextmanager
def bed() -> Iterator[tuple[Cluster, str, Path]]:
    """A cluster, a namespace, and a directory that everybody may write to, pods that mount it too."""
    try:
        started = Cluster()
    except Missing as reason:
        raise NotHere(str(reason)) from None
    with started as cluster, tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o777)
        yield cluster, cluster.create_namespace(labels={}), Path(directory)


def _config(cluster: Cluster, namespace: str, directory: Path, provisioner: str = "direct", **more: Any) -> RunConfig:
    given = {"kubeconfig": str(cluster.kubeconfig), "provisioner": provisioner, "namespace": namespace}
    file = write_config(directory / "run.yaml", spec(cluster.image.name, **more), **given)
    return load_config(file, environ={})


def _open(config: RunConfig) -> Session:
    return open_session(RunId("bench", uuid.uuid4().hex[:8]), config, environ={})


def _first_result(config: RunConfig) -> float:
    """Seconds from asking for a run to the result of its first job."""
    begin = time.monotonic()
    with _open(config) as session:
        [handle] = session.submit([JobRequest(argv=["hostname"])])
        assert handle.result(_LIMIT).ok
        return time.monotonic() - begin


def _start(cluster: Cluster, namespace: str, directory: Path) -> list[Row]:
    """Ours, the bare Job and upstream's operator in turn."""
    # Nobody's pods are held below what the node has, nor the others'.
    resources = {"resources": {"requests": {"cpu": "100m"}}}
    direct = _config(cluster, namespace, directory, size=2, container=resources)
    ways: dict[str, Callable[[], float]] = {
        "direct": lambda: _first_result(direct),
        "bare": lambda: bare.first_output(cluster, namespace, directory),
    }
    with contextlib.ExitStack() as stack:
        if cluster.crd is not None and cluster.operator is not None:
            cluster.install_crd(cluster.crd)
            stack.callback(cluster.start_operator().stop)
            through = _config(cluster, namespace, directory, "operator", size=2, container=resources)
            ways["operator"] = lambda: _first_result(through)
            ways["a command by upstream"] = lambda: bare.first_of_upstream(cluster, namespace, directory)
        for way in ways.values():
            way()  # once for imports and caches
        rounds = [{name: way() for name, way in ways.items()} for _ in range(_STARTS)]
    times = {name: [one[name] for one in rounds] for name in ways}
    middle = {name: statistics.median(found) for name, found in times.items()}
    notes = ["; ".join(f"{name} {min(found):.1f}-{max(found):.1f} s" for name, found in times.items())]
    ours, hand = middle["direct"], middle["bare"]
    what = "MiniCluster of 2, image there: asked for -> first job's result"
    if "operator" in middle:
        ratio = ours / middle["operator"]
        measured = f"direct {ours:.2f} s, operator {middle['operator']:.2f} s: {ratio:.2f}x"
        first = Row(what, measured, "<= 0.4x", ratio <= 0.4, notes)
    else:
        first = Row(what, f"direct {ours:.2f} s", "<= 0.4x of upstream's operator", None, [*notes, "no operator here"])
    return [
        first,
        Row(
            "MiniCluster of 2 against a hand-written Job of 2 brokers without agent: created -> first output",
            f"{ours:.2f} s against {hand:.2f} s: {ours - hand:+.2f} s",
            "<= 1 s on top",
            ours - hand <= 1,
        ),
    ]


def _end(cluster: Cluster, namespace: str, directory: Path) -> list[Row]:
    """With a job that needs TERM to write its file: ended by its session, and by somebody who deletes the Job."""
    volume = {"work": {"hostPath": str(directory), "path": "/results"}}
    config = _config(cluster, namespace, directory, size=2, container={"volumes": volume})

    def once(*, deleted: bool) -> float:
        file = directory / uuid.uuid4().hex
        script = 'echo up; trap "sleep 0.2; echo tidy >/results/$0; exit" TERM; sleep 600 & wait'
        session = _open(config)
        [handle] = session.submit([JobRequest(argv=["sh", "-c", script, file.name])])
        next(handle.output())
        begin = time.monotonic()
        if deleted:
            cluster.kubectl(
                "delete", "job", session.run_name, "--cascade=foreground", "--wait", f"--namespace={namespace}"
            )
        else:
            session.close()
        seconds = time.monotonic() - begin
        session.leave()  # does nothing where it is closed
        assert file.read_text() == "tidy\n"
        left = cluster.left_in(namespace, *KINDS)
        assert not left, left
        return seconds

    rounds = [(once(deleted=False), once(deleted=True)) for _ in range(_REPEATS)]
    rows = []
    for how, times in zip(("closed by its session", "its Job deleted"), zip(*rounds, strict=True), strict=True):
        median = statistics.median(times)
        rows.append(
            Row(
                f"end of a run whose job traps TERM and writes a file: {how} -> file there, nothing left",
                f"{median:.2f} s",
                "<= 2.5 s",
                median <= 2.5,
                [f"{min(times):.1f}-{max(times):.1f} s"],
            )
        )
    return rows


def _requests(cluster: Cluster, namespace: str, directory: Path) -> list[Row]:
    counts = []
    for jobs in (10, 1000):
        before = len(cluster.audit_events())
        with _open(_config(cluster, namespace, directory)) as session:
            handles = session.submit([JobRequest(argv=["true"]) for _ in range(jobs)])
            assert all(handle.result(_LIMIT).ok for handle in handles)
        events = cluster.audit_events()[before:]
        ours = [
            one for one in events if "system:" not in one["user"]["username"] and one["stage"] == "ResponseComplete"
        ]
        counts.append(len(ours))
    few, many = counts
    what = "API requests of a run (audit log) with 10 and with 1,000 jobs"
    return [Row(what, f"{few} and {many}", "the same, <= 40", few == many <= 40)]


def _rate(cluster: Cluster, namespace: str, directory: Path) -> Row:
    def rate(config: RunConfig, environ: dict[str, str]) -> float:
        with open_session(RunId("bench", uuid.uuid4().hex[:8]), config, environ=environ) as session:
            # 220 less 20: what a job costs once a run is under way.
            times = []
            for jobs in (20, 220):
                begin = time.monotonic()
                handles = session.submit([JobRequest(argv=["true"]) for _ in range(jobs)])
                assert all(handle.result(_LIMIT).ok for handle in handles)
                times.append(time.monotonic() - begin)
            return 200 / (times[1] - times[0])

    environ = {k: v for k, v in os.environ.items() if not k.startswith("FLUX_")}
    here = load_config(environ=environ, options={"run.provisioner": "local", "run.engine": "flux"})
    container = {"resources": {"requests": {"cpu": "1500m"}}}
    there = _config(cluster, namespace, directory, container=container)
    pairs = [(rate(there, {}), rate(here, environ)) for _ in range(3)]
    ratios = [one / other for one, other in pairs]
    direct, local = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(ratios)
    return Row(
        "`true` jobs through a session, one pod, marginal rate, against the same Flux without Kubernetes",
        f"{direct:.1f} against {local:.1f} jobs/s: {ratio:.2f}x",
        ">= 0.85x",
        ratio >= 0.85,
    )
