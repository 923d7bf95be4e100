"""Whether any process holds a lock (flock(2)) on a file. It imports next to nothing: a command per task uses it."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def is_locked(path: str | Path) -> bool:
    """Returns whether any process holds a lock, shared or exclusive. Only a file that does not exist is free unseen.

    Raises OSError where the file cannot be opened: it may be locked then. What that means is for the caller to say.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
