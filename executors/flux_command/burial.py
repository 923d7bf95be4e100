"""What the command ``flux`` does where the session of its run is dead: the run ends with the reason, and never hangs.

Standard library only; `client` imports it where it is needed. The instance is ended first; then every
task of the table that has no result gets one, and Nextflow is told that all have ended.
"""

import fcntl
import json
import os
import re
import subprocess
import time

from executors.flux_command import ending, records

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

#: Seconds to end what the session has left, less than Nextflow waits for `flux jobs`.
_END_LIMIT = 30.0
#: As `arguments._CARRIED`, which would load more than a dead session's command needs.
_CARRIED = re.compile(r'--job-name="fxo((?::(?:[tmg]\d+|i))*) ')
REASON = "the session of this run ended unexpectedly (was it killed?)"


def answer(directory: str, argv: "list[str]") -> "tuple[int, str]":
    """Returns the exit code of the command, and what it prints."""
    lock = hold(directory)
    if lock is None:
        return 1, "flux: the session of this run does not answer now: Socket timed out\n"
    if argv[0] == "submit":
        made = _refuse_ignored(argv)
        if made:
            return 0, f"{made}\n"
        return 1, f"flux: {REASON}; nothing can be submitted any more. Start Nextflow again with -resume\n"
    tasks = bury(directory)
    if argv[0] == "jobs":
        return 0, "".join(f"{task} C\n" for task in tasks)
    return 0, ""


def _refuse_ignored(argv: "list[str]") -> str:
    """An id for a task whose process ignores failures, with the result that it has failed; "" for others.

    Nextflow waits for ever for an ignored task that could not be submitted (see `tasks.Tasks.refuse`).
    """
    carried = _CARRIED.match(argv[2]) if len(argv) > 2 else None
    if carried is None or ":i" not in carried[1]:
        return ""
    work = os.fsencode(os.getcwd())
    try:
        records.add_to_log(work, f"the job could not be submitted: {REASON}")
        records.write_result(work, ending.NEVER_STARTED)
    except OSError:
        return ""
    return "f" + os.urandom(6).hex().replace("0", "z")  # no digit of base 58


def hold(directory: str, patience: float = 2.0) -> "int | None":
    """The lock that a session holds while it lives; None where it lives. Where the directory is gone, nobody does."""
    try:
        fd = os.open(directory + "/lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return -1
    end = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            # It has closed its socket just now, or another of our commands is at it.
            if time.monotonic() > end:
                return None
            time.sleep(0.05)
        else:
            return fd


def bury(directory: str) -> "list[str]":
    """End what is left, and give every task its result. The ids of all tasks."""
    try:
        tasks = records.read_table(directory + "/table")
    except OSError:
        return []
    unfinished = [work for work, ended in tasks.values() if not ended]
    if not os.path.exists(directory + "/buried"):
        for work in unfinished:
            _quietly(_say, work)
        end_instance(directory)
        remove_groups(directory + "/groups")
        open(directory + "/buried", "w").close()
    for work in unfinished:
        _quietly(_give_result, work)
    return list(tasks)


def _say(work: bytes) -> None:
    if ending.recorded(records.read_result(work)) is None:
        records.add_to_log(work, f"the job was ended: {REASON}")


def _give_result(work: bytes) -> None:
    if ending.recorded(records.read_result(work, refresh=True)) is None:
        records.write_result(work, ending.ENDED)


def _quietly(function: "Callable[[bytes], None]", work: bytes) -> None:
    """A directory that is gone, or full, harms no other task; of the first Nextflow says so itself."""
    try:
        function(work)
    except OSError:
        pass


def remove_groups(path: str) -> None:
    """Control groups of tasks, which are empty by now."""
    try:
        with open(path) as file:
            base = file.read()
        for name in next(os.walk(base))[1]:
            os.rmdir(os.path.join(base, name))
        os.rmdir(base)
    except (OSError, StopIteration):
        pass  # there are none, or a process is in one still


def end_instance(directory: str) -> None:
    """By the command that the session has left for it; its instance ends by its own time-out if that fails."""
    try:
        with open(directory + "/session.json") as file:
            command = json.load(file)["end"]
        subprocess.run(
            command, cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            timeout=_END_LIMIT, check=False,
        )  # fmt: skip
    except (OSError, ValueError, KeyError, subprocess.TimeoutExpired):
        pass
