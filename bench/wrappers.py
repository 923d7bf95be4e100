"""A workflow of 40 jobs of wrappers, as a small variant-calling workflow has them: whole runs, the start included.

The wrappers are files of the workflow's own, and their commands take no time: what is measured is what a job costs.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path

from bench.common import Row, environment, need_flux, run
from bench.rules import LOCAL, NAMES, NESTED, OURS
from tests.support.environment import engine_environment

_SAMPLES = 8
_STEPS = ("trim", "map", "sort", "dedup", "call")
_WRAPPER = """
from snakemake.shell import shell
extra = snakemake.params.get("extra", "")
log = snakemake.log_fmt_shell(stdout=False, stderr=True)
shell("cat {snakemake.input} > {snakemake.output} {log}; echo {snakemake.rule} {extra} >> {snakemake.output}")
"""
_WAYS = {
    "embedded": ("embedded", OURS),
    "flux": ("flux", OURS),
    "pilot": ("pilot", OURS),
    "nested": ("embedded", NESTED),
    "local": ("embedded", LOCAL),
}


def measure_wrappers(repeats: int = 3) -> list[Row]:
    """All ways in turn."""
    need_flux()
    seconds: dict[str, list[float]] = {way: [] for way in _WAYS}
    for _ in range(repeats):
        for way, (engine, arguments) in _WAYS.items():
            seconds[way].append(_whole_run(engine, arguments))
    rows = []
    for way in ("embedded", "flux", "pilot"):
        for other, limit in (("nested", 0.3), ("local", 1.2)):
            both = zip(seconds[way], seconds[other], strict=True)
            ratio = statistics.median(ours / theirs for ours, theirs in both)
            ours, theirs = statistics.median(seconds[way]), statistics.median(seconds[other])
            row = Row(
                f"{_SAMPLES * len(_STEPS)} jobs of wrappers, whole run {NAMES[way]}, against {NAMES[other]}",
                f"{ours:.1f} s against {theirs:.1f} s: {ratio:.2f}x",
                f"<= {limit:g}x",
                ratio <= limit,
            )
            rows.append(row)
    return rows


def _snakefile(directory: Path) -> str:
    text = f'rule all:\n    input: expand("call/{{i}}.txt", i=range({_SAMPLES}))\n'
    for before, step in zip(("data", *_STEPS), _STEPS, strict=False):
        text += (
            f'rule {step}:\n    input: "{before}/{{i}}.txt"\n    output: "{step}/{{i}}.txt"\n'
            f'    log: "logs/{step}/{{i}}.log"\n    params: extra="-q 20"\n    wrapper: "file://{directory}/wrapper"\n'
        )
    return text


def _whole_run(engine: str, arguments: tuple[str, ...]) -> float:
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        directory = Path(name)
        for made in ("data", "wrapper"):
            (directory / made).mkdir()
        for sample in range(_SAMPLES):
            (directory / "data" / f"{sample}.txt").write_text(f"{sample}\n")
        (directory / "wrapper" / "wrapper.py").write_text(_WRAPPER)
        # Snakemake records what it says, though nothing is to be installed.
        (directory / "wrapper" / "environment.yaml").write_text("channels: [conda-forge]\ndependencies: []\n")
        (directory / "Snakefile").write_text(_snakefile(directory))
        env = {**environment(), **engine_environment(engine)}
        return run([sys.executable, "-m", "snakemake", *arguments, "--quiet", "all"], directory, env)
