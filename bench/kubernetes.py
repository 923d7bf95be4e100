"""One MiniCluster per run on a real Kubernetes: start, end, requests, rate. Needs what tests/cluster needs.

Upstream's operator is measured beside direct mode where FLUXOP_TEST_CRD and FLUXOP_TEST_OPERATOR name it.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

from bench.common import NotHere, Row
from executors import JobRequest, RunConfig, RunId, Session, load_config, open_session
from tests.cluster.runs import spec, write_config
from tests.cluster.testbed.cluster import Cluster
from tests.cluster.testbed.missing import Missing

_REPEATS = 5
_LIMIT = 300.0


def measure_kubernetes() -> list[Row]:
    try:
        bed = Cluster()
    except Missing as reason:
        raise NotHere(str(reason)) from None
    with bed as cluster, tempfile.TemporaryDirectory() as directory:
        namespace = cluster.create_namespace(labels={})
        rows = _start(cluster, namespace, Path(directory))
        rows.append(_end(cluster, namespace, Path(directory)))
        rows += _requests(cluster, namespace, Path(directory))
        rows.append(_rate(cluster, namespace, Path(directory)))
        return rows


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
    direct = _config(cluster, namespace, directory, size=2)
    _first_result(direct)  # once for imports and caches
    times = [_first_result(direct) for _ in range(_REPEATS)]
    ours = statistics.median(times)
    note = f"{min(times):.1f}-{max(times):.1f} s"
    what = "MiniCluster of 2, image there: asked for -> first job's result"
    if cluster.crd is None or cluster.operator is None:
        return [Row(what, f"direct {ours:.2f} s", "<= 0.4x of upstream's operator", None, [note, "no operator here"])]
    cluster.install_crd(cluster.crd)
    program = cluster.start_operator()
    try:
        through = _config(cluster, namespace, directory, "operator", size=2)
        _first_result(through)
        theirs = statistics.median(_first_result(through) for _ in range(_REPEATS))
    finally:
        program.stop()
    measured = f"direct {ours:.2f} s, operator {theirs:.2f} s: {ours / theirs:.2f}x"
    return [Row(what, measured, "<= 0.4x", ours / theirs <= 0.4, [note])]


def _end(cluster: Cluster, namespace: str, directory: Path) -> Row:
    times = []
    script = "echo up; trap 'sleep 0.2; echo tidy; exit' TERM; sleep 600 & wait"
    for _ in range(_REPEATS):
        session = _open(_config(cluster, namespace, directory, size=2))
        [handle] = session.submit([JobRequest(argv=["sh", "-c", script])])
        next(handle.output())
        begin = time.monotonic()
        session.close()
        times.append(time.monotonic() - begin)
    median = statistics.median(times)
    note = f"{min(times):.1f}-{max(times):.1f} s"
    return Row(
        "end of a run whose job traps TERM: closed -> nothing left",
        f"{median:.2f} s",
        "<= 2.5 s",
        median <= 2.5,
        [note],
    )


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
