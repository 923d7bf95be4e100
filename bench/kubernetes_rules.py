"""Trivial Snakemake rules in a MiniCluster: their rate against a pod for each and against Flux alone; reporting."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.common import ROOT, TRIVIAL, Row, environment, percentile, run
from executors.kube import ClusterAccess, connect
from executors.kube.api import PODS
from executors.provision.kubernetes.watching import Change, ResourceWatcher, Wanted
from tests.cluster.testbed.cluster import Cluster

_REPEATS = 3
_LIMIT = 300.0
#: All but the source cache, which is in a home directory that the pods do not have.
SHARED = ["--shared-fs-usage", "persistence", "input-output", "sources", "software-deployment", "storage-local-copies"]
#: So few and so many of each kind: a node that has many pods to start at once starts each more slowly.
_COUNTS = (20, 220)


def rates(cluster: Cluster, namespace: str, directory: Path, config: Path) -> list[Row]:
    """Ours and Flux alone in turn, then pods; each time for few and for many."""

    def kubernetes(jobs: int) -> float:
        return _rules(jobs, directory, "--flux-operator-config", str(config), *SHARED, env=environment())

    def local(jobs: int) -> float:
        env = environment(FLUX_OPERATOR_ENGINE="flux")
        env.pop("FLUX_URI", None)
        return _rules(jobs, directory, "--flux-operator-provisioner", "local", env=env)

    def pods(count: int) -> float:
        return pod_seconds(cluster, namespace, directory, count)

    for way in (kubernetes, local, pods):
        way(1)  # once for caches
    rounds = [(_once(kubernetes), _once(local)) for _ in range(_REPEATS)]
    # After ours: a node is busy for a while after so many pods were deleted.
    each = statistics.median(_once(pods) for _ in range(_REPEATS))
    ours, without = (statistics.median(column) for column in zip(*rounds, strict=True))
    share = statistics.median(one / other for one, other in rounds)
    times = ours / each
    return [
        Row(
            "trivial shell rules through Snakemake in a MiniCluster of one pod, marginal rate, against a pod per task",
            f"{ours:.1f} jobs/s against {each:.1f} pods/s: {times:.1f}x",
            ">= 8x",
            times >= 8,
        ),
        Row(
            "the same against the same rules on the same Flux without Kubernetes",
            f"{ours:.1f} against {without:.1f} jobs/s: {share:.0%}",
            ">= 85 %",
            share >= 0.85,
            [f"{min(one / other for one, other in rounds):.0%}-{max(one / other for one, other in rounds):.0%}"],
        ),
    ]


def latency(directory: Path, config: Path) -> Row:
    """Finished by Flux's timestamp -> reported to Snakemake, with 1,000 jobs in flight; pods have this clock."""
    argv = [sys.executable, "-m", "bench.latency", str(directory), "--flux-operator-config", str(config), *SHARED]
    done = subprocess.run(argv, cwd=ROOT, env=environment(), umask=0, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    delays = [float(word) for word in done.stdout.splitlines()[-1].split()]
    p99 = percentile(delays, 0.99)
    return Row(
        "finished (Flux's timestamp) -> reported to Snakemake, on Kubernetes, 1,000 jobs in flight",
        f"median {statistics.median(delays) * 1000:.0f} ms, p99 {p99 * 1000:.0f} ms of {len(delays)}",
        "<= 100 ms at p99",
        p99 <= 0.1,
    )


def _once(seconds: Callable[[int], float]) -> float:
    """Per second, beyond the fixed costs of a run."""
    few, many = _COUNTS
    low = seconds(few)
    return (many - few) / (seconds(many) - low)


def _rules(jobs: int, place: Path, *options: str, env: dict[str, str]) -> float:
    """Wall time of a Snakemake with so many trivial rules, in a fresh directory that pods may write to."""
    with tempfile.TemporaryDirectory(dir=place) as directory:
        work = Path(directory)
        work.chmod(0o777)
        (work / "Snakefile").write_text(TRIVIAL)
        argv = [sys.executable, "-m", "snakemake", "--executor", "flux-operator", "--jobs", "1000", *options]
        # What pods write and we remove, or the other way round, is of two users.
        wide = ["sh", "-c", 'umask 0; exec "$@"', "sh"]
        return run([*wide, *argv, "--quiet", "all", "--config", f"num={jobs}"], work, env)


def pod_seconds(cluster: Cluster, namespace: str, place: Path, count: int) -> float:
    """Seconds from the first creation to the success of so many pods, each for one rule's work, asked for at once."""
    label = uuid.uuid4().hex[:8]
    api = connect(ClusterAccess(kubeconfig=str(cluster.kubeconfig)))
    wanted = [Wanted(PODS, labels=f"bench={label}")]
    over: set[str] = set()
    try:
        with ResourceWatcher(api, namespace, wanted) as watcher:
            begin = time.monotonic()
            for number in range(count):
                api.create(PODS, namespace, _pod(cluster.image.name, f"task-{label}-{number}", label, place))
            for change in watcher.changes(lambda: begin + _LIMIT):
                if change is None:
                    raise RuntimeError(f"{len(over)} of {count} pods had ended after {_LIMIT:g} s")
                if isinstance(change, Change) and change.object["status"]["phase"] == "Succeeded":
                    over.add(change.object["metadata"]["name"])
                if len(over) == count:
                    break
            seconds = time.monotonic() - begin
    finally:
        api.close()
    cluster.kubectl("delete", "pods", f"--selector=bench={label}", "--wait", f"--namespace={namespace}")
    return seconds


def _pod(image: str, name: str, label: str, place: Path) -> dict[str, Any]:
    """It writes its file where the rules write theirs."""
    mount = {"name": "work", "mountPath": str(place)}
    container = {"name": "task", "image": image, "command": ["sh", "-c", 'true > "$0"', f"{place}/{name}"]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"bench": label}},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": False,
            "securityContext": {"runAsUser": 1000},
            "containers": [{**container, "volumeMounts": [mount]}],
            "volumes": [{"name": "work", "hostPath": {"path": str(place)}}],
        },
    }
