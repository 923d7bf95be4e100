"""Programs that a client has run beside its jobs, outside of any of them: one of each name on this node."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import Callable, Dict, List

from . import exits


class Helpers:
    """They end with the engine, or by themselves."""

    def __init__(self, watch: Callable[[int, Callable[[], None]], None]) -> None:
        """``watch`` calls back when a process has ended."""
        self._watch = watch
        self._pids: Dict[str, int] = {}

    def start(self, name: str, command: List[str], env: Dict[str, str]) -> None:
        """Start it, unless it runs. Raises OSError and ValueError where that cannot be done."""
        if name in self._pids:
            return
        # Its output is the agent's log. It carries no mark of a job, so that what a job has it do can carry the job's.
        process = subprocess.Popen(
            command, cwd="/", env=env, stdin=subprocess.DEVNULL, stdout=2, stderr=2, start_new_session=True
        )
        process.returncode = 0  # as with a job's tasks: the status is taken by pid
        exits.started.add(process.pid)
        self._pids[name] = process.pid
        self._watch(process.pid, lambda: self._ended(name, process.pid))

    def _ended(self, name: str, pid: int) -> None:
        exits.take(pid)
        if self._pids.get(name) == pid:
            del self._pids[name]

    def stop(self) -> None:
        """End all of them, now that no job can need them."""
        for pid in self._pids.values():
            try:
                os.killpg(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # it ends by itself
            os.waitpid(pid, 0)
            exits.started.discard(pid)
        self._pids.clear()
