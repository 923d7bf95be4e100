"""Run all measurements, or the named ones. Their rows replace the old ones in docs/benchmarks.md."""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import traceback
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bench import (
    airflow,
    core,
    kubernetes,
    lammps,
    nextflow,
    operator,
    operator_hostname,
    operator_scale,
    pilot,
    pods,
    render,
    rules,
    short_tasks,
    wrappers,
)
from bench.common import ROOT, NotHere, Row

MEASUREMENTS: dict[str, Callable[[], list[Row]]] = {
    "import": core.measure_import,
    "render": render.measure_render,
    "ingest": core.measure_ingest,
    "latency": rules.measure_latency,
    "memory": core.measure_memory,
    "embedded": rules.measure_embedded,
    "short-tasks": short_tasks.measure_short_tasks,
    "rules": rules.measure_flux,
    "pilot": pilot.measure_pilot,
    "pilot-start": pilot.measure_start,
    "pilot-rules": pilot.measure_rules,
    "pilot-memory": pilot.measure_memory,
    "pilot-pods": pods.measure_pilot_pods,
    "scripts": rules.measure_scripts,
    "warm": rules.measure_warm,
    "s3": pods.measure_s3,
    "wrappers": wrappers.measure_wrappers,
    "end": rules.measure_end,
    "kubernetes": kubernetes.measure_kubernetes,
    "kubernetes-rules": kubernetes.measure_kubernetes_rules,
    "operator": operator.measure_operator,
    "operator-scale": operator_scale.measure_operator_scale,
    "upstream": operator.measure_upstream,
    "upstream-dns": operator.measure_remembering_dns,
    "hostname": operator_hostname.measure_hostname,
    "lammps": lammps.measure_lammps,
    "lammps-operator": lammps.measure_lammps_operator,
    "airflow": airflow.measure_airflow,
    "nextflow-command": nextflow.measure_command,
    "nextflow-tasks": nextflow.measure_tasks,
    "nextflow": nextflow.measure_nextflow,
    "nextflow-kubernetes": nextflow.measure_kubernetes,
}
PAGE = ROOT / "docs" / "benchmarks.md"
MARK = "<!-- everything above this line is written by `make bench` -->"


def machine() -> str:
    def of(package: str) -> str:
        try:
            return version(package)
        except PackageNotFoundError:
            return "not installed"

    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    flux = subprocess.run(["flux", "version"], capture_output=True, text=True, check=False).stdout.split("\n")[0]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{len(os.sched_getaffinity(0))} cores ({model}), {memory:.0f} GiB, Linux {platform.release()}; "
        f"Python {platform.python_version()}, Snakemake {of('snakemake')}, Flux {flux.split()[-1] if flux else 'none'}"
    )


def line_of(row: Row) -> str:
    reached = {True: "yes", False: "**no**", None: ""}[row.reached]
    note = f" ({'; '.join(row.notes)})" if row.notes else ""
    return f"| {row.what} | {row.measured}{note} | {row.target} | {reached} |"


def page(rows: list[Row], missing: list[str]) -> str:
    lines = ["# Benchmarks", "", f"Machine: {machine()}.", ""]
    lines += ["| what | measured | to reach | reached |", "|---|---|---|---|", *map(line_of, rows)]
    lines += ["", *(f"Not measured here: {one}." for one in missing), MARK]
    return "\n".join(lines)


def replace_rows(text: str, rows: list[Row]) -> str:
    """The page with the rows of a partial run in place of the older ones."""
    lines = text.split("\n")
    for row in rows:
        table = [index for index, line in enumerate(lines[: lines.index(MARK)]) if line.startswith("| ")]
        old = next((index for index in table if lines[index].startswith(f"| {row.what} |")), None)
        if old is None:
            lines.insert(table[-1] + 1, line_of(row))
        else:
            lines[old] = line_of(row)
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*MEASUREMENTS, []], help="default: all")
    parser.add_argument(
        "--memory-jobs", type=int, help="measure the memory of this many jobs, instead of 20,000, and nothing else"
    )
    arguments = parser.parse_args()
    rows: list[Row] = []
    missing: list[str] = []
    failed = False
    chosen = {name: MEASUREMENTS[name] for name in arguments.names or MEASUREMENTS}
    if arguments.memory_jobs:
        chosen = {"memory": lambda: core.measure_memory(arguments.memory_jobs)}
    for name, measure in chosen.items():
        print(f"measuring: {name} ...", flush=True)
        try:
            found = measure()
        except NotHere as err:
            missing.append(f"{name} ({err})")
            continue
        except Exception:  # the other measurements are still wanted; the run fails at its end
            traceback.print_exc()
            missing.append(f"{name} (it failed)")
            failed = True
            continue
        for row in found:
            print(f"  {row.what}: {row.measured} (to reach: {row.target}) {row.notes or ''}", flush=True)
        rows += found
    if not arguments.names and not arguments.memory_jobs:
        kept = PAGE.read_text().split(MARK, 1)[1] if PAGE.exists() and MARK in PAGE.read_text() else "\n"
        PAGE.write_text(page(rows, missing) + kept)
        print(f"written: {PAGE.relative_to(ROOT)}")
    elif PAGE.exists() and rows:
        PAGE.write_text(replace_rows(PAGE.read_text(), rows))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
