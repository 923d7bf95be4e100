"""The command `flux` for Nextflow: what a call costs, what ten thousand tasks leave in the session, and how fast a real
Nextflow (FLUXOP_TEST_NEXTFLOW) is with it, beside the same with Flux's own command and with its local executor."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.common import ROOT, NotHere, Row, environment, need_flux, until
from bench.kubernetes import bed
from bench.kubernetes_rules import pod_seconds
from executors.flux_command import ingest
from tests.cluster.runs import spec, write_config
from tests.nextflow.pipelines import Process, as_json

CALLS = 40
TASKS = 10_000
TRIVIAL = 200
#: Pods at once: a node starts more of them more slowly each.
POD_TASKS = 100
REPEATS = 3
MINICLUSTER = [sys.executable, "-c", "from executors.cli.main import main; main(prog_name='flux-minicluster')"]
PIPELINE = """
process ONE {
    input:
    val i
    script:
    "true"
}
workflow { ONE(Channel.of(1..%d)) }
"""
#: For Flux's own command and for Nextflow's local executor.
POLL = "executor { pollInterval = '1 sec'; queueStatInterval = '5 sec'; exitReadTimeout = '30 sec' }\n"


def measure_command() -> list[Row]:
    """Whole processes, alternating, on one instance: Python's start, ours, Flux's own."""
    need_flux()
    flux, embedded = _calls("flux"), _calls("embedded")
    return [
        _against_python("under Flux", flux),
        _against_python("on the embedded engine", embedded),
        _against_python("in an allocation", _calls("flux", around=["flux", "start"])),
        _against_python(
            "in an allocation with ingest.batch-count=1",
            _calls("flux", around=["flux", "start", "--config-path={directory}"]),
        ),
        Row(
            "the same against Flux's own `flux submit` on the same instance",
            f"{flux['ours']:.0f} ms against {flux['flux']:.0f} ms: {flux['ours'] / flux['flux']:.2f}x",
            "<= 0.25x",
            flux["ours"] <= 0.25 * flux["flux"],
        ),
    ]


def _calls(engine: str, around: Sequence[str] = ()) -> dict[str, float]:
    """Medians in milliseconds. ``around``: what starts an instance that is there before, and its command."""
    inner = [*MINICLUSTER, "nextflow", "-q", "--", sys.executable, "-m", "bench.nextflow_calls", "calls", str(CALLS)]
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        environ = environment(PYTHONPATH=str(ROOT), FLUX_OPERATOR_ENGINE=engine, FLUX_OPERATOR_RUNTIME_DIR=directory)
        environ.pop("FLUX_URI", None)
        (Path(directory) / "ingest.toml").write_text(ingest.TEXT)
        before = [word.format(directory=directory) for word in around]
        found = json.loads(_run([*before, *inner], Path(directory), environ).splitlines()[-1])
    return {name: 1000 * statistics.median(values) for name, values in found.items() if values}


def _against_python(where: str, times: dict[str, float]) -> Row:
    return Row(
        f"Nextflow: our `flux submit` {where}, the whole process, against `python3 -IS -c pass`",
        f"{times['ours']:.0f} ms against {times['python']:.0f} ms: {times['ours'] / times['python']:.2f}x",
        "<= 2.5x",
        times["ours"] <= 2.5 * times["python"],
        [f"{times['answer']:.0f} ms until the instance has taken the job"],
    )


def measure_tasks() -> list[Row]:
    """Tasks submitted as Nextflow's would be, on the embedded engine, without a process of Nextflow's for each."""
    environ = environment(PYTHONPATH=str(ROOT), FLUX_OPERATOR_ENGINE="embedded")
    environ.pop("FLUX_URI", None)
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        inner = [sys.executable, "-m", "bench.nextflow_calls", "tasks", str(TASKS)]
        done = _run([*MINICLUSTER, "nextflow", "-q", "--", *inner], Path(directory), environ)
    found = json.loads(done.splitlines()[-1])
    asked = 1000 * statistics.median(found["jobs"])
    growth = found["growth"] / 1e6
    return [
        Row(
            f"Nextflow: {TASKS:,} tasks in one session: growth of the session's process",
            f"{growth:.0f} MB ({found['rate']:.0f} tasks/s)",
            "<= 50 MB",
            growth <= 50,
        ),
        Row(
            f"the same: `flux jobs`, the whole process, {TASKS:,} lines",
            f"{asked:.0f} ms (slowest {1000 * max(found['jobs']):.0f})",
            "<= 100 ms",
            asked <= 100,
        ),
    ]


def measure_nextflow() -> list[Row]:
    """Whole runs of a real Nextflow, the three kinds alternating."""
    need_flux()
    command = os.environ.get("FLUXOP_TEST_NEXTFLOW")
    if not command:
        raise NotHere("no real Nextflow: set FLUXOP_TEST_NEXTFLOW to the path of its command")
    kinds = ["ours", "flux", "local", *(["hq"] if os.environ.get("FLUXOP_TEST_HQ") else [])]
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    ends: dict[str, list[float]] = {kind: [] for kind in kinds}
    whole: list[float] = []
    for _ in range(REPEATS):
        for kind in seconds:
            spent, end, closed = _nextflow(command, kind)
            seconds[kind].append(spent)
            ends[kind].append(end)
            if kind == "ours":
                whole.append(closed)
    ours, flux, local = (statistics.median(seconds[kind]) for kind in ("ours", "flux", "local"))
    spread = "; ".join(f"{kind} {min(values):.1f}-{max(values):.1f} s" for kind, values in seconds.items())
    beside = [f"Nextflow's local executor {TRIVIAL / local:.1f} tasks/s"]
    if "hq" in seconds:
        beside.append(f"HyperQueue by its executor hq {TRIVIAL / statistics.median(seconds['hq']):.1f} tasks/s")
    late, late_local = statistics.median(ends["ours"]), statistics.median(ends["local"])
    return [
        Row(
            f"Nextflow, {TRIVIAL} trivial tasks, polling each second, first submission -> last result, "
            "against Flux's own command",
            f"{TRIVIAL / ours:.1f} against {TRIVIAL / flux:.1f} tasks/s: {flux / ours:.1f}x",
            ">= 2.5x",
            flux >= 2.5 * ours,
            [*beside, spread],
        ),
        Row(
            "the same: the last task's end -> Nextflow's end, against its local executor",
            f"{late:.2f} s against {late_local:.2f} s",
            "<= 1.5 s more",
            late <= late_local + 1.5,
            [f"{statistics.median(whole):.2f} s until our command has ended too, and Flux with it"],
        ),
    ]


def measure_kubernetes() -> list[Row]:
    """The same pipeline in a MiniCluster of two pods, against a bare pod for each task; Nextflow, or the stand-in."""
    command = os.environ.get("FLUXOP_TEST_NEXTFLOW")
    with bed() as (cluster, namespace, directory):
        container = {"volumes": {"work": {"hostPath": str(directory), "path": str(directory)}}}
        given = {"kubeconfig": str(cluster.kubeconfig), "provisioner": "direct", "namespace": namespace}
        config = directory / "run.yaml"
        write_config(config, spec(cluster.image.name, size=2, container=container), **given)
        ours = [_in_pods(command, directory, config) for _ in range(REPEATS)]
        pods = [POD_TASKS / pod_seconds(cluster, namespace, directory, POD_TASKS) for _ in range(REPEATS)]
    tasks, each = TRIVIAL / statistics.median(ours), statistics.median(pods)
    return [
        Row(
            f"{TRIVIAL} trivial tasks of {'Nextflow' if command else 'the stand-in for Nextflow'} in a MiniCluster of "
            "2 pods, first submission -> last result, against a bare pod for each",
            f"{tasks:.1f} tasks/s against {each:.1f} pods/s: {tasks / each:.1f}x",
            ">= 2.5x",
            tasks >= 2.5 * each,
            [f"{TRIVIAL / max(ours):.1f}-{TRIVIAL / min(ours):.1f} tasks/s, {min(pods):.1f}-{max(pods):.1f} pods/s"],
        )
    ]


def _in_pods(command: str | None, place: Path, config: Path) -> float:
    """Seconds from the first submission to the last result."""
    with tempfile.TemporaryDirectory(dir=place) as name:
        directory = Path(name)
        directory.chmod(0o777)
        if command:
            (directory / "main.nf").write_text(PIPELINE % TRIVIAL)
            run = [command, "run", "main.nf", "-ansi-log", "false"]
        else:
            (directory / "pipeline.json").write_text(as_json([Process("ONE", "true", count=TRIVIAL)]))
            run = [sys.executable, "-m", "tests.nextflow.standin", "pipeline.json", "rows.json", "work"]
        # What pods write and we remove, or the other way round, is of two users.
        wide = ["sh", "-c", 'umask 0; exec "$@"', "sh"]
        argv = [*wide, *MINICLUSTER, "nextflow", "-q", "--config", str(config), "--", *run]
        _run(argv, directory, environment(PYTHONPATH=str(ROOT)))
        return _span(directory)[0]


def _span(directory: Path) -> tuple[float, float]:
    """Seconds from the first submission to the last result below a directory, and when that was."""
    begun = min(path.stat().st_mtime for path in directory.glob("work/*/*/.command.run"))
    last = max(path.stat().st_mtime for path in directory.glob("work/*/*/.exitcode"))
    return last - begun, last


def _nextflow(command: str, kind: str) -> tuple[float, float, float]:
    """Seconds from the first submission to the last result; from that to Nextflow's end; and to the whole end."""
    environ = environment(PYTHONPATH=str(ROOT))
    environ.pop("FLUX_URI", None)
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        directory = Path(name)
        (directory / "main.nf").write_text(PIPELINE % TRIVIAL)
        # By this name it is Nextflow to our command, and is given our configuration.
        timed = directory / "bin" / "nextflow"
        timed.parent.mkdir()
        timed.write_text(f'#!/bin/sh\n{shlex.quote(os.path.abspath(command))} "$@"; code=$?; : > ended; exit $code\n')
        timed.chmod(0o755)
        run = [str(timed), "run", "main.nf", "-ansi-log", "false"]
        if kind == "ours":
            argv = [*MINICLUSTER, "nextflow", "-q", "--", *run]
        else:
            executor = "" if kind == "local" else f"process.executor = '{kind}'\n"
            (directory / "nextflow.config").write_text(executor + POLL)
            argv = ["flux", "start", *run] if kind == "flux" else run
        with contextlib.ExitStack() as stack:
            if kind == "hq":
                environ.update(stack.enter_context(_hyperqueue(directory)))
            _run(argv, directory, environ)
            end = time.time()
        spent, last = _span(directory)
        return spent, (directory / "ended").stat().st_mtime - last, end - last


@contextlib.contextmanager
def _hyperqueue(directory: Path) -> Iterator[dict[str, str]]:
    """A HyperQueue of this machine's cores (FLUXOP_TEST_HQ: its program); what finds it, for an environment."""
    hq = os.path.abspath(os.environ["FLUXOP_TEST_HQ"])
    found = {"HQ_SERVER_DIR": str(directory / "hq"), "PATH": f"{os.path.dirname(hq)}:{os.environ['PATH']}"}
    environ = {**environment(), **found}
    with (directory / "hq.log").open("w") as log:
        server = subprocess.Popen([hq, "server", "start"], env=environ, stdout=log, stderr=log)
        worker = None
        try:
            info = [hq, "server", "info"]
            until(
                lambda: subprocess.run(info, env=environ, capture_output=True).returncode == 0,
                "HyperQueue's server answers", pause=0.1, limit=30.0,
            )  # fmt: skip
            cores = str(len(os.sched_getaffinity(0)))
            worker = subprocess.Popen([hq, "worker", "start", "--cpus", cores], env=environ, stdout=log, stderr=log)
            yield found
        finally:
            subprocess.run([hq, "server", "stop"], env=environ, capture_output=True, check=False)
            for process in filter(None, (worker, server)):
                process.terminate()
                process.wait()


def _run(argv: list[str], cwd: Path, env: dict[str, str]) -> str:
    """Its stdout. Raises RuntimeError with its output when it fails."""
    done = subprocess.run(argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{argv}: exit code {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return done.stdout
