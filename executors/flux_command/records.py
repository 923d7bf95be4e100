"""Files that outlive the session process: the table of a run's tasks, and the result files in their directories.

Standard library only: a command that finds its session dead reads and writes them too (`burial`).
"""

from __future__ import annotations

import contextlib
import os

#: In a task's directory.
RESULT, LOG, BEGUN = ".exitcode", ".command.log", ".command.begin"


class Table:
    """One line per task and per end of a task, appended: ``+ID directory`` and ``-ID``. A directory is written as
    bytes, with a line feed in it as ``\\n`` and a backslash twice. What was written outlives the process.
    """

    def __init__(self, path: str) -> None:
        """Raises OSError."""
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def add(self, task: str, directory: bytes) -> None:
        """Raises OSError."""
        os.write(self._fd, b"+%b %b\n" % (task.encode(), _escaped(directory)))

    def ended(self, task: str) -> None:
        """Its result file says how. Raises OSError."""
        os.write(self._fd, b"-%b\n" % task.encode())

    def close(self) -> None:
        os.close(self._fd)


def read_table(path: str) -> dict[str, tuple[bytes, bool]]:
    """{task: (directory, whether its end was recorded)}. A last line that was cut off is left out. Raises OSError."""
    found: dict[str, tuple[bytes, bool]] = {}
    with open(path, "rb") as lines:
        for line in lines:
            if not line.endswith(b"\n"):
                break
            task, _, directory = line[1:-1].partition(b" ")
            name = task.decode()
            if line.startswith(b"+"):
                found[name] = (_unescaped(directory), False)
            elif name in found:
                found[name] = (found[name][0], True)
    return found


def _escaped(path: bytes) -> bytes:
    return path.replace(b"\\", b"\\\\").replace(b"\n", b"\\n")


def _unescaped(text: bytes) -> bytes:
    parts = text.split(b"\\\\")
    return b"\\".join(part.replace(b"\\n", b"\n") for part in parts)


# -- result files


def read_result(directory: bytes, *, refresh: bool = False) -> bytes | None:
    """What the result file of a task says; None where it is not there. ``refresh``: look past what a network file
    system remembers of the directory. Raises OSError for others than a missing file or directory."""
    path = os.path.join(directory, RESULT.encode())
    try:
        if refresh:
            os.listdir(directory)
        with open(path, "rb") as file:
            return file.read(64)
    except (FileNotFoundError, NotADirectoryError):
        return None


def write_result(directory: bytes, status: int) -> None:
    """At once or not at all; and the mark of a begin, without which Nextflow asks for states first. Raises OSError."""
    path = os.path.join(directory, RESULT.encode())
    aside = path + b".flux"
    fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        os.write(fd, b"%d" % status)
    finally:
        os.close(fd)
    with contextlib.suppress(FileExistsError):
        os.close(os.open(os.path.join(directory, BEGUN.encode()), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
    os.rename(aside, path)


def add_to_log(directory: bytes, sentence: str) -> None:
    """One line at the end of what the task's wrapper has written, which Nextflow shows. Raises OSError."""
    path = os.path.join(directory, LOG.encode())
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    try:
        end = os.fstat(fd).st_size
        broken = end > 0 and os.pread(fd, 1, end - 1) != b"\n"
        os.write(fd, (b"\n" if broken else b"") + f"flux: {sentence}\n".encode("utf-8", "surrogateescape"))
    finally:
        os.close(fd)
