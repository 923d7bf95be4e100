"""5,000 times `true` on this machine's cores: our embedded engine beside HyperQueue, Parsl, GNU parallel and xargs.

All start one process per task, as many at once as there are cores. xargs keeps nothing of a task, and is the limit.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.common import ROOT, NotHere, Row, environment
from executors import JobRequest, RunId, load_config, open_session

_TASKS = 5_000
_REPEATS = 3
_PEERS = ROOT / ".venv-peer-tasks"
_CORES = len(os.sched_getaffinity(0))
#: Programs of the others, with `run` and `end`.
_PARSL = """
import sys, time
import parsl
from parsl.config import Config
from parsl.executors import HighThroughputExecutor
from parsl.providers import LocalProvider

executor = HighThroughputExecutor(
    max_workers_per_node=CORES, provider=LocalProvider(init_blocks=1, max_blocks=1), address="127.0.0.1"
)
parsl.load(Config(executors=[executor], run_dir="parsl", initialize_logging=False))

@parsl.python_app
def task():
    import subprocess
    return subprocess.call(["true"])

def run():
    assert not any(future.result() for future in [task() for _ in range(TASKS)])

def end():
    parsl.dfk().cleanup()

task().result()
"""
_HYPERQUEUE = """
import sys, time
from hyperqueue import Job, LocalCluster
from hyperqueue.cluster import WorkerConfig

cluster = LocalCluster()
cluster.start_worker(WorkerConfig(cores=CORES))
client = cluster.client()

def run():
    job = Job()
    for _ in range(TASKS):
        job.program(["true"], stdout=None, stderr=None)
    client.wait_for_jobs([client.submit(job)], raise_on_error=True)

end = cluster.stop
"""
#: Around them: what they print is not for us. Each says that it is ready, and then, for each line that it reads, the
#: seconds of one run.
_BEFORE = """
import os
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
"""
_AFTER = """
print("ready", file=answers, flush=True)
for line in sys.stdin:
    begin = time.monotonic()
    run()
    print(time.monotonic() - begin, file=answers, flush=True)
end()
"""


def measure_short_tasks() -> list[Row]:
    """All in turn, three times. Raises NotHere where one of the others is missing and cannot be installed."""
    if shutil.which("parallel") is None:
        raise NotHere("GNU parallel is not installed (on Debian: apt install parallel)")
    python = _peers()
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        seconds: dict[str, Callable[[], float]] = {
            "ours": stack.enter_context(_ours()),
            "HyperQueue": stack.enter_context(_program(python, _HYPERQUEUE, directory)),
            "Parsl (HTEX)": stack.enter_context(_program(python, _PARSL, directory)),
            "GNU parallel": lambda: _by_words(["parallel", "--will-cite", f"-j{_CORES}", "true"]),
            "xargs": lambda: _by_words(["xargs", f"-P{_CORES}", "-n1", "true"]),
        }
        times: dict[str, list[float]] = {name: [] for name in seconds}
        for _ in range(_REPEATS):
            for name, measure in seconds.items():
                times[name].append(measure())
    rates = {name: _TASKS / statistics.median(found) for name, found in times.items()}
    ours, limit = rates.pop("ours"), rates.pop("xargs")
    best = max(rates.values())
    spread = "; ".join(f"{name} {min(found):.1f}-{max(found):.1f} s" for name, found in times.items())
    peers = ", ".join(f"{name} {rate:.0f}" for name, rate in rates.items())
    return [
        Row(
            f"embedded engine, {_TASKS:,} `true` through a session, against the same by others",
            f"{ours:.0f} tasks/s against {peers}",
            ">= each",
            ours >= best,
            [spread],
        ),
        Row(
            f"the same against xargs -P{_CORES}, which keeps nothing",
            f"{ours:.0f} against {limit:.0f} tasks/s: {ours / limit:.2f}x",
            ">= 0.5x",
            ours >= 0.5 * limit,
        ),
    ]


def _peers() -> Path:
    """A virtual environment with HyperQueue and Parsl, made once."""
    python = _PEERS / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(_PEERS)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "hyperqueue", "parsl"]
        if subprocess.run(pip, check=False).returncode:
            raise NotHere("HyperQueue and Parsl cannot be installed by pip")
    return python


@contextlib.contextmanager
def _ours() -> Iterator[Callable[[], float]]:
    environ = environment(FLUX_OPERATOR_ENGINE="embedded")
    environ.pop("FLUX_URI", None)
    with open_session(RunId("bench", "short-tasks"), load_config(environ=environ), environ=environ) as session:

        def measure() -> float:
            begin = time.monotonic()
            handles = session.submit([JobRequest(argv=["true"]) for _ in range(_TASKS)])
            for handle in handles:
                handle.result().check()
            spent = time.monotonic() - begin
            session.acknowledge(handles)
            return spent

        yield measure


@contextlib.contextmanager
def _program(python: Path, code: str, directory: Path) -> Iterator[Callable[[], float]]:
    # Parsl's workers are found by PATH.
    environ = environment(PATH=f"{python.parent}:{os.environ['PATH']}")
    with tempfile.NamedTemporaryFile("w+", dir=directory) as log:
        process = subprocess.Popen(
            [str(python), "-c", f"TASKS, CORES = {_TASKS}, {_CORES}\n{_BEFORE}{code}{_AFTER}"],
            env=environ, cwd=directory, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip

        def answer() -> str:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise RuntimeError(f"ended with {process.wait()}: {Path(log.name).read_text()[-2000:]}")
            return line

        def measure() -> float:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
            return float(answer())

        try:
            answer()
            yield measure
        finally:
            # By the end of its input: a signal would leave Parsl's workers behind.
            process.communicate()


def _by_words(argv: list[str]) -> float:
    words = "\n".join(map(str, range(_TASKS)))
    begin = time.monotonic()
    subprocess.run(argv, input=words, text=True, check=True, capture_output=True)
    return time.monotonic() - begin
