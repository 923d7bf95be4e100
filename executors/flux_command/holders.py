"""Who a session lives for: processes of whose end the kernel tells by a pidfd, so that nothing is polled."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator

from executors.flux_command.environment import SESSION


class Holders:
    """Calls back on the loop, once for each process that has ended."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_end: Callable[[int], None]) -> None:
        self._loop = loop
        self._on_end = on_end
        self._fds: dict[int, int] = {}

    def __contains__(self, pid: int) -> bool:
        return pid in self._fds

    def __bool__(self) -> bool:
        return bool(self._fds)

    def add(self, pid: int) -> bool:
        """Whether the process lives. One that is held already is no other."""
        if pid in self._fds:
            return True
        try:
            fd = os.pidfd_open(pid)
        except OSError:  # it has ended, or may not be looked at: no process of the user's
            return False
        self._fds[pid] = fd
        self._loop.add_reader(fd, self._ended, pid)
        return True

    def remove(self, pid: int) -> None:
        fd = self._fds.pop(pid, None)
        if fd is not None:
            self._loop.remove_reader(fd)
            os.close(fd)

    def close(self) -> None:
        for pid in list(self._fds):
            self.remove(pid)

    def _ended(self, pid: int) -> None:
        self.remove(pid)
        self._on_end(pid)


def of_session(directory: str) -> Iterator[int]:
    """Processes whose environment names the session, as Nextflow's has that was put into the background."""
    wanted = f"{SESSION}={directory}".encode()
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/environ", "rb") as file:
                words = file.read().split(b"\0")
            with open(f"/proc/{entry}/stat", "rb") as file:
                state = file.read().rpartition(b")")[2].split()[0]
        except OSError:
            continue  # another user's, or it has just ended
        if wanted in words and state not in (b"Z", b"X"):
            yield int(entry)
