"""Rendering, which is pure and takes no instance: a MiniCluster of 1,000 pods."""

from __future__ import annotations

import statistics
import time

from bench.common import Row

PODS = 1000
LIMIT = 0.05


def measure_render(repeats: int = 25) -> list[Row]:
    """From a document to all objects, each time again: parsed, checked, rendered."""
    from executors.provision.package import agent_archive
    from executors.render import MiniCluster, Program, render_direct
    from executors.spec import parse_spec
    from executors.validation import direct_problems, name_problems

    container = {
        "image": "any",
        "command": "true",
        "resources": {"requests": {"cpu": "4", "memory": "8Gi"}, "limits": {"nvidia.com/gpu": 1}},
        "environment": {f"VARIABLE_{number}": "x" for number in range(20)},
        "volumes": {f"data-{number}": {"claimName": "data", "path": f"/data/{number}"} for number in range(5)},
    }
    document = {"size": PODS, "maxSize": PODS, "containers": [container], "services": [{"name": "db", "image": "db"}]}
    program = Program(agent_archive(), ("--run", "run"), max_lifetime=604800.0, ttl=600.0)
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        spec = parse_spec(document)
        if direct_problems(spec) or name_problems("bench", spec):
            raise RuntimeError("the spec of this measurement is not valid")
        render_direct(MiniCluster("bench", "science", spec), program, "certificate")
        seconds.append(time.perf_counter() - begin)
    median = statistics.median(seconds)
    what = f"render of a MiniCluster of {PODS:,} pods (spec parsed, checked and rendered)"
    return [Row(what, f"{median * 1000:.1f} ms (slowest {max(seconds) * 1000:.1f})", "<= 50 ms", max(seconds) <= LIMIT)]
