"""The private directory of one run on this machine: socket, agent, state. Short paths, since sockets need them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from executors.errors import ProvisionError

#: A unix socket's path is at most 107 bytes on Linux; the longest that we or Flux make below the run's directory.
_SOCKET_PATH = 107
_LONGEST = len("/agent.sock.new")
#: Held by an instance's outermost process as long as it lives.
INSTANCE_LOCK = "instance.lock"
#: Seconds after which the log of a failed instance is removed.
_KEEP_LOGS = 7 * 86400.0


def base_directory(environ: Mapping[str, str]) -> Path:
    """The directory that holds all runs of this user. Raises ProvisionError if it cannot be private."""
    runtime = environ.get("XDG_RUNTIME_DIR")
    if runtime and os.access(runtime, os.W_OK | os.X_OK) and len(runtime) < 40:
        base = Path(runtime) / "fluxop"
    else:
        # Not TMPDIR: batch systems make that long, and a path over 107 bytes cannot hold a socket.
        base = Path("/tmp") / f"fluxop-{os.getuid()}"
    try:
        base.mkdir(mode=0o700, exist_ok=True)
        status = base.lstat()
    except OSError as err:
        raise ProvisionError(f"no private directory for sockets can be made: {err}") from err
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise ProvisionError(f"{base} is not a directory that only you can use; remove it and try again")
    return base


class RunDirectory:
    """Paths of one run, and the lock under which it is created and removed."""

    def __init__(self, base: Path, name: str) -> None:
        self.base = base
        self.path = base / name
        if len(os.fsencode(self.path)) + _LONGEST > _SOCKET_PATH:
            raise ProvisionError(f"{self.path} is too long for a socket; set XDG_RUNTIME_DIR to a shorter directory")
        self.socket = self.path / "agent.sock"
        self.agent = self.path / "agent.pyz"
        self.log = base / f"{name}.log"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Only one client at a time creates or removes instances; it takes milliseconds, so one lock does for all."""
        fd = os.open(self.base / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def alive(self) -> bool:
        """Whether this run has an instance, also one whose agent is being started again, or that is ending."""
        return _is_locked(self.path / INSTANCE_LOCK)

    def create(self, agent: bytes) -> int:
        """Make the directory anew, with the agent in it. The descriptor of the instance's lock, held. Raises OSError.

        The lock is free when all that have inherited the descriptor have closed it.
        """
        shutil.rmtree(self.path, ignore_errors=True)
        self.path.mkdir(mode=0o700)
        self.agent.write_bytes(agent)
        fd = os.open(self.path / INSTANCE_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX)
        return fd

    def remove(self) -> None:
        """Remove the directory of an instance that has ended. Never raises."""
        with contextlib.suppress(OSError), self.locked():
            if not self.alive():
                shutil.rmtree(self.path, ignore_errors=True)

    def wait_gone(self, limit: float) -> bool:
        """Wait until an instance that another client started has ended and tidied up, ``limit`` seconds at most."""
        deadline = time.monotonic() + limit
        while self.path.exists():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)  # its processes are not our children, so nothing tells us of their end
        return True

    def log_tail(self, lines: int = 15) -> str:
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        except OSError:
            return ""

    def remove_log(self) -> None:
        self.log.unlink(missing_ok=True)


def prune(base: Path) -> None:
    """Remove what runs that were killed have left: directories without an agent, old logs. Never raises."""
    for entry in _entries(base):
        with contextlib.suppress(OSError):
            if entry.is_dir() and not entry.is_symlink():
                # A directory is young while it is being made, and has no lock yet.
                young = time.time() - entry.stat().st_mtime < 600
                if not young and not _is_locked(entry / INSTANCE_LOCK) and not _is_locked(entry / "agent.lock"):
                    shutil.rmtree(entry, ignore_errors=True)
            elif entry.suffix == ".log" and time.time() - entry.stat().st_mtime > _KEEP_LOGS:
                entry.unlink()


def _entries(base: Path) -> list[Path]:
    try:
        return list(base.iterdir())
    except OSError:
        return []


def _is_locked(path: Path) -> bool:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def scratch_directory() -> Path:
    """A short-lived private directory for the socket on which a starting agent reports."""
    return Path(tempfile.mkdtemp(prefix="fluxop-", dir="/tmp"))
