"""One process of Airflow with all that it starts: begun, signalled, and ended for certain."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

from tests.airflow.waiting import until
from tests.processes import alive


class Component:
    """A session (setsid) of its own: Airflow's workers make process groups, but stay in the session, even orphaned."""

    def __init__(self, arguments: list[str], environment: Mapping[str, str], log: Path) -> None:
        self._command = [sys.executable, "-m", "airflow", *arguments]
        self._environment = dict(environment)
        self._log = log
        self._processes: list[subprocess.Popen[bytes]] = []
        self.started_at = 0.0
        """Seconds since the epoch, of the last start."""

    def start(self) -> None:
        self.started_at = time.time()
        with self._log.open("ab") as log:
            self._processes.append(
                subprocess.Popen(
                    self._command,
                    env=self._environment,
                    cwd=self._environment["AIRFLOW_HOME"],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            )

    @property
    def pid(self) -> int:
        return self._processes[-1].pid

    def started(self) -> bool:
        return bool(self._processes)

    def running(self) -> bool:
        return self._processes[-1].poll() is None

    def kill(self, number: signal.Signals) -> None:
        """The signal for the main process only."""
        os.kill(self.pid, number)

    def wait(self, limit: float) -> int:
        return self._processes[-1].wait(limit)

    def tail(self, lines: int = 30) -> str:
        text = self._log.read_text(errors="replace") if self._log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def members(self) -> list[int]:
        """All that runs of this component, those of its former starts too."""
        sessions = {process.pid for process in self._processes}
        found = []
        for pid in psutil.pids():
            with contextlib.suppress(ProcessLookupError):
                if os.getsid(pid) in sessions and alive(pid):
                    found.append(pid)
        return found

    def kill_all(self) -> None:
        """SIGKILL until nothing of it runs: what happens to a component whose host is lost."""

        def nothing_left() -> bool:
            left = self.members()
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return not left

        until(nothing_left, 10, lambda: f"processes that SIGKILL does not end: {self.members()}")
        for process in self._processes:
            process.wait(10)
