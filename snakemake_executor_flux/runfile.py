"""The id of a workflow's run, kept in ``.snakemake`` while the run lasts, so that a Snakemake that was killed is
followed by one that finds the same instance."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import uuid
from pathlib import Path

PATH = Path(".snakemake") / "flux_operator_run.json"


class RunFile:
    """One run's id on disk. ``resumed``: an earlier Snakemake has left it in this very directory.

    The file names the directory by its path and its inode: a copy, or a backup that was put back, is another run,
    whose jobs write elsewhere. A directory that was moved is, too: jobs that still run know it by its old name.
    The file is locked while its Snakemake lives: another one beside it (``--nolock``) has a run of its own, which no
    file names (`has_company`).
    """

    def __init__(self, directory: Path) -> None:
        """For the workflow in ``directory``."""
        self._path = directory.absolute() / PATH
        self._place = _place(directory)
        self._lock: int | None = None
        found = self._read()
        self.has_company = found is not None and not self._hold(self._path)
        self.resumed = found is not None and not self.has_company
        self.id = found if found is not None and self.resumed else uuid.uuid4().hex[:12]
        if found is None:
            self._write()

    def let_go(self) -> None:
        """As the end of the process does, however it comes."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _read(self) -> str | None:
        try:
            value = json.loads(self._path.read_text())
        except (OSError, ValueError):
            return None  # none yet, or one that was cut off while it was written: then nothing was started under it
        if not isinstance(value, dict) or value.get("directory") != self._place:
            return None
        run_id = value.get("id")
        return run_id if isinstance(run_id, str) and run_id.isalnum() else None

    def _write(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        new = self._path.with_suffix(f".{os.getpid()}.new")
        new.write_text(json.dumps({"id": self.id, "directory": self._place}) + "\n")
        self._hold(new)
        new.replace(self._path)

    def _hold(self, path: Path) -> bool:
        """Lock the file. Returns False where another process has."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return True  # it has just gone, or is not ours to read: nobody is in the way
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return False
        except OSError:  # a file system without locks
            os.close(fd)
            return True
        self._lock = fd
        return True

    def remove(self) -> None:
        """The run is over, and nothing of it is left to attach to."""
        if not self.has_company:
            with contextlib.suppress(FileNotFoundError):
                self._path.unlink()
        self.let_go()


def _place(directory: Path) -> list[object]:
    """A directory, told from its copies. JSON, which has numbers and lists."""
    status = directory.stat()
    # Escapes stand for bytes that are not UTF-8, which JSON does not have.
    name = os.fsencode(directory.resolve()).decode("utf-8", "backslashreplace")
    return [name, status.st_ino]
