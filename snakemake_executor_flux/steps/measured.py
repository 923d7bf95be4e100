"""Runs a rule's command under Snakemake's own benchmark timer, inside the Flux job.

``python -m snakemake_executor_flux.steps.measured RECORD SHELL COMMAND...``: each COMMAND is one repetition. The
measurements go to RECORD as JSON; the main process adds what only it knows and writes the benchmark file.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys

#: Fields of snakemake.benchmark.BenchmarkRecord that are measured here.
FIELDS = (
    "running_time",
    "max_rss",
    "max_vms",
    "max_uss",
    "max_pss",
    "io_in",
    "io_out",
    "cpu_usage",
    "cpu_time",
    "data_collected",
    "process_gone",
    "errors",
)


def main(argv: list[str]) -> int:
    from snakemake.benchmark import BenchmarkRecord, benchmarked

    record_file, program, *commands = argv
    records = []
    for command in commands:
        record = BenchmarkRecord()
        process = subprocess.Popen([program, "-c", command])
        with benchmarked(process.pid, record):
            code = process.wait()
        if code:
            return _same_end(code)
        records.append({name: getattr(record, name) for name in FIELDS})
    with open(record_file, "w", encoding="utf-8") as out:
        json.dump(records, out)
    return 0


def _same_end(code: int) -> int:
    """End as the command did: by the same signal, or with the same exit code."""
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        signal.raise_signal(-code)
        return 128 - code
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
