"""Secrets for libraries that take nothing but the path of a file: files in memory, which go with their process.

A temporary file would be left behind by a process that is killed by SIGKILL.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import tempfile


class MemoryFile:
    """A file that only this process, and others of its user, can read at `path` for as long as this object lives.

    Children that inherit nothing cannot read it: the path is this process's own. Where the system has no files in
    memory (other than Linux), it is a temporary file that goes at the end of the process.
    """

    def __init__(self, content: str) -> None:
        self._temporary: str | None = None
        if hasattr(os, "memfd_create"):
            self._fd = os.memfd_create("fluxop")  # closed in what is started
            self.path = f"/proc/self/fd/{self._fd}"
        else:
            self._fd, self.path = tempfile.mkstemp(prefix="fluxop-")  # 0600
            self._temporary = self.path
            atexit.register(self.close)
        with open(self._fd, "w", encoding="utf-8", closefd=False) as file:
            file.write(content)
        self._identity = _identity(self._fd)

    @property
    def there(self) -> bool:
        """Whether the path still leads to it: programs that become daemons close what they have open."""
        try:
            return _identity(self.path) == self._identity
        except OSError:
            return False

    def close(self) -> None:
        if self.there:  # else the number is somebody else's by now
            os.close(self._fd)
        if self._temporary is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._temporary)


def _identity(what: int | str) -> tuple[int, int]:
    found = os.stat(what)
    return found.st_dev, found.st_ino
