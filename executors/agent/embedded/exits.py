"""Hearing that a process has ended, and taking the exit status of the right ones.

A pidfd becomes readable when its process ends: no signal handler (those belong to the main thread), no polling, no
thread. Python has `os.pidfd_open` since 3.9; 3.8 gets it by system call, and a kernel without it one thread per task.
"""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from typing import Callable, Dict, List, Optional, Set, Tuple

from .. import process_tree

#: Number of pidfd_open(2), the same on every architecture that Flux runs on.
_SYS_PIDFD_OPEN = 434
#: Seconds between two searches for dead orphans; they only happen when a task ends.
SWEEP_INTERVAL = 1.0

#: Pids that engines of this process have started and not waited for: nobody else's to reap.
started: Set[int] = set()


def pidfd_open(pid: int) -> int:
    """A pidfd. Raises OSError: ESRCH for no such process, ENOSYS and others where there are no pidfds."""
    native = getattr(os, "pidfd_open", None)
    if native is not None:
        return int(native(pid))
    try:
        import ctypes
    except ImportError:
        raise OSError(errno.ENOSYS, "no ctypes") from None
    fd = int(ctypes.CDLL(None, use_errno=True).syscall(_SYS_PIDFD_OPEN, pid, 0))
    if fd < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return fd  # the kernel makes it close-on-exec


class ExitWatcher:
    """Calls back on the loop, once, when a process has ended; the status is left for the caller to take."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._fds: Dict[int, Callable[[], None]] = {}

    def watch(self, pid: int, callback: Callable[[], None]) -> None:
        """``pid`` may be any process where there are pidfds, else a child; others are reported as ended at once."""
        try:
            fd = pidfd_open(pid)
        except ProcessLookupError:
            self._loop.call_soon(callback)
        except OSError:  # no pidfds here, or no more file descriptors
            self._watch_by_thread(pid, callback)
        else:
            self._fds[fd] = callback
            self._loop.add_reader(fd, self._readable, fd)

    def close(self) -> None:
        """Forget what is still watched."""
        for fd in list(self._fds):
            self._drop(fd)

    def _readable(self, fd: int) -> None:
        self._drop(fd)()

    def _drop(self, fd: int) -> Callable[[], None]:
        self._loop.remove_reader(fd)
        os.close(fd)
        return self._fds.pop(fd)

    def _watch_by_thread(self, pid: int, callback: Callable[[], None]) -> None:
        def wait() -> None:
            try:
                os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
            except ChildProcessError:
                pass  # not a child, or its status was taken
            try:
                self._loop.call_soon_threadsafe(callback)
            except RuntimeError:
                pass  # the loop is closed: nobody asks any more

        try:
            threading.Thread(target=wait, name="wait-%d" % pid, daemon=True).start()
        except RuntimeError:  # the limit of threads; the process is watched as soon as there is room
            self._loop.call_later(1.0, self._watch_by_thread, pid, callback)


def take(pid: int) -> Optional[Tuple[int, float, int]]:
    """(status, CPU seconds, peak memory in bytes) of a started task that has ended.

    The status is Flux's: exit code n is n << 8, death by signal n is (128 + n) << 8. None when somebody else in
    this process has taken it. Raises BlockingIOError when the task has not ended.
    """
    try:
        done, status, usage = os.wait4(pid, os.WNOHANG)
    except ChildProcessError:
        started.discard(pid)
        return None
    if not done:
        raise BlockingIOError(errno.EAGAIN, "process %d has not ended" % pid)
    started.discard(pid)
    code = 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    return code << 8, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


class OrphanReaper:
    """Waits for orphans that a subreaper has adopted, and for nobody else's children.

    No field of /proc says "adopted". A zombie child is taken for an orphan if no engine has started it and it is not
    in our own session, where plain subprocesses of this program live. One with a session of its own might belong
    to other code here, which waits for it within moments: so it is reaped only when two sweeps have seen it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._seen: Set[process_tree.Process] = set()
        self._last = loop.time()

    def sweep(self) -> None:
        """Cheap when called often: at most one search a second, and none when no child is a zombie."""
        now = self._loop.time()
        if now - self._last < SWEEP_INTERVAL:
            return
        self._last = now
        zombies = set(self._zombies())
        for process in zombies & self._seen:
            reap(process.pid)
        self._seen = zombies - self._seen

    def finish(self) -> None:
        """Reap what was found dead already; for the engine's end."""
        for process in self._zombies():
            if process in self._seen:
                reap(process.pid)
        self._seen.clear()

    def _zombies(self) -> List[process_tree.Process]:
        try:
            if os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                return []
        except ChildProcessError:
            return []
        me, session = os.getpid(), os.getsid(0)
        return [
            process
            for process in process_tree.snapshot().values()
            if process.ppid == me and process.state == "Z" and process.session != session
            and process.pid not in started
        ]  # fmt: skip


def reap(pid: int) -> None:
    """Take the status of an orphan, unless it is a task's or the process lives."""
    if pid in started:
        return
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        pass  # its own parent has done it
