"""A server that has imported Snakemake and forks for each job: ``python -P -m snakemake_executor_flux.warm.server``.

Three processes take part. The *server* accepts and forks, and runs no code of a workflow: it has one thread, and what a
job does to a process it does to a fork. For each connection there is a *monitor*, which adopts whatever the job leaves
behind (a child subreaper), passes signals on, tells the client how the job has ended, and ends all of it when the
client goes away before that. The *child* of the monitor becomes the job: it takes over the client's descriptors,
environment, directory and limits, and begins when the client says so.

The socket is in the abstract namespace, so that it ends with its last process. Both sides look at
who the other is. A job is declined, and its client runs it by itself, where the server is not what a new process in the
client's place would be: of other namespaces, cgroups, rights, or import-time environment.

Where this package is not installed, this file is the program's text, and the nested entry's text is an argument.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import errno
import fcntl
import gc
import importlib
import io
import marshal
import os
import resource
import select
import shlex
import signal
import socket
import struct
import sys
import tempfile
import threading
import traceback
import types
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, NoReturn

#: As in `client`, which is a program of its own.
HELLO = b"warm1"
READY, GO = b"R", b"\0"
#: A job's status, as of wait(2), its CPU time in microseconds and its peak memory in KiB.
ANSWER = ">IQQ"
#: Seconds without a job after which the server ends.
IDLE = 60.0
#: Seconds for a client to say what it wants.
PATIENCE = 10.0

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36

#: What a nested Snakemake imports, whatever the workflow; `_import_snakemake` adds its plugins. Some of them are not in
#: all versions.
SNAKEMAKE = ("snakemake.cli", "snakemake.executors.local", "snakemake.storage", "smart_open")
#: The nested entry, where this package is installed.
ENTRY = "snakemake_executor_flux.steps.nested"

#: Variables that differ between the jobs of a run, above all by what the engine sets for one.
_OF_JOBS = frozenset(["PWD", "OLDPWD", "SHLVL", "_", "HOSTNAME", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"])
_OF_JOBS_PREFIXES = ("FLUX_", "FLUXOP_", "FXO_", "PMI_", "PMIX_", "OMPI_", "I_MPI_", "CUDA_")

#: By which an engine knows what belongs to a job.
_SHOWN = (b"FXO_EPOCH", b"FLUX_JOB_ID")

#: Lines of /proc/PID/status in which a job must agree with the server: both would have them from the node's agent.
_RIGHTS = ("Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp")
_NAMESPACES = ("mnt", "net", "pid", "user", "uts", "ipc", "cgroup")
_LIMITS = tuple(getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_"))

#: ``entry(arguments, program)`` runs a nested Snakemake; ``program`` starts another one.
Entry = Callable[[list[str], str], None]


class Origin(NamedTuple):
    """The environment that the server was started in."""

    #: The part in which its jobs have to agree.
    comparable: dict[bytes, bytes]
    #: What the interpreter's start and imports have changed since, from what to what; None: it is not there.
    changes: dict[bytes, tuple[bytes | None, bytes | None]]
    ignored: tuple[str, ...]

    @classmethod
    def of_this_process(cls, ignored: Iterable[str]) -> Origin:
        entries = (entry.partition(b"=") for entry in _text("/proc/self/environ").split(b"\0") if entry)
        first = {name: value for name, _, value in entries}
        names = first.keys() | os.environb.keys()
        pairs = {name: (first.get(name), os.environb.get(name)) for name in names}
        changes = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
        return cls(comparable(first, ignored), changes, tuple(ignored))

    def as_started(self, environ: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
        """An environment, as a process that is started in it has it after the same imports."""
        found = dict(environ)
        for name, (old, new) in self.changes.items():
            if environ.get(name) == old:
                if new is None:
                    del found[name]
                else:
                    found[name] = new
        return found


class Declined(Exception):
    """The job is not for this server; the text says why."""


class Request(NamedTuple):
    """What a client has sent."""

    #: The words that start a client, in a shell's quotes.
    program: str
    arguments: list[str]
    environ: dict[bytes, bytes]
    umask: int
    #: Numbers of the client's descriptors, and what they are here; the working directory is apart.
    numbers: list[int]
    files: list[int]
    directory: int


def comparable(environ: Mapping[bytes, bytes], ignored: Iterable[str]) -> dict[bytes, bytes]:
    """The part of an environment that may have a say in what importing does."""
    names = {os.fsencode(name) for name in (*_OF_JOBS, *ignored)}
    prefixes = tuple(os.fsencode(prefix) for prefix in _OF_JOBS_PREFIXES)
    return {name: value for name, value in environ.items() if name not in names and not name.startswith(prefixes)}


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, ctypes.c_ulong(value), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


# -- the server


class Server:
    """See the module."""

    def __init__(self, listener: socket.socket, entry: Entry, ignored: Iterable[str], idle: float = IDLE) -> None:
        """``ignored``: names of variables in which jobs may differ from the server."""
        self._listener = listener
        self._entry = entry
        self._ignored = tuple(ignored)
        self._origin = Origin.of_this_process(self._ignored)
        self._idle = idle
        self._packages = _installed()

    def run(self) -> None:
        """Until it has been idle, or something was installed."""
        self._listener.settimeout(self._idle)
        while True:
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                if not _reap():
                    return
                continue
            _reap()
            if _installed() != self._packages:
                return  # nested processes would import that
            if _peer(connection)[1] == os.geteuid():
                self._fork(connection)
            connection.close()

    def _fork(self, connection: socket.socket) -> None:
        try:
            pid = os.fork()
        except OSError as err:  # no room for processes: the client hears that the stream ends
            print(f"warm server: {err}", file=sys.stderr, flush=True)
            return
        if pid:
            return
        code = 1
        try:
            self._listener.close()
            Monitor(connection, self._entry, self._origin).run()
            code = 0
        except Declined as err:
            print(f"warm server: declined: {err}", file=sys.stderr, flush=True)
        except BaseException:  # the log is all that hears of it; the client's stream ends
            traceback.print_exc()
        finally:
            os._exit(code)


def _reap() -> bool:
    """Take the statuses of monitors; whether some live."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def _peer(connection: socket.socket) -> tuple[int, int, int]:
    """Process, user and group at the other end."""
    pid, uid, gid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return pid, uid, gid


def _installed() -> list[object]:
    """What changes where something is installed. Other places of the import path may be where jobs write."""
    found: list[object] = []
    for place in sys.path:
        if place.endswith(("site-packages", "dist-packages")):
            try:
                found.append((place, os.stat(place).st_mtime_ns))
            except OSError:
                found.append((place, None))
    return found


# -- the monitor


class Monitor:
    """Of one job: a process of its own, from the connection to the job's end."""

    def __init__(self, connection: socket.socket, entry: Entry, origin: Origin) -> None:
        self._connection = connection
        self._entry = entry
        self._origin = origin
        self._child = 0

    def run(self) -> None:
        """Raises Declined before anything has begun."""
        os.setsid()
        for signum in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
            signal.signal(signum, signal.SIG_IGN)
        try:
            _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        except OSError as err:
            raise Declined(f"orphans cannot be adopted: {err}") from err
        self._connection.settimeout(PATIENCE)
        client, _, _ = _peer(self._connection)
        try:
            request = receive(self._connection)
            _check_place(client)
        except (OSError, ValueError, EOFError, TypeError) as err:
            raise Declined(f"no request: {err}") from err
        different = comparable(request.environ, self._origin.ignored).items() ^ self._origin.comparable.items()
        if different:
            names = sorted({os.fsdecode(name) for name, _ in different})
            raise Declined(f"another environment ({', '.join(names)})")  # a value may be a secret
        places = request.environ.get(b"PYTHONPATH", b"/").split(b":")
        if not all(place.startswith(b"/") for place in places):
            raise Declined("PYTHONPATH is relative to the directory that a process starts in")
        _show_job(request.environ)
        woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
        go = self._start(request, client)
        self._connection.settimeout(None)
        try:
            self._connection.sendall(READY)
        except OSError:
            self._end_tree()
            return
        self._watch(woken, go)

    def _start(self, request: Request, client: int) -> int:
        """Fork the child; the descriptor by which it begins."""
        ready, is_ready = os.pipe()
        begin, go = os.pipe()
        monitor = os.getpid()
        self._child = os.fork()
        if not self._child:
            os.close(ready)
            os.close(go)
            _run_child(self._entry, request, self._origin, client, monitor, is_ready, begin)
        os.close(is_ready)
        os.close(begin)
        if os.read(ready, 1) != READY:
            self._end_tree()
            raise Declined("a process here cannot be what the client is")
        os.close(ready)
        # A reader of the server's log to its end does not wait for jobs.
        os.dup2(request.files[2], 1)
        os.dup2(request.files[2], 2)
        for fd in (*request.files, request.directory):
            os.close(fd)
        return go

    def _watch(self, woken: int, go: int) -> None:
        """Until the job has ended, or its client."""
        poller = select.poll()
        poller.register(self._connection, select.POLLIN)
        poller.register(woken, select.POLLIN)
        has_begun = False
        while True:
            for fd, _ in poller.poll():
                if fd == woken:
                    os.read(woken, 4096)
                    status = self._reap()
                    if status is not None:
                        self._tell(status)
                        return
                    continue
                said = self._hear()
                if not said:
                    self._end_tree()
                    return
                for byte in said:
                    if byte:
                        self._signal(byte)
                    elif not has_begun:
                        has_begun = True
                        os.write(go, GO)

    def _hear(self) -> bytes:
        try:
            return self._connection.recv(256)
        except ConnectionResetError:
            return b""

    def _signal(self, signum: int) -> None:
        """To the job's process group, as an engine does."""
        try:
            os.killpg(self._child, signum)
        except ProcessLookupError:
            pass  # it has just ended

    def _reap(self) -> int | None:
        """The job's status, if it has ended; orphans' are dropped."""
        found: int | None = None
        try:
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == self._child:
                    found = status
                if not pid:
                    return found
        except ChildProcessError:
            return found

    def _tell(self, status: int) -> None:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        with contextlib.suppress(OSError):  # the client has just been killed; the job is over all the same
            self._connection.sendall(
                struct.pack(ANSWER, status, int((usage.ru_utime + usage.ru_stime) * 1e6), usage.ru_maxrss)
            )

    def _end_tree(self) -> None:
        """Kill all that is below this process, and wait until it is gone: orphans become children of this process."""
        while True:
            for pid in below(os.getpid()):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            try:
                os.waitpid(-1, 0)
            except ChildProcessError:
                return


def below(root: int) -> list[int]:
    """Processes below one, which is not among them."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as stat:
                    fields = stat.read().rpartition(b")")[2].split()
            except OSError:
                continue  # it has just ended
            children.setdefault(int(fields[1]), []).append(int(name))
    found, pending = [], [root]
    while pending:
        mine = children.get(pending.pop(), [])
        found += mine
        pending += mine
    return found


def receive(connection: socket.socket) -> Request:
    """Raises OSError, ValueError, EOFError and TypeError for what is no request."""
    size = len(HELLO) + 4
    head, files, flags, _ = socket.recv_fds(connection, size, 253, socket.MSG_CMSG_CLOEXEC)
    if len(head) != size or not head.startswith(HELLO) or flags & socket.MSG_CTRUNC:
        raise ValueError("another protocol")
    left = int.from_bytes(head[len(HELLO) :], "big")
    pieces = []
    while left > 0:
        piece = connection.recv(min(left, 1 << 20))
        if not piece:
            raise EOFError("it is cut off")
        pieces.append(piece)
        left -= len(piece)
    own, arguments, environ, umask, numbers = marshal.loads(b"".join(pieces))
    if len(files) != len(numbers) + 1:
        raise ValueError("descriptors are missing")
    return Request(
        shlex.join(os.fsdecode(word) for word in own),
        [os.fsdecode(word) for word in arguments],
        dict(environ),
        umask,
        numbers,
        files[1:],
        files[0],
    )


def _show_job(environ: Mapping[bytes, bytes]) -> None:
    """Show in /proc/PID/environ of this process and of its children which job they belong to: engines look there. It is
    what the process was started with, so that it has to be written over; nothing may point there then.
    """
    os.environ.clear()
    fields = _text("/proc/self/stat").rpartition(b")")[2].split()
    start, end = int(fields[47]), int(fields[48])
    shown = b"".join(b"%b=%b\0" % (name, environ[name]) for name in _SHOWN if name in environ)
    if len(shown) < end - start:
        ctypes.memset(start, 0, end - start)
        ctypes.memmove(start, shown, len(shown))


def _status(pid: int | str) -> dict[str, str]:
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as lines:
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _check_place(client: int) -> None:
    """Whether a fork of this process is where the client is. Raises Declined, OSError."""
    here, there = _status("self"), _status(client)
    different = [name for name in _RIGHTS if here.get(name) != there.get(name)]
    for name in _NAMESPACES:
        if os.readlink(f"/proc/self/ns/{name}") != os.readlink(f"/proc/{client}/ns/{name}"):
            different.append(f"{name} namespace")
    if _text("/proc/self/cgroup") != _text(f"/proc/{client}/cgroup"):
        different.append("cgroup")
    if os.stat("/proc/self/root").st_ino != os.stat(f"/proc/{client}/root").st_ino:
        different.append("root")
    if different:
        raise Declined(f"another {', '.join(different)}")


def _text(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


# -- the child


def _run_child(
    entry: Entry, request: Request, origin: Origin, client: int, monitor: int, is_ready: int, begin: int
) -> NoReturn:
    try:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != monitor:
            os._exit(1)
        begin = _become(request, origin, client, is_ready, begin)
        if os.read(begin, 1) != GO:
            os._exit(1)
        os.close(begin)
    except BaseException:  # the server's log, or the job's, hears of it; the monitor declines
        traceback.print_exc()
        os._exit(1)
    os._exit(_ended(lambda: entry(request.arguments, request.program)))


def _become(request: Request, origin: Origin, client: int, is_ready: int, begin: int) -> int:
    """Make this process what the client is; the descriptor by which it begins. Raises OSError, ValueError."""
    os.setsid()
    _take_signals(client)
    for limit in _LIMITS:
        wanted = resource.prlimit(client, limit)
        if wanted != resource.getrlimit(limit):
            resource.setrlimit(limit, wanted)
    os.sched_setaffinity(0, os.sched_getaffinity(client))
    nice = os.getpriority(os.PRIO_PROCESS, client)
    if nice != os.getpriority(os.PRIO_PROCESS, 0):
        os.setpriority(os.PRIO_PROCESS, 0, nice)
    os.umask(request.umask)
    os.fchdir(request.directory)
    os.environb.update(origin.as_started(request.environ))
    _forget_the_server()
    sys.stdout.flush()
    sys.stderr.flush()
    # Above all numbers that the job's descriptors are to have.
    above = max(request.numbers) + 1
    begin, is_ready = (fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, above) for fd in (begin, is_ready))
    files = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, above) for fd in request.files]
    os.closerange(3, above)
    for number, fd in zip(request.numbers, files, strict=True):
        os.dup2(fd, number)
        os.close(fd)
    for stream, fd in ((sys.stdin, 0), (sys.stdout, 1), (sys.stderr, 2)):
        if isinstance(stream, io.TextIOWrapper) and fd and os.isatty(fd):
            stream.reconfigure(line_buffering=True)
    os.write(is_ready, READY)
    os.close(is_ready)
    keep = {*request.numbers, begin}
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in keep:
            with contextlib.suppress(OSError):  # that of the listing
                os.close(int(name))
    return begin


def _take_signals(client: int) -> None:
    signal.set_wakeup_fd(-1)
    status = _status(client)
    ignored, blocked = int(status["SigIgn"], 16), int(status["SigBlk"], 16)
    for signum in signal.valid_signals():
        if signum in (signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE, signal.SIGXFSZ):
            continue
        if ignored >> (signum - 1) & 1:
            signal.signal(signum, signal.SIG_IGN)
        else:
            signal.signal(signum, signal.default_int_handler if signum == signal.SIGINT else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, {n for n in signal.valid_signals() if blocked >> (n - 1) & 1})


def _forget_the_server() -> None:
    """What modules keep of the process that imported them, and what would be the same in each job."""
    tempfile.tempdir = None
    # They are the server's directories and files, which no job may remove at its end.
    weakref.finalize._registry.clear()  # type: ignore[attr-defined]
    numpy = sys.modules.get("numpy.random")
    if numpy is not None:
        numpy.seed()


def _ended(run: Callable[[], None]) -> int:
    """Run it, and what the interpreter does at its end; the exit code. Dies by SIGINT where Python would."""
    code: int = 0
    interrupted = False
    try:
        run()
    except SystemExit as err:
        code = _code(err.code)
    except KeyboardInterrupt:
        traceback.print_exc()
        interrupted = True
    except BaseException:  # as the interpreter does with what nothing has handled
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError) as err:
            code = code or 120  # as Python
            with contextlib.suppress(OSError, ValueError):
                print(f"{stream.name}: {err}", file=sys.stderr, flush=True)
    if interrupted:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    return code


def _code(value: object) -> int:
    if value is None:
        return 0
    if isinstance(value, int):
        return value & 0xFF
    print(value, file=sys.stderr)
    return 1


# -- the program


def _import_snakemake() -> None:
    for module in SNAKEMAKE:
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module(module)
    # It imports all plugins that it finds, to know their options, and remembers them.
    sys.modules["snakemake.cli"].get_argument_parser()


def _entry(text: str) -> Entry:
    if not text:
        entry: Entry = importlib.import_module(ENTRY).main
        return entry
    module = types.ModuleType("nested")
    exec(compile(text, "nested", "exec"), module.__dict__)
    run: Entry = module.main
    return run


def main(argv: list[str]) -> int:
    """``argv``: the socket's name, the variables that jobs may differ in (with commas), and the entry's text or
    nothing."""
    name, ignored, *text = argv
    sys.path[:] = [place for place in sys.path if place]  # `-c` puts the working directory there
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind("\0" + name)
    except OSError as err:
        if err.errno == errno.EADDRINUSE:
            return 0  # another broker's, on this very machine
        raise
    # Clients wait from now on, while Snakemake is imported.
    listener.listen(4096)
    _import_snakemake()
    entry = _entry(text[0] if text else "")
    gc.collect()
    gc.freeze()
    Server(listener, entry, [one for one in ignored.split(",") if one]).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
