"""Who a session lives for: processes of whose end the kernel tells by a pidfd, so that nothing is polled.

Kernels before 5.3 have none; there the few processes are looked at each second.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Iterator

from executors.flux_command.environment import SESSION
from executors.flux_command.processes import environments

#: Seconds between two looks where there are no pidfds.
_INTERVAL = 1.0


class Holders:
    """Calls back on the loop, once for each process that has ended."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_end: Callable[[int], None]) -> None:
        self._loop = loop
        self._on_end = on_end
        self._fds: dict[int, int] = {}
        #: By when they began, in the kernel's ticks: without a pidfd.
        self._looked_at: dict[int, str] = {}

    def __contains__(self, pid: int) -> bool:
        return pid in self._fds or pid in self._looked_at

    def __bool__(self) -> bool:
        return bool(self._fds or self._looked_at)

    def add(self, pid: int) -> bool:
        """Whether the process lives. One that is held already is no other."""
        if pid in self:
            return True
        try:
            fd = os.pidfd_open(pid)
        except OSError as err:
            return err.errno == errno.ENOSYS and self._look_at(pid)  # else it has ended
        self._fds[pid] = fd
        self._loop.add_reader(fd, self._ended, pid)
        return True

    def remove(self, pid: int) -> None:
        fd = self._fds.pop(pid, None)
        if fd is not None:
            self._loop.remove_reader(fd)
            os.close(fd)
        self._looked_at.pop(pid, None)

    def close(self) -> None:
        for pid in (*self._fds, *self._looked_at):
            self.remove(pid)

    def _look_at(self, pid: int) -> bool:
        begun = _begun(pid)
        if begun is None:
            return False
        if not self._looked_at:
            self._loop.call_later(_INTERVAL, self._look)
        self._looked_at[pid] = begun
        return True

    def _look(self) -> None:
        for pid, begun in list(self._looked_at.items()):
            if _begun(pid) != begun:
                self._ended(pid)
        if self._looked_at:
            self._loop.call_later(_INTERVAL, self._look)

    def _ended(self, pid: int) -> None:
        self.remove(pid)
        self._on_end(pid)


def keeps_its_tasks(pid: int) -> bool:
    """Whether a Nextflow was told to leave its jobs alone when it ends."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().split(b"\0")
        with open(f"/proc/{pid}/environ", "rb") as file:
            environ = file.read().split(b"\0")
    except OSError:
        return False
    said = any(word.startswith(b"NXF_DISABLE_JOBS_CANCELLATION=") and word[-1:] != b"=" for word in environ)
    return said or b"-disable-jobs-cancellation" in words


def _begun(pid: int) -> str | None:
    """When a process began; None for one that has ended."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            words = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    return None if words[0] in "ZX" else words[19]


def processes_of_session(directory: str) -> Iterator[int]:
    """Processes whose environment names the session, as Nextflow's has that was put into the background."""
    wanted = f"{SESSION}={directory}".encode()
    for pid, words in environments():
        if wanted in words and _begun(pid) is not None:
            yield pid
