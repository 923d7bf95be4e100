"""Signals that a process waits for: they are read from a descriptor, and none is missed.

A handler of Python's runs between two instructions of the main thread. A signal that comes when Python has just looked
for signals, and before it waits in the kernel, is noted and breaks no wait: its handler runs when something else has
ended the wait. So the number of each signal is written to a pipe when it comes (signal.set_wakeup_fd), which a wait
includes.
"""

from __future__ import annotations

import os
import select
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional


class Signals:
    """Of the main thread of a process, for the rest of its life."""

    def __init__(self, *signums: int) -> None:
        self._read, write = os.pipe()
        for fd in (self._read, write):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        for signum in signums:
            signal.signal(signum, lambda *_: None)
        # What has started this process may have blocked them.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signums)

    def wait(self, timeout: Optional[float] = None, fd: int = -1) -> bytes:
        """Numbers of the signals that have come since the last call; none after ``timeout`` seconds, and where ``fd``
        can be read before a signal comes."""
        poll = select.poll()
        poll.register(self._read, select.POLLIN)
        if fd >= 0:
            poll.register(fd, select.POLLIN)
        ready = [one for one, _ in poll.poll(None if timeout is None else max(0, int(timeout * 1000 + 0.999)))]
        return os.read(self._read, 4096) if self._read in ready else b""
