"""Snakemake's ``benchmark:`` files, from what a job measured of itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def record_path(log: Path) -> Path:
    """Where the job with this log leaves what it measured."""
    return log.with_suffix(".benchmark.json")


def write_benchmark(job: Any, workflow: Any, record_file: Path) -> None:
    """The benchmark file, by Snakemake's own writer, from what the job measured. Raises OSError."""
    from snakemake.benchmark import BenchmarkRecord, write_benchmark_records

    if not record_file.exists():
        return  # of an earlier Snakemake, whose job took the nested step and writes the file itself
    records = []
    for values in json.loads(record_file.read_text()):
        record = BenchmarkRecord()
        for name, value in values.items():
            setattr(record, name, value)
        record.jobid = job.jobid
        record.rule_name = job.rule.name
        record.wildcards = job.wildcards
        record.params = job.params
        record.resources = job.resources
        record.input = job.input._plainstrings()
        record.threads = job.threads
        records.append(record)
    write_benchmark_records(records, str(job.benchmark), workflow.output_settings.benchmark_extended)
    record_file.unlink()
