"""Processes that a task has left on this machine: they have ignored TERM, and its wrapper, which ended at that, has not
waited for them. Flux's job ends with the wrapper.
"""

from __future__ import annotations

import os
import signal
import time

from executors.flux_command.environment import TASK
from executors.flux_command.processes import environments

#: Seconds from TERM to KILL, as Flux's own.
GRACE = 5.0
_INTERVAL = 0.1


def end(run: str, job: str, grace: float = GRACE) -> int:
    """Wait until nothing of a job is there, and kill what is there after ``grace`` seconds. How many that were.

    ``job`` is its id in plain form; a task's environment has it after a first letter that differs by locale.
    """
    deadline = time.monotonic() + grace
    while pids := _of_job(run, job):
        if time.monotonic() > deadline:
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass  # it has ended meanwhile
            return len(pids)
        time.sleep(_INTERVAL)  # they are not our children, so nothing tells of their end
    return 0


def _of_job(run: str, job: str) -> list[int]:
    mark, wanted = f"{TASK}={run}".encode(), job[1:].encode()
    return [pid for pid, words in environments() if mark in words and any(_is_job(word, wanted) for word in words)]


def _is_job(word: bytes, wanted: bytes) -> bool:
    name, _, value = word.partition(b"=")
    # One letter, of one byte or of two.
    return name == b"FLUX_JOB_ID" and value.endswith(wanted) and len(value) - len(wanted) in (1, 2)
