"""Holds tasks on this machine to their memory, by a control group of each, where such groups can be had.

Flux itself does not. With version 2 a group for us has to be delegated (by systemd, or root in a container that may
write to its own); with version 1 the memory controller's directory of this process has to be ours to write to.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
#: And the pid of a session's process.
_PREFIX = "fluxop-nf-"
#: The shell puts itself into the group, and becomes the task.
_ENTER = 'echo $$ > "$1" && shift && exec "$@"'


@dataclass(frozen=True)
class _Version:
    limit: str
    #: A file with a line ``oom_kill N``.
    events: str
    #: The same limit for memory and swap together, where it is there.
    with_swap: str


_ONE = _Version("memory.limit_in_bytes", "memory.oom_control", "memory.memsw.limit_in_bytes")
_TWO = _Version("memory.max", "memory.events", "")


class Group:
    """The control group of one task."""

    def __init__(self, path: Path, version: _Version) -> None:
        self._path = path
        self._version = version

    def command(self, argv: Sequence[str]) -> list[str]:
        """What runs ``argv`` in the group."""
        return ["/bin/sh", "-c", _ENTER, "sh", str(self._path / "cgroup.procs"), *argv]

    def kills(self) -> int:
        """How many processes of the task the kernel has killed for want of memory."""
        with contextlib.suppress(OSError, ValueError):
            for line in (self._path / self._version.events).read_text().splitlines():
                name, _, number = line.partition(" ")
                if name == "oom_kill":
                    return int(number)
        return 0

    def remove(self) -> bool:
        """Whether it is gone: not while a process is in it."""
        try:
            self._path.rmdir()
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return True


class Groups:
    """Makes groups below one of this process; `reason` says why it cannot, "" where it can."""

    def __init__(self) -> None:
        self._version = _ONE
        self._base: Path | None = None
        self.reason = "there are no control groups for memory here"
        self._left: list[Group] = []
        for version, parent in _parents():
            _remove_dead(parent)
            base = parent / f"{_PREFIX}{os.getpid()}"
            self.reason = _try(version, base)
            if not self.reason:
                self._version, self._base = version, base
                break

    @property
    def directory(self) -> str:
        """Where the groups are; "" where there are none."""
        return str(self._base or "")

    def make(self, task: int, limit: int) -> Group | None:
        """A group with a limit in bytes; None where none can be had. ``task`` is a number of its own."""
        if self._base is None:
            return None
        group = Group(self._base / str(task), self._version)
        try:
            (self._base / str(task)).mkdir()
            _set_limit(self._base / str(task), self._version, limit)
        except OSError as err:
            group.remove()
            self.reason = f"{self._base}: {err.strerror}"
            return None
        return group

    def release(self, group: Group) -> None:
        """Remove it, and those before it that a process was still in."""
        self._left = [one for one in (*self._left, group) if not one.remove()]

    def close(self) -> None:
        self._left = [one for one in self._left if not one.remove()]
        if self._base is not None:
            with contextlib.suppress(OSError):
                self._base.rmdir()


def _parents() -> list[tuple[_Version, Path]]:
    """Directories of this process's own groups that may have a memory controller."""
    found = []
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if "memory" in controllers.split(","):
                found.append((_ONE, _ROOT / "memory" / path.lstrip("/")))
            elif not controllers:
                found.append((_TWO, _ROOT / path.lstrip("/")))
    return found


def _remove_dead(parent: Path) -> None:
    """Groups of processes that were killed, where nobody is in them any more."""
    for base in parent.glob(f"{_PREFIX}*"):
        pid = base.name.removeprefix(_PREFIX)
        if pid.isdigit() and not Path("/proc", pid).exists():
            with contextlib.suppress(OSError):
                for group in base.iterdir():
                    if group.is_dir():
                        group.rmdir()
                base.rmdir()


def _try(version: _Version, base: Path) -> str:
    """Make a group with a group in it that has a limit; what is in the way, "" where nothing is."""
    try:
        base.mkdir()
    except OSError as err:
        return f"{base} cannot be made ({err.strerror})"
    try:
        if version is _TWO:
            (base / "cgroup.subtree_control").write_text("+memory")
        trial = base / "trial"
        trial.mkdir()
        try:
            _set_limit(trial, version, 2**30)
        finally:
            trial.rmdir()
    except OSError as err:
        with contextlib.suppress(OSError):
            base.rmdir()
        return f"{base} has no memory controller for us ({err.strerror})"
    return ""


def _set_limit(path: Path, version: _Version, limit: int) -> None:
    """Raises OSError."""
    with open(path / version.limit, "w") as file:  # never made: a file that is not there is an error
        file.write(str(limit))
    if os.path.exists(path / version.with_swap) and version.with_swap:
        with open(path / version.with_swap, "w") as file:
            file.write(str(limit))


def memory_problem(kills: int, limit: int) -> str:
    """One sentence about a task that ran out of its memory (bytes)."""
    return f"out of memory: {kills} process{'es' if kills != 1 else ''} killed at the task's {limit // 2**20} MB"
