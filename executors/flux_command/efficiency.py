"""What tasks used of what they asked for: a table beside the run's log, and one line at its end."""

from __future__ import annotations

import csv
import statistics
import threading
from dataclasses import dataclass
from pathlib import Path

from executors import JobResult

COLUMNS = (
    "task", "job", "outcome", "exit", "node", "queue_wait_s", "wall_s", "cores", "cpu_s", "cpu_efficiency",
    "mem_asked_mb", "max_rss_mb", "directory",
)  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """What is known of a task before it runs. ``memory`` in MB of 2^20 bytes, None where none was asked for."""

    task: str
    directory: str
    cores: int
    memory: int | None


class Efficiency:
    """Appends a row per ended task. Thread-safe. Unknown values are empty, never 0."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self.tasks = 0
        self._core_seconds = 0.0
        self._cpu_seconds = 0.0
        self._waits: list[float] = []

    def add(self, asked: Asked, job: str, result: JobResult) -> None:
        """Raises OSError."""
        times = result.times
        wall = max(0.0, times.finish - times.start) if times.start is not None and times.finish is not None else None
        wait = max(0.0, times.start - times.submit) if times.start is not None and times.submit is not None else None
        cpu = result.usage.cpu if result.usage is not None else None
        rss = result.usage.max_rss / 2**20 if result.usage is not None and result.usage.max_rss is not None else None
        ratio = cpu / (wall * asked.cores) if cpu is not None and wall else None
        code = "" if result.returncode is None else result.returncode
        row = (
            asked.task, job, result.outcome, code, result.node, _text(wait, 3), _text(wall, 3), asked.cores,
            _text(cpu, 3), _text(ratio, 3), _text(asked.memory, 0), _text(rss, 1), asked.directory,
        )  # fmt: skip
        with self._lock:
            new = not self.path.exists()
            with self.path.open("a", newline="", errors="surrogateescape") as out:
                writer = csv.writer(out, delimiter="\t", lineterminator="\n")
                if new:
                    writer.writerow(COLUMNS)
                writer.writerow(row)
            self.tasks += 1
            if wall is not None and cpu is not None:
                self._core_seconds += wall * asked.cores
                self._cpu_seconds += cpu
            if wait is not None:
                self._waits.append(wait)

    def summary(self) -> str:
        """One line for the end of a run."""
        parts = [f"{self.tasks} task{'s' if self.tasks != 1 else ''}"]
        if self._core_seconds:
            used = 100 * self._cpu_seconds / self._core_seconds
            digits = 1 if self._core_seconds >= 1 else 3
            parts.append(f"used {used:.0f} % of {self._core_seconds:.{digits}f} core-seconds")
        if self._waits:
            parts.append(f"median queue wait {statistics.median_high(self._waits):.2f} s")
        return f"{', '.join(parts)}; per task: {self.path}"


def _text(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
