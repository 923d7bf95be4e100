"""What jobs used of what they asked for: a TSV in the log directory, and one line at the end of a run."""

from __future__ import annotations

import csv
import threading
from dataclasses import dataclass
from pathlib import Path

from executors import JobResult

FILE = "efficiency.tsv"
COLUMNS = (
    "rule", "wildcards", "attempt", "job", "outcome", "node", "step", "queue_wait_s", "wall_s", "cores", "cpu_s",
    "cpu_efficiency", "mem_asked_mb", "max_rss_mb",
)  # fmt: skip


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
        self._path = directory / FILE
        self._lock = threading.Lock()
        self.jobs = 0
        self._core_seconds = 0.0
        self._cpu_seconds = 0.0
        self._waits: list[float] = []

    def add(self, asked: Asked, job_id: str | None, result: JobResult) -> None:
        """Raises OSError."""
        times = result.times
        ran = times.start is not None and times.finish is not None
        wall = max(0.0, times.finish - times.start) if times.start is not None and times.finish is not None else None
        wait = max(0.0, times.start - times.submit) if times.start is not None and times.submit is not None else None
        cpu = result.usage.cpu if result.usage is not None else None
        rss = result.usage.max_rss / 1e6 if result.usage is not None and result.usage.max_rss is not None else None
        ratio = cpu / (wall * asked.cores) if cpu is not None and wall else None
        row = (
            asked.rule, asked.wildcards, asked.attempt, job_id or "", result.outcome, result.node, asked.step,
            _text(wait, 3), _text(wall, 3), asked.cores, _text(cpu, 3), _text(ratio, 3), _text(asked.memory, 0),
            _text(rss, 1),
        )  # fmt: skip
        with self._lock:
            new = not self._path.exists()
            with self._path.open("a", newline="") as out:
                writer = csv.writer(out, delimiter="\t", lineterminator="\n")
                if new:
                    writer.writerow(COLUMNS)
                writer.writerow(row)
            self.jobs += 1
            if ran and wall is not None and cpu is not None:
                self._core_seconds += wall * asked.cores
                self._cpu_seconds += cpu
            if wait is not None:
                self._waits.append(wait)

    def summary(self) -> str:
        """One line for the end of a run."""
        parts = [f"{self.jobs} job{'s' if self.jobs != 1 else ''}"]
        if self._core_seconds:
            used = 100 * self._cpu_seconds / self._core_seconds
            digits = 1 if self._core_seconds >= 1 else 3
            parts.append(f"used {used:.0f} % of {self._core_seconds:.{digits}f} core-seconds")
        if self._waits:
            waits = sorted(self._waits)
            parts.append(f"median queue wait {waits[len(waits) // 2]:.2f} s")
        return f"{', '.join(parts)}; per job: {self._path}"


def _text(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
