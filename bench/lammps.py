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
from typing import Any, NamedTuple, Protocol

from bench import mpi_operator
from bench.common import NotHere, Row, ratio_of_pairs, until
from bench.operator import PATH, resource
from executors import load_config, open_session
from executors.names import RunId
from tests.cluster.operators import running
from tests.cluster.runs import spec, write_config
from tests.cluster.testbed.cluster import Cluster
from tests.cluster.testbed.image import lammps_image
from tests.cluster.testbed.missing import Missing

_PAIRS = 11
#: Seconds for a run, most of which is LAMMPS' own.
_LIMIT = 60.0
_RESOURCES = {"requests": {"cpu": "500m"}, "limits": {"cpu": "1"}}
_LOOP = re.compile(r"^Loop time of ([0-9.]+) on 2 procs", re.MULTILINE)
_OPTIONS = ("-log", "none", "-nocite")
_HNS = ("lmp", "-in", "in.reaxff.hns", *_OPTIONS)
#: What the rows say of its loop, and its input: all 100 steps, and as many as take here (2 cores of an EPYC) what all
#: took on the machine on which the marks were set, 3.5 to 3.9 s: a ratio of whole runs depends on the loop's share.
_LOOPS = (("", _HNS), (" of 22 steps", ("lmp", "-in", "in.short.hns", *_OPTIONS)))


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
    """As a MiniCluster by our Flux Operator, and in turn as an MPIJob, where the MPI Operator is given. When a line was
    written is the container runtime's word.
    """
    rows = []
    try:
        image = lammps_image()
        bed = Cluster()
    except Missing as reason:
        raise NotHere(str(reason)) from None
    with bed as cluster, tempfile.TemporaryDirectory() as directory, running(cluster, Path(directory)):
        cluster.load_image(image.archive)
        namespace = cluster.create_namespace(labels={})
        mpi = mpi_operator.start(cluster)
        for what, command in _LOOPS:
            ours, theirs = _pairs(cluster, namespace, image.name, command, mpi is not None)
            name = f"LAMMPS HNS{what}, 2 pods, a MiniCluster by our Flux Operator"
            rows += [*_own_rows(name, ours), *(_compared(name, ours, theirs) if theirs else [])]
        if mpi is not None:
            mpi.stop()
    return rows


def _pairs(
    cluster: Cluster, namespace: str, image: str, command: Sequence[str], with_mpi: bool
) -> tuple[list[_Times], list[_Times]]:
    """Of ours, and of as many MPIJobs. Raises RuntimeError where too many have not ended."""
    ours: list[_Times] = []
    theirs: list[_Times] = []
    for _ in range(2 * _PAIRS):
        own = _measured(cluster, namespace, _MiniCluster(image, command))
        other = _measured(cluster, namespace, mpi_operator.MPIJob(image, command, _RESOURCES)) if with_mpi else None
        # MPICH hangs in its end now and then, the one rank spinning: such a pair says nothing of operators.
        if own is not None and (other is not None or not with_mpi):
            ours.append(own)
            theirs += [other] if other is not None else []
        if len(ours) > _PAIRS:
            # The first is for caches.
            return ours[1:], theirs[1:]
    raise RuntimeError(f"{2 * _PAIRS - len(ours)} of {2 * _PAIRS} pairs have not ended")


class _Times(NamedTuple):
    """Seconds: from the resource to its first line, from its last line to its end, of all, and of LAMMPS' loop."""

    first: float
    last: float
    total: float
    loop: float


def _own_rows(what: str, found: list[_Times]) -> list[Row]:
    first, last, total, loop = (list(one) for one in zip(*found, strict=True))
    rest = statistics.median(one.total - one.loop for one in found)
    ends = statistics.median(last)
    return [
        Row(f"{what}: applied -> its first line", f"{statistics.median(first):.2f} s", "", None,
            [f"{min(first):.2f}-{max(first):.2f} s"]),
        Row(f"{what}: last line -> Completed", f"{ends:.2f} s", "<= 0.5 s", ends <= 0.5,
            [f"{min(last):.2f}-{max(last):.2f} s"]),
        Row(f"{what}: applied -> Completed", f"{statistics.median(total):.2f} s", "", None,
            [f"{min(total):.2f}-{max(total):.2f} s; loop {statistics.median(loop):.2f} s, so {rest:.2f} s beyond it"]),
    ]  # fmt: skip


def _compared(who: str, ours: list[_Times], theirs: list[_Times]) -> list[Row]:
    """Ratios of each pair, which ran one after the other."""
    rows = []
    for name, what, most in (("first", "applied -> its first line", 0.8), ("total", "applied -> its end", 0.85),
                             ("loop", "LAMMPS' loop", 1.0)):  # fmt: skip
        pairs = [(getattr(one, name), getattr(other, name)) for one, other in zip(ours, theirs, strict=True)]
        ratio, low, high = ratio_of_pairs(pairs)
        own, other = (statistics.median(column) for column in zip(*pairs, strict=True))
        rows.append(
            Row(
                f"{who} against an MPIJob: {what}",
                f"{own:.2f} s against {other:.2f} s: {ratio:.2f}x",
                f"<= {most:g}x{' within the interval' if name == 'loop' else ''}",
                (low if name == "loop" else ratio) <= most,
                [f"95 % interval {low:.2f}-{high:.2f}x, {len(pairs)} pairs in turn"],
            )
        )
    return rows


class Resource(Protocol):
    """Something that runs LAMMPS once."""

    #: Of its objects' collection: ``kubectl``'s word, and the path with {} for the namespace.
    kind: str
    path: str
    document: dict[str, Any]
    #: Of the pod that writes: its labels, with {} for the name.
    writer: str
    #: Of all its pods.
    pods: str
    #: Types of its conditions: that it has ended well, and that it has failed.
    ends: tuple[str, str]


class _MiniCluster:
    kind = "miniclusters.flux-framework.org"
    path = PATH
    writer = "job-name={},job-index=0"
    pods = "job-name={}"
    ends = ("Completed", "Failed")

    def __init__(self, image: str, command: Sequence[str]) -> None:
        self.document = resource(image, f"lammps-{uuid.uuid4().hex[:6]}", " ".join(command), tasks=2)
        self.document["spec"]["containers"][0] |= {"workingDir": "/opt/hns", "resources": _RESOURCES}


def _measured(cluster: Cluster, namespace: str, one: Resource) -> _Times | None:
    """None: LAMMPS has written all, and has not ended in a minute."""
    name = one.document["metadata"]["name"]
    path = one.path.format(namespace)
    begin = time.time()
    cluster.api.post(path, one.document)

    def conditions() -> dict[str, str]:
        found = cluster.api.get(f"{path}/{name}").get("status", {}).get("conditions") or []
        return {condition["type"]: condition["status"] for condition in found}

    def has_ended() -> bool:
        return any(conditions().get(end) == "True" for end in one.ends)

    until(lambda: has_ended() or time.time() - begin > _LIMIT, "its end")
    end, ended = time.time(), has_ended()
    lines = _lines(cluster, namespace, one.writer.format(name))
    loop = _LOOP.search("\n".join(line for _, line in lines))
    if not ended:
        print(f"  {one.kind}: not ended {end - lines[-1][0]:.0f} s after its last line {lines[-1][1]!r}", flush=True)
    if loop is None:
        raise RuntimeError(f"LAMMPS has not run: {lines[-5:]}")
    cluster.kubectl("delete", f"{one.kind}/{name}", "--cascade=background", f"--namespace={namespace}")
    selector = (f"--selector={one.pods.format(name)}", f"--namespace={namespace}", "--timeout=120s")
    cluster.kubectl("wait", "pods", "--for=delete", *selector)
    if not ended:
        return None
    return _Times(lines[0][0] - begin, end - lines[-1][0], end - begin, float(loop[1]))


def _lines(cluster: Cluster, namespace: str, selector: str) -> list[tuple[float, str]]:
    """What a pod has written, and when (seconds since the epoch): kubectl's timestamps are the runtime's."""
    log = cluster.kubectl("logs", "--timestamps", f"--selector={selector}", "--tail=-1", f"--namespace={namespace}")
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
        seconds, output = _timed([*ours, *_HNS])
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
