"""The instance's lock, as those hold it that keep an instance alive: it is free when all of them are gone."""

from __future__ import annotations

import fcntl
import os
from typing import List


def hold(directory: str) -> List[int]:
    """Share the lock of the instance that lives in ``directory``, until this process ends; the descriptors.

    Where there is no such lock (in pods), there is nothing to hold. The directory itself is locked as well, which keeps
    what cleans temporary directories by age away from it (systemd-tmpfiles(8)).
    """
    held: List[int] = []
    for path in (os.path.join(directory, "instance.lock"), directory):
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        held.append(fd)
        # A process that looks whether it is free holds it alone for a moment.
        try:
            fcntl.flock(fd, fcntl.LOCK_SH)
        except OSError:
            if path != directory:
                raise
            # Some network file systems lock files only.
    return held
