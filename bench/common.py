"""What all measurements share: commands, medians, the machine."""

from __future__ import annotations

import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

TRIVIAL = """
N = int(config["num"])
rule all:
    input: expand("out/{i}.txt", i=range(N))
rule one:
    output: "out/{i}.txt"
    shell: "true > {output}"
"""


@dataclass
class Row:
    """One line of the table. ``reached`` is None where there is nothing to reach."""

    what: str
    measured: str
    target: str
    reached: bool | None
    notes: list[str] = field(default_factory=list)


class NotHere(Exception):
    """A measurement that this machine cannot make, and what is missing."""


def environment(**extra: str) -> dict[str, str]:
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("FLUX_OPERATOR_", "SNAKEMAKE_"))}
    return {**environ, **extra}


def run(argv: list[str], cwd: Path, env: Mapping[str, str]) -> float:
    """Seconds that a command takes. Raises RuntimeError with its output when it fails."""
    begin = time.monotonic()
    done = subprocess.run(argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - begin
    if done.returncode:
        raise RuntimeError(f"{argv}: exit code {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return seconds


def until(condition: Callable[[], bool], what: str, pause: float = 0.01, limit: float = 120.0) -> None:
    """Wait for a condition, which is asked every ``pause`` seconds. Raises RuntimeError after ``limit`` seconds."""
    deadline = time.monotonic() + limit
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what}: not within {limit:g} s")
        time.sleep(pause)  # what it waits for can only be asked


def snakemake_seconds(jobs: int, *arguments: str, env: Mapping[str, str], python: str = sys.executable) -> float:
    """Wall time of a Snakemake with so many trivial shell rules, in a fresh directory."""
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        (Path(directory) / "Snakefile").write_text(TRIVIAL)
        argv = [python, "-m", "snakemake", *arguments, "--quiet", "all", "--config", f"num={jobs}"]
        return run(argv, Path(directory), env)


def marginal(seconds: Callable[[int], float], few: int, many: int, repeats: int) -> float:
    """Jobs per second beyond a run's fixed costs: (many - few) jobs by the difference of the medians."""
    low = statistics.median(seconds(few) for _ in range(repeats))
    high = statistics.median(seconds(many) for _ in range(repeats))
    return (many - few) / (high - low)


def ratio_of_pairs(pairs: Sequence[tuple[float, float]]) -> tuple[float, float, float]:
    """The median of the ratios of pairs, and the ends of its 95 % bootstrap interval."""
    ratios = [one / other for one, other in pairs]
    chance = random.Random(1)
    medians = sorted(statistics.median(chance.choices(ratios, k=len(ratios))) for _ in range(2000))
    return statistics.median(ratios), medians[50], medians[-51]


def need_flux() -> str:
    flux = shutil.which("flux")
    if flux is None:
        raise NotHere("Flux is not installed")
    return flux


def rss(pid: int) -> int:
    """Resident memory of a process in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
