"""What jobs used of what they asked for: a TSV in the log directory, and one line at the end of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from executors import JobResult
from executors.efficiency import UsageTable

FILE = "efficiency.tsv"
COLUMNS = (
    "rule", "wildcards", "attempt", "job", "outcome", "node", "step", "queue_wait_s", "wall_s", "cores", "cpu_s",
    "cpu_efficiency", "mem_asked_mb", "max_rss_mb",
)  # fmt: skip
#: As Snakemake counts.
_MEGABYTE = 10**6


@dataclass(frozen=True)
class Asked:
    """What is known of a job before it runs. ``memory`` in MB (10^6 bytes), None where none was asked for."""

    rule: str
    wildcards: str
    attempt: int
    step: str
    cores: int
    memory: float | None


class Efficiency:
    """Appends one row per ended job. Thread-safe. Unknown values are empty, never 0."""

    def __init__(self, directory: Path) -> None:
        self._table = UsageTable(directory / FILE, COLUMNS, "job", _MEGABYTE)

    @property
    def jobs(self) -> int:
        return self._table.rows

    @property
    def path(self) -> Path:
        return self._table.path

    def add(self, asked: Asked, job_id: str | None, result: JobResult) -> None:
        """Raises OSError."""
        own = {"rule": asked.rule, "wildcards": asked.wildcards, "attempt": asked.attempt, "step": asked.step}
        self._table.add(own, job_id or "", asked.cores, asked.memory, result)

    def summary(self) -> str:
        """One line for the end of a run."""
        return self._table.summary()
