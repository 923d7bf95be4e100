"""Rates of trivial Snakemake rules, ours against others; as a program: the ones inside one Flux instance."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from bench.common import ROOT, NotHere, Row, environment, marginal, need_flux, run, snakemake_seconds
from tests.support.environment import engine_environment

PEER = ROOT / ".venv-peer"


def peer_python() -> Path:
    """A virtual environment with the official `flux` plugin, made once; it needs Flux's bindings for this Python."""
    python = PEER / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(PEER)], check=True)
        packages = ["snakemake", "snakemake-executor-plugin-flux", "cffi", "ply", "pyyaml"]
        pip = [str(python), "-m", "pip", "install", "--quiet", "-c", str(ROOT / "constraints.txt"), *packages]
        subprocess.run(pip, check=True)
    return python


def peer_environment() -> dict[str, str]:
    # Flux's Python path has more in it than its bindings, and this Python may be another one: find them by asking.
    code = "import flux, os; print(os.path.dirname(os.path.dirname(flux.__file__)))"
    bindings = subprocess.run(["flux", "python", "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    return environment(PYTHONPATH=bindings)


def ours(jobs: int) -> float:
    return snakemake_seconds(
        jobs, "--executor", "flux-operator", "--jobs", "1000", "--flux-operator-provisioner", "attach",
        env=environment(),
    )  # fmt: skip


def flux_submit(jobs: int) -> float:
    command = ["flux", "submit", "--quiet", f"--cc=1-{jobs}", "--wait", "bash", "-c", "true > /dev/null"]
    return run(command, Path("/tmp"), environment())


def inside(repeats: int, with_peer: bool) -> dict[str, float]:
    """The measurements proper; FLUX_URI names the instance that all of them use."""
    rates = {"submit": marginal(flux_submit, 20, 220, repeats), "ours": marginal(ours, 20, 220, repeats)}
    if with_peer:
        python, env = str(peer_python()), peer_environment()

        def peer(jobs: int) -> float:
            return snakemake_seconds(jobs, "--executor", "flux", "--jobs", "1000", env=env, python=python)

        rates["peer"] = marginal(peer, 20, 40, repeats)
    return rates


def measure_flux(repeats: int = 3) -> list[Row]:
    flux = need_flux()
    peer_python()
    argv = [flux, "start", sys.executable, "-m", "bench.rules", str(repeats)]
    done = subprocess.run(argv, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    rates = json.loads(done.stdout.splitlines()[-1])
    ratio = rates["ours"] / rates["peer"]
    share = rates["ours"] / rates["submit"]
    return [
        Row(
            "trivial shell rules under Flux, 1 broker, marginal rate, against the official `flux` plugin",
            f"{rates['ours']:.1f} against {rates['peer']:.2f} jobs/s: {ratio:.0f}x", ">= 40x", ratio >= 40,
        ),
        Row(
            "the same against `flux submit --cc` of the same commands on the same instance",
            f"{rates['ours']:.1f} against {rates['submit']:.1f} jobs/s: {share:.0%}", ">= 60 %", share >= 0.6,
        ),
    ]  # fmt: skip


def measure_embedded(repeats: int = 3) -> list[Row]:
    env = environment(FLUX_OPERATOR_ENGINE="embedded")
    env.pop("FLUX_URI", None)

    def embedded(jobs: int) -> float:
        return snakemake_seconds(jobs, "--executor", "flux-operator", "--jobs", "1000", env=env)

    def local(jobs: int) -> float:
        return snakemake_seconds(jobs, "--executor", "local", "--cores", "all", env=env)

    ours_rate = marginal(embedded, 20, 420, repeats)
    local_rate = marginal(local, 20, 420, repeats)
    return [
        Row(
            "the same on the embedded engine, against Snakemake's own local executor with the same cores",
            f"{ours_rate:.1f} against {local_rate:.1f} jobs/s: {ours_rate / local_rate:.2f}x", ">= 1x",
            ours_rate >= local_rate,
        )
    ]  # fmt: skip


def measure_latency() -> list[Row]:
    """Finished by Flux's timestamp -> reported to Snakemake, with 1,000 jobs in flight."""
    from bench.common import percentile

    need_flux()
    env = environment(FLUX_OPERATOR_ENGINE="flux", FLUX_OPERATOR_PROVISIONER="local")
    env.pop("FLUX_URI", None)
    argv = [sys.executable, "-m", "bench.latency"]
    done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotHere(done.stderr[-2000:])
    delays = [float(word) for word in done.stdout.splitlines()[-1].split()]
    p99 = percentile(delays, 0.99)
    return [
        Row(
            "finished (Flux's timestamp) -> reported to Snakemake, 1,000 jobs in flight",
            f"median {statistics.median(delays) * 1000:.0f} ms, p99 {p99 * 1000:.0f} ms of {len(delays)}",
            "<= 100 ms at p99", p99 <= 0.1,
        )
    ]  # fmt: skip


SCRIPTS = """
rule all:
    input: expand("out/{i}.txt", i=range(int(config["num"])))
rule one:
    output: "out/{i}.txt"
    script: "one.py"
"""


RUNS = """
rule all:
    input: expand("out/{i}.txt", i=range(int(config["num"])))
rule one:
    output: "out/{i}.txt"
    run: open(output[0], "w").write(wildcards.i)
"""

#: The provider stands for any: what a job does without shared files is the same, but for the transfers.
STORED = """
rule all:
    input: expand("out/{i}.txt", i=range(int(config["num"])))
rule one:
    output: "out/{i}.txt"
    shell: "echo {wildcards.i} > {output}"
"""


def rule_seconds(snakefile: str, jobs: int, *arguments: str, env: Mapping[str, str]) -> float:
    """Wall time of a Snakemake with so many jobs of one rule, in a fresh directory."""
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        (Path(directory) / "Snakefile").write_text(snakefile)
        (Path(directory) / "one.py").write_text("open(snakemake.output[0], 'w').write(snakemake.wildcards.i)\n")
        argv = [sys.executable, "-m", "snakemake", *arguments, "--quiet", "all", "--config", f"num={jobs}"]
        return run(argv, Path(directory), env)


OURS = ("--executor", "flux-operator", "--jobs", "1000")
NESTED = (*OURS, "--flux-operator-job-step", "snakemake")
LOCAL = ("--executor", "local", "--cores", "all")
NAMES = {
    "flux": "under Flux",
    "pilot": "under Flux with pilots",
    "embedded": "on the embedded engine",
    "local": "Snakemake's local executor",
    "nested": "the same by a nested Snakemake",
}


def seconds_per_job(
    snakefile: str,
    ways: Mapping[str, tuple[str, tuple[str, ...]]],
    repeats: int,
    few: int = 4,
    many: int = 24,
    variables: Mapping[str, str] | None = None,
) -> dict[str, float]:
    """For each way (engine, arguments): ways alternate in one run, each job by the difference of two sizes."""
    times: dict[tuple[str, int], list[float]] = {}
    here = {way: words for way, words in ways.items() if words[0] == "embedded" or shutil.which("flux") is not None}
    for _ in range(repeats):
        for way, (engine, arguments) in here.items():
            env = {**environment(), **engine_environment(engine), **(variables or {})}
            env.pop("FLUX_URI", None)
            for jobs in (few, many):
                times.setdefault((way, jobs), []).append(rule_seconds(snakefile, jobs, *arguments, env=env))
    return {
        way: (statistics.median(times[way, many]) - statistics.median(times[way, few])) / (many - few) for way in here
    }


def _rows(what: str, each: Mapping[str, float], marks: list[tuple[str, str, float]]) -> list[Row]:
    rows = []
    for way, other, factor in marks:
        if way in each:
            ratio = each[way] / each[other]
            rows.append(
                Row(
                    f"{what} {NAMES[way]}, against {NAMES[other]}",
                    f"{each[way]:.3f} s against {each[other]:.3f} s: {ratio:.2f}x", f"<= {factor:g}x", ratio <= factor,
                )
            )  # fmt: skip
    return rows


def measure_scripts(repeats: int = 3) -> list[Row]:
    """Seconds per job of a script rule."""
    ways = {
        "local": ("embedded", LOCAL), "embedded": ("embedded", OURS), "nested": ("embedded", NESTED),
        "flux": ("flux", OURS), "pilot": ("pilot", OURS),
    }  # fmt: skip
    each = seconds_per_job(SCRIPTS, ways, repeats)
    marks = [
        ("embedded", "local", 1.15), ("pilot", "local", 1.15), ("flux", "local", 1.5), ("embedded", "nested", 0.15),
    ]  # fmt: skip
    return _rows("a job of a script rule", each, marks)


def measure_warm(repeats: int = 3) -> list[Row]:
    """Seconds per job of rules that only a nested Snakemake can run."""
    ways = {
        "local": ("embedded", LOCAL), "embedded": ("embedded", OURS), "nested": ("embedded", NESTED),
        "flux": ("flux", OURS),
    }  # fmt: skip
    marks = [("embedded", "nested", 0.3), ("flux", "nested", 0.3), ("embedded", "local", 0.5)]
    rows = _rows("a job of a run rule", seconds_per_job(RUNS, ways, repeats), marks)
    with tempfile.TemporaryDirectory(prefix="bench-store-") as store:
        stored = ("--default-storage-provider", "fs", "--default-storage-prefix", store, "--forceall")
        ways = {"embedded": ("embedded", (*OURS, *stored)), "nested": ("embedded", (*NESTED, *stored))}
        each = seconds_per_job(STORED, ways, repeats)
    return rows + _rows("a job with a storage provider (fs)", each, [("embedded", "nested", 0.4)])


ENDING = """
rule all:
    input: expand("out/{i}.txt", i=range(20))
rule one:
    output: "out/{i}.txt"
    shell: "date +%s.%N > {output}"
"""


def measure_end(repeats: int = 5) -> list[Row]:
    """From the last job's command to the end of Snakemake's process, its instance gone."""
    need_flux()
    env = environment(FLUX_OPERATOR_ENGINE="flux", FLUX_OPERATOR_PROVISIONER="local")
    env.pop("FLUX_URI", None)

    def once(executor: str) -> float:
        with tempfile.TemporaryDirectory(prefix="bench-") as directory:
            (Path(directory) / "Snakefile").write_text(ENDING)
            argv = [sys.executable, "-m", "snakemake", "--executor", executor, "--jobs", "20", "--quiet", "all"]
            run(argv, Path(directory), env)
            end = time.time()
            return end - max(float(path.read_text()) for path in Path(directory).glob("out/*.txt"))

    ours_seconds = statistics.median(once("flux-operator") for _ in range(repeats))
    local_seconds = statistics.median(once("local") for _ in range(repeats))
    return [
        Row(
            "last job's command -> end of Snakemake, its Flux instance gone; Snakemake's local executor beside it",
            f"{ours_seconds:.2f} s against {local_seconds:.2f} s", "<= 1 s", ours_seconds <= 1,
        )
    ]  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(inside(int(sys.argv[1]), with_peer=True)))
