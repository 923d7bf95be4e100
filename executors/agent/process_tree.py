"""Which processes belong to which job, read from /proc; and what makes that answer complete.

A job's processes are the descendants of its tasks. One that is orphaned (double fork, setsid) would be adopted by
init and leave that tree, so the agent becomes a *child subreaper* (prctl(2)): orphans become its own children, and are
known by their session or by two variables in their environment. Not found: an orphan with a session of its own and
an emptied environment. That belongs to no job, but to the instance still: it ends with it (see `instance.keeper`).
"""

from __future__ import annotations

import errno
import os
import signal
from typing import Dict, Iterable, Iterator, List, NamedTuple, Optional, Set

from .wire import EPOCH_VARIABLE

_PR_SET_CHILD_SUBREAPER = 36


class Process(NamedTuple):
    """One line of /proc. ``started`` (clock ticks since boot) tells two lives of one pid apart."""

    pid: int
    ppid: int
    session: int
    state: str
    started: int


def snapshot() -> Dict[int, Process]:
    """Every process that can be seen, zombies included, by pid. Raises OSError where no more files can be opened."""
    found: Dict[int, Process] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            process = read(int(name))
            if process is not None:
                found[process.pid] = process
    return found


def read(pid: int) -> Optional[Process]:
    """One process, or None when there is no such pid."""
    stat = _read("/proc/%d/stat" % pid, 4096)
    end = stat.rfind(b")")  # the name before it may hold anything, blanks and brackets too
    if end < 0:
        return None
    fields = stat[end + 2 :].split()
    return Process(pid, int(fields[1]), int(fields[3]), fields[0].decode("ascii"), int(fields[19]))


def members(processes: Dict[int, Process], tasks: Dict[int, str], epoch: str) -> Dict[str, List[Process]]:
    """Live processes by job id. ``tasks`` maps pids that this process started to their job.

    Costs one pass, whatever the number of jobs; environments are read of orphans alone.
    """
    me = os.getpid()
    children: Dict[int, List[int]] = {}
    for process in processes.values():
        children.setdefault(process.ppid, []).append(process.pid)
    found: Dict[str, List[Process]] = {}
    seen: Set[int] = set()

    def claim(pid: int, job_id: str) -> None:
        for member in _descend(pid, children, seen):
            if processes[member].state not in "ZX":
                found.setdefault(job_id, []).append(processes[member])

    for pid in children.get(me, ()):
        if pid in tasks:
            claim(pid, tasks[pid])
    # Without a subreaper's rights orphans are somewhere below init, so that everything is looked at.
    pending = list(children.get(me, ()) if is_subreaper() else processes)
    while pending:
        pid = pending.pop()
        if pid in seen or pid == me:
            continue
        job_id = tasks.get(processes[pid].session) or job_of_process(pid, epoch)
        if job_id:
            claim(pid, job_id)
        else:
            pending.extend(children.get(pid, ()))
            seen.add(pid)
    return found


def _descend(pid: int, children: Dict[int, List[int]], seen: Set[int]) -> Iterator[int]:
    pending = [pid]
    while pending:
        current = pending.pop()
        if current not in seen:
            seen.add(current)
            yield current
            pending.extend(children.get(current, ()))


def job_of_process(pid: int, epoch: str) -> str:
    """The job that a process says it belongs to, "" if to none of this engine's."""
    environment = _read("/proc/%d/environ" % pid, 1 << 22)
    is_ours, job_id = False, ""
    for entry in environment.split(b"\0"):
        name, _, value = entry.partition(b"=")
        if name == EPOCH_VARIABLE.encode("ascii"):
            is_ours = epoch.encode("ascii") in value.split(b":")
        elif name == b"FLUX_JOB_ID":
            job_id = value.decode("utf-8", "replace")
    return (job_id or "?") if is_ours else ""


def processes_of_epoch(epoch: str) -> List[Process]:
    """Live processes that carry an epoch, and their descendants: for when the engine itself is gone.

    Tasks under Flux carry none, but the job shells that are their parents have the broker's environment.
    """
    processes = snapshot()
    children: Dict[int, List[int]] = {}
    for process in processes.values():
        children.setdefault(process.ppid, []).append(process.pid)
    seen: Set[int] = set()
    found: List[Process] = []
    for pid in processes:
        if job_of_process(pid, epoch):
            found += [processes[member] for member in _descend(pid, children, seen)]
    me = os.getpid()
    return [process for process in found if process.state not in "ZX" and process.pid != me]


def below(root: int) -> List[Process]:
    """Live processes below a process, which is not among them."""
    processes = snapshot()
    children: Dict[int, List[int]] = {}
    for process in processes.values():
        children.setdefault(process.ppid, []).append(process.pid)
    found = (processes[pid] for pid in _descend(root, children, set()) if pid != root and pid in processes)
    return [process for process in found if process.state not in "ZX"]


def send(processes: Iterable[Process], signum: int) -> None:
    """Signal each; one that is gone or that belongs to another user is passed over."""
    for process in processes:
        try:
            os.kill(process.pid, signum)
            if signum == signal.SIGTERM:
                os.kill(process.pid, signal.SIGCONT)  # a stopped process would not see it
        except (ProcessLookupError, PermissionError):
            pass


def _read(path: str, limit: int) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as err:
        if err.errno in (errno.EMFILE, errno.ENFILE):
            raise  # which says nothing of the process
        return b""
    try:
        pieces: List[bytes] = []
        while limit > 0:
            piece = os.read(fd, min(limit, 1 << 16))
            if not piece:
                break
            pieces.append(piece)
            limit -= len(piece)
        return b"".join(pieces)
    except OSError:
        return b""  # it ended meanwhile, or is not ours to read
    finally:
        os.close(fd)


# -- child subreaper: an attribute of the whole process, so engines in one process share it

_users = 0


def become_subreaper() -> bool:
    """Adopt orphans from now on. False where the system does not let us; each True needs one `resign_subreaper`."""
    global _users
    if not _prctl_set(1):
        return False
    _users += 1
    return True


def resign_subreaper() -> None:
    """Undone with the last engine: a process that does not expect orphans would never wait for them."""
    global _users
    _users -= 1
    if _users == 0:
        _prctl_set(0)


def is_subreaper() -> bool:
    return _users > 0


def _prctl_set(value: int) -> bool:
    try:
        import ctypes  # some slim Pythons are built without it
    except ImportError:
        return False
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    return prctl is not None and prctl(_PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(value), 0, 0, 0) == 0
