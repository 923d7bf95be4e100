"""Output files that nothing was written to, kept for the next jobs.

On a disk's file system, making a file takes fifty times as long as opening one (ext4: 115 us against 2), and most short
tasks write nothing to their output. Pure, but for the files.
"""

from __future__ import annotations

import fcntl
import os
import signal
import stat
from typing import List

#: Files that are kept.
_LIMIT = 256


class BlankFiles:
    """Files of one directory, in which nobody else renames or removes them."""

    def __init__(self) -> None:
        self._paths: List[str] = []

    def put(self, path: str) -> None:
        """Remove a file that is not needed any more, or keep it. One that is not there is no error. Raises OSError."""
        try:
            if len(self._paths) < _LIMIT and _is_blank(path):
                self._paths.append(path)
            else:
                os.unlink(path)
        except FileNotFoundError:
            pass

    def give(self, path: str) -> None:
        """Have a blank file at this path, if one is kept; else there is none, as before."""
        if self._paths:
            try:
                os.rename(self._paths.pop(), path)
            except OSError:
                pass  # then it is made, and says what is wrong


def _is_blank(path: str) -> bool:
    """Whether it is empty and as it was made, and no process has it open to write: a daemon that the job has left would
    write into the next job's output.
    """
    try:
        fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except FileNotFoundError:
        raise
    except OSError:  # a job may have changed it
        return False
    try:
        about = os.fstat(fd)
        is_plain = stat.S_ISREG(about.st_mode) and about.st_mode & 0o600 == 0o600 and about.st_nlink == 1
        if about.st_size or not is_plain:
            return False
        # The kernel grants it to the only one that has the file open to write. Somebody who opens it in this moment (a
        # backup, a virus scanner) breaks it, by a signal that ends a program unless it is one that is ignored.
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        return True
    except OSError:  # somebody has, or this file system has no leases (NFS)
        return False
    finally:
        os.close(fd)
