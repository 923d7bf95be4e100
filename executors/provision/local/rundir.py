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
from dataclasses import dataclass
from pathlib import Path

from executors.agent.instance.sweep import sweep
from executors.errors import ProvisionError
from executors.locks import is_locked
from executors.names import PLACE_VARIABLE

#: Where that directory is made, the first that is possible. They outlast a login session and hold short paths: neither
#: XDG_RUNTIME_DIR (removed at the user's last logout) nor TMPDIR (long, and of one job, in batch systems) does both.
_ROOTS = ("/tmp", "/var/tmp")
#: A unix socket's path is at most 107 bytes on Linux; the longest that we or Flux make below the run's directory.
_SOCKET_PATH = 107
_LONGEST = len("/agent.sock.new")
#: Held by all that keep an instance alive: its keeper, the broker, the agent's supervisor, the agent.
INSTANCE_LOCK = "instance.lock"
#: Seconds to wait for the client that creates or removes an instance, which takes milliseconds.
LOCK_LIMIT = 10.0
#: Seconds after which the log of a failed instance is removed.
_KEEP_LOGS = 7 * 86400.0


@dataclass(frozen=True)
class Place:
    """The directory that holds all runs of this user."""

    path: Path
    #: Why it is not the usual one; "" where it is.
    reason: str


def base_directory(environ: Mapping[str, str]) -> Path:
    """Returns the directory that holds all runs of this user. Raises ProvisionError if it cannot be private."""
    return find_place(environ).path


def find_place(environ: Mapping[str, str]) -> Place:
    """Returns the same with its reason. All clients of a user on this machine find the same one, whatever their login.

    Any user may create any name in /tmp, and only its owner can remove it then. So where the usual name is taken, one
    with random digits is created; a directory of this user that exists is always preferred to creating another.
    Raises ProvisionError if there is none.
    """
    given = environ.get(PLACE_VARIABLE)
    if given:
        path = Path(given) / "fluxop"
        if not path.is_absolute():
            raise ProvisionError(f"{PLACE_VARIABLE}: {given!r} is not an absolute path; give one")
        problem = _make(path)
        if problem:
            raise ProvisionError(f"{PLACE_VARIABLE}: {path} {problem}; name an existing directory of your own")
        return Place(path, f"{PLACE_VARIABLE} is set")
    name = f"fluxop-{os.getuid()}"
    usual = Path(_ROOTS[0]) / name
    if not _problem(usual):
        return Place(usual, "")
    roots = [Path(root) for root in _ROOTS]
    with _alone_in(roots[0]):
        others = [path for root in roots for path in sorted(root.glob(f"{name}-*")) if not _problem(path)]
        problem = _problem(usual) if others else _make(usual)
        if not problem:
            return Place(usual, "")
        reason = f"{usual} {problem}"
        if others:
            return Place(others[0], reason)
        for root in roots:
            # mkdtemp tries other digits where the name is taken; what it makes is private.
            with contextlib.suppress(OSError):
                return Place(Path(tempfile.mkdtemp(prefix=f"{name}-", dir=root)), reason)
    raise ProvisionError(
        f"no private directory for sockets can be created: {reason}, and none can be created in "
        f"{' or '.join(_ROOTS)}; set {PLACE_VARIABLE} to a short directory of your own"
    )


def _make(path: Path) -> str:
    """Make a directory that only we can use, unless it is there; why there is none, "" if there is."""
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        with contextlib.suppress(OSError):
            status = path.lstat()
            # Only others could look into it so far: nobody can have left anything in it.
            if stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o022:
                path.chmod(0o700)
    except OSError as err:
        return f"cannot be made ({err.strerror})"
    return _problem(path)


def _problem(path: Path) -> str:
    """Why a directory is not one that only we can use, "" if it is. A link is none: its owner may change it."""
    try:
        status = path.lstat()
    except OSError as err:
        return f"cannot be used ({err.strerror})"
    if not stat.S_ISDIR(status.st_mode):
        return "is not a directory"
    if status.st_uid != os.getuid():
        return f"belongs to the user with id {status.st_uid}"
    if status.st_mode & 0o077:
        return f"can be used by others (mode {stat.S_IMODE(status.st_mode):04o})"
    if not os.access(path, os.W_OK | os.X_OK):
        return "cannot be written to"
    return ""


@contextlib.contextmanager
def _alone_in(root: Path) -> Iterator[None]:
    """Two clients of one user do not make two directories at once; but who else holds this lock cannot stop us."""
    try:
        fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        yield
        return
    try:
        _lock(fd, 1.0)
        yield
    finally:
        os.close(fd)


class RunDirectory:
    """Paths of one run, and the lock under which it is created and removed."""

    def __init__(self, base: Path, name: str) -> None:
        self.base = base
        self.path = base / name
        if len(os.fsencode(self.path)) + _LONGEST > _SOCKET_PATH:
            raise ProvisionError(f"{self.path} is too long for a socket; set {PLACE_VARIABLE} to a shorter directory")
        self.socket = self.path / "agent.sock"
        self.agent = self.path / "agent.pyz"
        #: On which a starting agent reports to the client that has started it.
        self.notice = self.path / "ready"
        self.log = base / f"{name}.log"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Only one client at a time creates or removes instances; it takes milliseconds, so one lock does for all.

        Raises ProvisionError, which names the holder, where it takes longer than `LOCK_LIMIT`.
        """
        path = self.base / "lock"
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as err:
            raise ProvisionError(f"the lock of all runs cannot be opened: {err}") from err
        try:
            if not _lock(fd, LOCK_LIMIT):
                raise ProvisionError(
                    f"{path} has been held for {LOCK_LIMIT:g} s, by {_holder(fd)}, so no instance can be started or "
                    "removed; continue that process (`kill -CONT`), or end it"
                )
            yield
        finally:
            os.close(fd)

    def alive(self) -> bool:
        """Returns whether this run has an instance, also one whose agent is being started again, or that is ending.

        Raises ProvisionError where that cannot be told: it may have one then.
        """
        try:
            return is_locked(self.path / INSTANCE_LOCK)
        except OSError as err:
            raise ProvisionError(f"cannot tell whether {self.path} belongs to a running instance: {err}") from err

    def which(self) -> tuple[int, int] | None:
        """Tells the instance that has the directory now from others that have it before or after; None: there is none.

        Raises ProvisionError where that cannot be told.
        """
        try:
            status = (self.path / INSTANCE_LOCK).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as err:
            raise ProvisionError(f"cannot tell which instance has {self.path}: {err}") from err
        return status.st_ino, status.st_mtime_ns  # nobody writes to it

    def create(self, agent: bytes) -> int:
        """Create the directory with the agent in it. Returns the descriptor of its lock, held. Raises OSError.

        The lock is free when all that have inherited the descriptor, or have locked the file for themselves (shared
        too), have closed it.
        """
        if self.path.exists():
            shutil.rmtree(self.path)
        self.path.mkdir(mode=0o700)
        fd = os.open(self.path / INSTANCE_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH)
            self.agent.write_bytes(agent)
        except OSError:
            os.close(fd)
            raise
        return fd

    def holder(self) -> str:
        """Returns who keeps the instance alive, in words, as far as the kernel tells."""
        try:
            fd = os.open(self.path / INSTANCE_LOCK, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as err:
            return f"an unknown process ({err.strerror})"
        try:
            return _holder(fd)
        finally:
            os.close(fd)

    def remove(self) -> None:
        """Remove the directory of an instance that has ended. Never raises."""
        with contextlib.suppress(OSError, ProvisionError), self.locked():
            if not self.alive():
                shutil.rmtree(self.path, ignore_errors=True)

    def wait_gone(self, instance: tuple[int, int] | None, limit: float) -> bool:
        """Wait until that instance has ended, ``limit`` seconds at most, and see to it that its directory is gone."""
        deadline = time.monotonic() + limit
        while True:
            with contextlib.suppress(ProvisionError):  # not told this time
                if instance is None or self.which() != instance:
                    return True
                if not self.alive():
                    # Its keeper holds the lock for longer than the directory is there, unless it was killed.
                    self.remove()
                    return self.which() != instance
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)  # its processes are not our children, so nothing tells us of their end

    def log_tail(self, lines: int = 15) -> str:
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        except OSError:
            return ""

    def remove_log(self) -> None:
        self.log.unlink(missing_ok=True)


def prune(base: Path) -> None:
    """Remove what runs that were killed have left: directories without an instance, old logs. Never raises, nor waits.

    What cannot be looked at is left alone.
    """
    with contextlib.suppress(OSError):
        fd = os.open(base / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if not _lock(fd, 0.0):
                return  # the process that creates or removes an instance now has pruned
            for entry in base.iterdir():
                with contextlib.suppress(OSError):
                    _prune(entry)
        finally:
            os.close(fd)


def _prune(entry: Path) -> None:
    if entry.is_dir() and not entry.is_symlink():
        # What a keeper is removing is renamed, and its lock goes with the rest.
        leaving = entry.suffix[1:].isdigit() and Path("/proc", entry.suffix[1:]).exists()
        if not leaving and not is_locked(entry / INSTANCE_LOCK) and not is_locked(entry / "agent.lock"):
            # All that kept it alive was killed at once, the keeper too; what its jobs have left goes by its mark.
            sweep(str(entry))
            shutil.rmtree(entry, ignore_errors=True)
    elif entry.suffix == ".log" and time.time() - entry.stat().st_mtime > _KEEP_LOGS:
        entry.unlink()


def _lock(fd: int, limit: float) -> bool:
    """Hold a lock alone. Returns whether it was free within ``limit`` seconds."""
    deadline = time.monotonic() + limit
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.02)  # the kernel tells of it only by a wait without a limit
        else:
            return True


def _holder(fd: int) -> str:
    """Who holds a lock, in words, as far as the kernel tells."""
    status = os.fstat(fd)
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    with contextlib.suppress(OSError):
        for line in Path("/proc/locks").read_text().splitlines():
            words = line.split()
            # 3: FLOCK  ADVISORY  WRITE 30892 fe:00:10035225 0 EOF
            # The process that has locked it may be gone, and have left it to its children.
            if words[1:2] == ["FLOCK"] and place in words and Path("/proc", words[4]).exists():
                return _process_text(words[4])
    return "an unknown process"


def _process_text(pid: str) -> str:
    text = f"process {pid}"
    with contextlib.suppress(OSError, IndexError):
        command = Path("/proc", pid, "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        if command:
            text += f" ({command[:80]})"
        state = Path("/proc", pid, "stat").read_text(errors="replace").rpartition(")")[2].split()[0]
        if state in "Tt":
            text += ", which is stopped"
    return text
