"""Short tasks in the pods of a MiniCluster, and Snakemake's jobs with an S3 store. Needs what tests/cluster needs."""

from __future__ import annotations

import statistics
import uuid

from bench.common import NotHere, Row
from bench.kubernetes import bed
from bench.pilot import MANY, opened, rate
from bench.rules import NESTED, OURS, STORED, seconds_per_job
from executors import RunId, load_config, open_session
from tests.cluster.runs import spec, write_config
from tests.cluster.testbed.missing import Missing
from tests.cluster.testbed.object_store import ObjectStore


def measure_pilot_pods(repeats: int = 3) -> list[Row]:
    """Two pods of a core each, and the embedded engine outside with both cores, in turn."""
    found: dict[str, list[float]] = {"pods": [], "embedded": []}
    with bed() as (cluster, namespace, directory):
        container = {"resources": {"requests": {"cpu": "600m"}}}
        given = {"kubeconfig": str(cluster.kubeconfig), "provisioner": "direct", "namespace": namespace}
        file = write_config(directory / "run.yaml", spec(cluster.image.name, size=2, container=container), **given)
        config = load_config(file, environ={}, options={"run.pilot": "on"})
        for _ in range(repeats):
            with open_session(RunId("bench", uuid.uuid4().hex[:8]), config, environ={}) as session:
                session.wait_for_brokers()
                rate(session, 200)  # so that both pods have a pilot
                found["pods"].append(rate(session, MANY["pilot"]))
            with opened("pods", "embedded") as session:
                rate(session, 50)
                found["embedded"].append(rate(session, MANY["embedded"]))
    part = statistics.median(ours / other for ours, other in zip(found["pods"], found["embedded"], strict=True))
    ours, other = (statistics.median(found[way]) for way in ("pods", "embedded"))
    return [
        Row(
            "`true` through a session, pilots in 2 pods on one node, against the embedded engine",
            f"{ours:.0f} against {other:.0f} tasks/s: {part:.2f}x",
            ">= 0.5x",
            part >= 0.5,
            [f"{min(found['pods']):.0f}-{max(found['pods']):.0f} tasks/s"],
        )
    ]


def measure_s3(repeats: int = 3) -> list[Row]:
    """Seconds per job of a rule whose files are in a bucket."""
    with bed() as (cluster, _, directory):
        try:
            store = ObjectStore(cluster.place, directory / "store")
        except Missing as reason:
            raise NotHere(str(reason)) from None
        with store:
            store.bucket("bench")
            stored = (
                *("--shared-fs-usage", "none", "--forceall", "--default-storage-provider", "s3"),
                *("--default-storage-prefix", "s3://bench/run", "--storage-s3-endpoint-url", store.url),
            )
            keys = {
                "SNAKEMAKE_STORAGE_S3_ACCESS_KEY": store.access_key,
                "SNAKEMAKE_STORAGE_S3_SECRET_KEY": store.secret_key,
                "NO_PROXY": "*",
            }
            ways = {"embedded": ("embedded", (*OURS, *stored)), "nested": ("embedded", (*NESTED, *stored))}
            each = seconds_per_job(STORED, ways, repeats, variables=keys)
    ratio = each["embedded"] / each["nested"]
    return [
        Row(
            "a job without shared files (S3) on the embedded engine, against the same by a nested Snakemake",
            f"{each['embedded']:.3f} s against {each['nested']:.3f} s: {ratio:.2f}x",
            "<= 0.4x",
            ratio <= 0.4,
        )
    ]
