"""A MiniCluster of `hostname`, made and deleted again, of 1 to 16 pods: what one costs that does next to nothing.

Needs what tests/cluster needs. Upstream's operator is measured too where FLUXOP_TEST_OPERATOR names it.
"""

from __future__ import annotations

import statistics
import time
import uuid
from pathlib import Path

from bench.common import Row, until
from bench.kubernetes import bed
from bench.operator import PATH, resource
from tests.cluster.operators import installed, operator_program, wait_for_leader
from tests.cluster.testbed.cluster import Cluster

_SIZES = (1, 2, 4, 8, 16)
_REPEATS = 3


def measure_hostname() -> list[Row]:
    """Each size in turn, so that no operator has its turn at a size alone."""
    with bed() as (cluster, namespace, directory), installed(cluster, directory) as kubeconfig:
        programs = {"ours": operator_program(cluster, kubeconfig)}
        if cluster.operator is not None:
            programs["upstream"] = cluster.operator_program()
        times: dict[str, dict[int, list[float]]] = {one: {size: [] for size in _SIZES} for one in programs}
        for one, program in programs.items():
            program.start()
            if one == "ours":
                wait_for_leader(cluster)
            _one(cluster, namespace, directory, 2)  # for caches
            for _ in range(_REPEATS):
                for size in _SIZES:
                    times[one][size].append(_one(cluster, namespace, directory, size))
            program.stop()
    return [_row(size, {one: found[size] for one, found in times.items()}) for size in _SIZES]


def _row(size: int, times: dict[str, list[float]]) -> Row:
    middle = {one: statistics.median(found) for one, found in times.items()}
    measured = f"{middle['ours']:.1f} s"
    if "upstream" in middle:
        measured += f" against upstream's {middle['upstream']:.1f} s: {middle['ours'] / middle['upstream']:.2f}x"
    pods = "1 pod" if size == 1 else f"{size} pods"
    notes = ["; ".join(f"{one} {min(found):.1f}-{max(found):.1f} s" for one, found in times.items())]
    return Row(
        f"our Flux Operator, `hostname` on {pods}: created, run, deleted, all pods gone", measured, "", None, notes
    )


def _one(cluster: Cluster, namespace: str, directory: Path, size: int) -> float:
    name = f"hostname-{uuid.uuid4().hex[:6]}"
    volumes = {"out": {"hostPath": str(directory), "path": "/out"}}
    # A file, since upstream's operator has a shell read the command once more.
    script = directory / f"{name}.sh"
    script.write_text(f"hostname >/out/{name}-$FLUX_TASK_RANK\n")
    applied = resource(cluster.image.name, name, f"sh /out/{name}.sh", size=size, tasks=size, volumes=volumes)
    # So many pods have to fit onto one node.
    applied["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "50m"}}
    begin = time.monotonic()
    cluster.api.post(PATH.format(namespace), applied)

    jobs = f"/apis/batch/v1/namespaces/{namespace}/jobs?fieldSelector=metadata.name%3D{name}"

    def is_over() -> bool:
        """By the Job, which both operators make: upstream's own condition may never tell."""
        conditions = [one for job in cluster.api.get(jobs)["items"] for one in job["status"].get("conditions", [])]
        return any(one["type"] == "Complete" and one["status"] == "True" for one in conditions)

    until(is_over, "its Job to be complete")
    # In the foreground, upstream's operator would make again what goes before its resource.
    cluster.kubectl("delete", f"minicluster/{name}", "--cascade=background", f"--namespace={namespace}", "--wait=false")
    pods = f"/api/v1/namespaces/{namespace}/pods?labelSelector=job-name%3D{name}"
    until(lambda: not cluster.api.get(pods)["items"], "its pods to be gone", 0.05)
    seconds = time.monotonic() - begin
    written = len(list(directory.glob(f"{name}-*")))
    if written != size:
        raise RuntimeError(f"{written} of {size} tasks have run")
    return seconds
