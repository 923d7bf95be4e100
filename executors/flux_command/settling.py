"""How a task gets its result where its wrapper could not write it, and what its log says of that. What touches files
runs on a thread of the pool.
"""

from __future__ import annotations

import logging
import os
import time

from executors import JobResult, Outcome
from executors.flux_command import ending, leftovers, records
from executors.flux_command.memory import memory_problem
from executors.flux_command.task import Task

log = logging.getLogger(__name__)

#: Seconds in which a result file that a wrapper elsewhere has written becomes visible here.
LATENCY = 10.0
_LOOKS = 20
#: Seconds from TERM to KILL for tasks whose Nextflow has ended.
GRACE = 2.0


def settle(task: Task, result: JobResult, run: str, *, alone: bool) -> None:
    """Give a task whose job has ended its result. ``run``: the run's name. ``alone``: all jobs are on this machine.
    Raises OSError."""
    why = reason_of(task.why, result)
    if why is not None and alone:
        leftovers.end(run, task.id, GRACE if task.abandoned else leftovers.GRACE)
    could_not_run = result.outcome is Outcome.FAILED and result.exception is not None
    started = (result.times.start is not None or result.returncode is not None) and not could_not_run
    content = records.read_result(task.directory, refresh=not alone)
    if ending.recorded(content) is None and result.returncode is not None and not alone:
        content = _wait_for_result(task.directory)
    status = ending.to_write(content, result.returncode, started, why)
    text = sentence(task.id, result, task.why)
    kills = task.group.kills() if task.group is not None and not result.ok else 0
    if kills and task.asked.memory is not None:
        text = f"job {task.id} ran {memory_problem(kills, task.asked.memory)}"
    if text and (status is not None or why is not None or kills):
        say(task.directory, text)
    if status is not None:
        records.write_result(task.directory, status)


def refuse(directory: bytes, why: str) -> None:
    """Raises OSError."""
    records.add_to_log(directory, why)
    records.write_result(directory, ending.NEVER_STARTED)


def reason_of(ours: str | None, result: JobResult) -> str | None:
    """Why a job was ended, by us or by others; None where it ended by itself, or was killed."""
    if ours is not None:
        return ours
    match result.outcome:
        case Outcome.TIMEOUT:
            return ending.LIMIT
        case Outcome.CANCELLED:
            return ending.CANCELLED
        case Outcome.LOST:
            return ending.LOST
        case Outcome.UNKNOWN if result.returncode is None and result.times.start is not None:
            return ending.LOST
    return None


def sentence(task: str, result: JobResult, ours: str | None) -> str:
    """For the task's log: how its job ended; "" where its own wrapper says enough, or it was said before."""
    if ours is not None or result.outcome is Outcome.COMPLETED:
        return ""
    killed = ", as where memory runs out" if result.signal == 9 and result.outcome is Outcome.SIGNALED else ""
    return f"job {task} {result.describe()}{killed}"


def _wait_for_result(directory: bytes) -> bytes | None:
    """A wrapper on another node has exited, so it has written; a network file system shows that later."""
    content = None
    for _ in range(_LOOKS):
        time.sleep(LATENCY / _LOOKS)  # nothing tells of it; on a thread of its own
        content = records.read_result(directory, refresh=True)
        if ending.recorded(content) is not None:
            break
    return content


def say(directory: bytes, text: str) -> None:
    try:
        records.add_to_log(directory, text)
    except OSError as err:
        log.warning("%s: %s", os.fsdecode(directory), err)
