"""The problem of the Flux Operator's paper (LAMMPS, reaxff HNS, arXiv 2309.17420) in one MiniCluster of two pods.

What a further run costs beyond the loop of LAMMPS, and where that goes. Needs what tests/cluster needs, and PyPI.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from bench.common import NotHere, Row, until
from bench.operator import PATH, resource
from executors import load_config, open_session
from executors.names import RunId
from tests.cluster.operators import running
from tests.cluster.runs import spec, write_config
from tests.cluster.testbed.cluster import Cluster
from tests.cluster.testbed.image import lammps_image
from tests.cluster.testbed.missing import Missing

_PAIRS = 11
_RESOURCES = {"requests": {"cpu": "500m"}, "limits": {"cpu": "1"}}
_LOOP = re.compile(r"^Loop time of ([0-9.]+) on 2 procs", re.MULTILINE)
_OPTIONS = ("-log", "none", "-nocite")


def measure_lammps() -> list[Row]:
    """Three in turn, by the same command: the whole run, one of no steps, and one of a program that does nothing."""
    try:
        image = lammps_image()
        bed = Cluster()
    except Missing as reason:
        raise NotHere(str(reason)) from None
    with bed as cluster, tempfile.TemporaryDirectory() as directory:
        cluster.load_image(image.archive)
        namespace = cluster.create_namespace(labels={})
        given = {"kubeconfig": str(cluster.kubeconfig), "provisioner": "direct", "namespace": namespace}
        resources = {"resources": _RESOURCES}
        file = write_config(Path(directory) / "run.yaml", spec(image.name, size=2, container=resources), **given)
        session = open_session(RunId("cli", "lammps"), load_config(file, environ={}), environ={})
        try:
            session.wait_for_brokers()
            return _rows(file)
        finally:
            session.close()


def measure_lammps_operator() -> list[Row]:
    """As a MiniCluster by our Flux Operator. When a line was written is the container runtime's word."""
    try:
        image = lammps_image()
        bed = Cluster()
    except Missing as reason:
        raise NotHere(str(reason)) from None
    with bed as cluster, tempfile.TemporaryDirectory() as directory, running(cluster, Path(directory)):
        cluster.load_image(image.archive)
        namespace = cluster.create_namespace(labels={})
        found = [_minicluster(cluster, namespace, image.name) for _ in range(_PAIRS + 1)][1:]
    first, last, total, loop = ([one[column] for one in found] for column in range(4))
    middle = {name: statistics.median(one) for name, one in
              (("first", first), ("last", last), ("total", total), ("loop", loop))}  # fmt: skip
    rest = statistics.median(whole - own for whole, own in zip(total, loop, strict=True))
    what = "LAMMPS HNS, 2 pods, a MiniCluster by our Flux Operator"
    return [
        Row(f"{what}: applied -> its first line", f"{middle['first']:.2f} s", "", None,
            [f"{min(first):.2f}-{max(first):.2f} s"]),
        Row(f"{what}: last line -> Completed", f"{middle['last']:.2f} s", "<= 0.5 s", middle["last"] <= 0.5,
            [f"{min(last):.2f}-{max(last):.2f} s"]),
        Row(f"{what}: applied -> Completed", f"{middle['total']:.2f} s", "", None,
            [f"{min(total):.2f}-{max(total):.2f} s; loop {middle['loop']:.2f} s, so {rest:.2f} s beyond it"]),
    ]  # fmt: skip


def _minicluster(cluster: Cluster, namespace: str, image: str) -> tuple[float, float, float, float]:
    """Seconds from the resource to its first line, from its last line to Completed, of all, and of LAMMPS' loop."""
    name = f"lammps-{uuid.uuid4().hex[:6]}"
    command = " ".join(["lmp", "-in", "in.reaxff.hns", *_OPTIONS])
    document = resource(image, name, command, tasks=2)
    document["spec"]["containers"][0] |= {"workingDir": "/opt/hns", "resources": _RESOURCES}
    path = PATH.format(namespace)
    begin = time.time()
    cluster.api.post(path, document)

    def conditions() -> dict[str, str]:
        found = cluster.api.get(f"{path}/{name}").get("status", {}).get("conditions", [])
        return {one["type"]: one["status"] for one in found}

    until(lambda: "True" in (conditions().get("Completed"), conditions().get("Failed")), "its end")
    end = time.time()
    lines = _lines(cluster, namespace, name)
    loop = _LOOP.search("\n".join(line for _, line in lines))
    if loop is None:
        raise RuntimeError(f"LAMMPS has not run: {lines[-5:]}")
    cluster.kubectl("delete", f"minicluster/{name}", "--cascade=background", f"--namespace={namespace}")
    selector = (f"--selector=job-name={name}", f"--namespace={namespace}", "--timeout=120s")
    cluster.kubectl("wait", "pods", "--for=delete", *selector)
    return lines[0][0] - begin, end - lines[-1][0], end - begin, float(loop[1])


def _lines(cluster: Cluster, namespace: str, name: str) -> list[tuple[float, str]]:
    """What the lead has written, and when (seconds since the epoch): kubectl's timestamps are the runtime's."""
    log = cluster.kubectl(
        "logs", "--timestamps", f"--selector=job-name={name},job-index=0", "--tail=-1", f"--namespace={namespace}"
    )
    found = []
    for line in log.splitlines():
        moment, _, text = line.partition(" ")
        # Nanoseconds are more than Python reads.
        found.append((datetime.fromisoformat(re.sub(r"(\.\d{6})\d*", r"\1", moment)).timestamp(), text))
    return found


def _rows(config: Path) -> list[Row]:
    ours = [sys.executable, "-c", "from executors.cli.main import main; main(prog_name='flux-minicluster')", "run"]
    ours += ["--quiet", "--config", str(config), "--name", "lammps", "-N", "2", "-n", "2", "--cwd", "/opt/hns", "--"]
    whole, start, nothing = [], [], []
    for _ in range(_PAIRS + 1):
        seconds, output = _timed([*ours, "lmp", "-in", "in.reaxff.hns", *_OPTIONS])
        found = _LOOP.search(output)
        if found is None:
            raise RuntimeError(f"LAMMPS has not run:\n{output[-2000:]}")
        whole.append((seconds, float(found[1])))
        start.append(_timed([*ours, "lmp", "-in", "in.start.hns", *_OPTIONS])[0])
        nothing.append(_timed([*ours, "true"])[0])
    # The first is for caches.
    beyond = [seconds - loop for seconds, loop in whole[1:]]
    loop = statistics.median(loop for _, loop in whole[1:])
    extra, alone, empty = statistics.median(beyond), statistics.median(start[1:]), statistics.median(nothing[1:])
    notes = [
        f"loop {loop:.2f} s; a run of no steps {alone:.2f} s, of `true` {empty:.2f} s: LAMMPS' own start, set-up and "
        f"end take {alone - empty:.2f} s, ours and Flux's {empty:.2f} s",
        f"{min(beyond):.2f}-{max(beyond):.2f} s",
    ]
    what = "LAMMPS HNS, 2 pods: a further run, beyond its loop"
    return [Row(what, f"{extra:.2f} s", "<= 0.4 s", extra <= 0.4, notes)]


def _timed(argv: Sequence[str]) -> tuple[float, str]:
    begin = time.monotonic()
    environ = {name: value for name, value in os.environ.items() if not name.startswith("FLUX_")}
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=environ, stdin=subprocess.DEVNULL)
    seconds = time.monotonic() - begin
    if done.returncode:
        raise RuntimeError(f"{argv[-6:]}: exit code {done.returncode}\n{done.stdout[-1000:]}\n{done.stderr[-2000:]}")
    return seconds, done.stdout
