"""What jobs used of what they asked for: a table with a row per job, and one line at the end of a run."""

from __future__ import annotations

import csv
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from executors.results import JobResult


class UsageTable:
    """A TSV. Thread-safe. Unknown values are empty, never 0."""

    def __init__(self, path: Path, columns: Sequence[str], noun: str, megabyte: int) -> None:
        """``noun``: what a row is called in words. ``megabyte``: bytes of what the engine calls one."""
        self.path = path
        self._columns = list(columns)
        self._noun = noun
        self._megabyte = megabyte
        self._lock = threading.Lock()
        self.rows = 0
        self._core_seconds = 0.0
        self._cpu_seconds = 0.0
        self._waits: list[float] = []

    def add(
        self, own: Mapping[str, object], job: str, cores: int, memory_asked: float | None, result: JobResult
    ) -> None:
        """Add a row. ``own``: values of columns that are not filled in here. ``memory_asked``: the engine's megabytes.

        Raises OSError.
        """
        times = result.times
        wall = max(0.0, times.finish - times.start) if times.start is not None and times.finish is not None else None
        wait = max(0.0, times.start - times.submit) if times.start is not None and times.submit is not None else None
        cpu = result.usage.cpu if result.usage is not None else None
        rss = result.usage.max_rss if result.usage is not None else None
        ratio = cpu / (wall * cores) if cpu is not None and wall else None
        row = {
            **own,
            "job": job,
            "outcome": result.outcome,
            "exit": "" if result.returncode is None else result.returncode,
            "node": result.node,
            "queue_wait_s": _text(wait, 3),
            "wall_s": _text(wall, 3),
            "cores": cores,
            "cpu_s": _text(cpu, 3),
            "cpu_efficiency": _text(ratio, 3),
            "mem_asked_mb": _text(memory_asked, 0),
            "max_rss_mb": _text(None if rss is None else rss / self._megabyte, 1),
        }
        with self._lock:
            new = not self.path.exists()
            with self.path.open("a", newline="", errors="surrogateescape") as out:
                writer = csv.writer(out, delimiter="\t", lineterminator="\n")
                if new:
                    writer.writerow(self._columns)
                writer.writerow([row[name] for name in self._columns])
            self.rows += 1
            if wall is not None and cpu is not None:
                self._core_seconds += wall * cores
                self._cpu_seconds += cpu
            if wait is not None:
                self._waits.append(wait)

    def summary(self) -> str:
        """One line for the end of a run."""
        parts = [f"{self.rows} {self._noun}{'s' if self.rows != 1 else ''}"]
        if self._core_seconds:
            used = 100 * self._cpu_seconds / self._core_seconds
            digits = 1 if self._core_seconds >= 1 else 3
            parts.append(f"used {used:.0f} % of {self._core_seconds:.{digits}f} core-seconds")
        if self._waits:
            waits = sorted(self._waits)
            parts.append(f"median queue wait {waits[len(waits) // 2]:.2f} s")
        return f"{', '.join(parts)}; per {self._noun}: {self.path}"


def _text(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
