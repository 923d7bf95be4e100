"""Which results were acknowledged, on disk."""

from __future__ import annotations

import logging
import os
from typing import List

log = logging.getLogger("agent")


class AckLog:
    """Acknowledged job ids, one per line, so that an agent that is restarted still knows which keys have ended.

    On a full disk the ids wait here until there is room again. Should the agent be restarted before, their keys are
    answered with the jobs that they had: nothing is run twice for it.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = -1
        self._unwritten = b""
        self._failed = False

    def read(self) -> List[str]:
        try:
            with open(self._path, encoding="ascii", errors="replace") as lines:
                return lines.read().split()
        except FileNotFoundError:
            return []

    def add(self, ids: List[str]) -> None:
        if not ids:
            return
        self._unwritten += "".join(job_id + "\n" for job_id in ids).encode("ascii", "replace")
        try:
            if self._fd < 0:
                self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            while self._unwritten:
                self._unwritten = self._unwritten[os.write(self._fd, self._unwritten) :]
        except OSError as err:
            if not self._failed:
                log.warning("acknowledgements are kept in memory only: %s: %s", self._path, err.strerror)
            self._failed = True
        else:
            self._failed = False

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
