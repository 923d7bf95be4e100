"""The process of a job that takes the warm step: ``python -IS client.py SOCKET ASKED COUNT WORD... ARGUMENT...``.

It hands its descriptors, environment, working directory and arguments to the warm server of this node, whose child
runs the job, and ends as that child does. Where there is no server, or it declines, it becomes the first COUNT words
with the arguments: a nested Snakemake. A server that was ASKED for just before, in seconds since the epoch, is waited
for, since it starts in less time than a nested Snakemake takes. The child begins only when this process has said so,
and after that this process runs nothing by itself, so that a job never runs twice.

Each job pays for this program's start, so it uses the C modules below those of the standard library: importing
`socket`, `os` and `signal` costs more than everything here.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import _socket
import marshal
import posix
import select
import sys
import time

#: First words of what the two programs say; another protocol is another word.
HELLO = b"warm1"
READY, GO = b"R", b"\0"
#: Bytes of the answer: the job's status (4), its CPU time in microseconds (8), its peak memory in KiB (8).
ANSWER = 20
#: The kernel passes 253 with one message (SCM_MAX_FD).
MAX_DESCRIPTORS = 250
#: Seconds for a server to be ready: it may be importing Snakemake still. A job that waits longer runs by itself.
PATIENCE = 30.0
#: Seconds from its being asked for until a server listens, and between two tries meanwhile: nothing tells of it.
START, AGAIN = 10.0, 0.05

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: Signals that are handed to the job. Others end or stop this process, and the server ends the job's tree then.
_FORWARDED = ("HUP", "INT", "QUIT", "ABRT", "USR1", "USR2", "ALRM", "TERM", "CONT", "XCPU", "PWR", "WINCH", "URG")


def _descriptors() -> list[int]:
    """Numbers of those that this process was given."""
    found = []
    for name in posix.listdir("/proc/self/fd"):
        try:
            if posix.get_inheritable(int(name)):
                found.append(int(name))
        except OSError:
            pass  # that of the listing itself
    return sorted(found)


def _has_terminal() -> bool:
    try:
        posix.close(posix.open("/dev/tty", posix.O_RDWR | posix.O_NOCTTY))
    except OSError:
        return False
    return True


def _connected(name: str, asked: float) -> Any:
    """A connection to a server. Raises OSError."""
    began = time.monotonic()
    while True:
        connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        connection.settimeout(PATIENCE)
        try:
            connection.connect("\0" + name)
            return connection
        except ConnectionRefusedError:
            connection.close()
            if time.time() > asked + START or time.monotonic() > began + START:
                raise
        time.sleep(AGAIN)


def _ask(name: str, asked: float, own: list[bytes], arguments: list[bytes]) -> Any:
    """A connection to a server that is ready to run the job, and both ends of a pipe for signals; None: there is no
    server, or it declines.

    ``own``: the words that started this program, as far as they are the same for each job.
    """
    try:
        connection = _connected(name, asked)
        peer = connection.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)  # struct ucred: pid, uid, gid
        descriptors = _descriptors()
        if (
            int.from_bytes(peer[4:8], sys.byteorder) != posix.geteuid()
            or descriptors[:3] != [0, 1, 2]
            or len(descriptors) > MAX_DESCRIPTORS
            or _has_terminal()
        ):
            return None
        umask = posix.umask(0o77)
        posix.umask(umask)
        directory = posix.open(".", posix.O_PATH | posix.O_CLOEXEC)
        request = marshal.dumps((own, arguments, list(posix.environ.items()), umask, descriptors))
        rights = b"".join(fd.to_bytes(4, sys.byteorder) for fd in [directory, *descriptors])
        head = HELLO + len(request).to_bytes(4, "big")
        connection.sendmsg([head], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)])
        connection.sendall(request)
        answer = connection.recv(1)
        told, tell = posix.pipe2(posix.O_NONBLOCK | posix.O_CLOEXEC)
    except OSError:
        return None  # no server, or one that has just ended: nothing has begun
    return (connection, told, tell) if answer == READY else None


def _catch_signals(tell: int) -> None:
    """From now on ``tell`` is told which signals have come.

    A handler of Python's is not told from where it waits in the kernel: a signal that came just before that would be
    forwarded when the job has ended.
    """
    _signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    _handle_signals(lambda *_: None)


def _handle_signals(handler: Any) -> None:
    """Those that are forwarded, but for what is ignored."""
    numbers = [getattr(_signal, "SIG" + name) for name in _FORWARDED]
    for number in [*numbers, *range(_signal.SIGRTMIN, _signal.SIGRTMAX + 1)]:
        if _signal.getsignal(number) != _signal.SIG_IGN:
            _signal.signal(number, handler)


def _take_signals(signals: int) -> None:
    """Do what those that have come do to a process that has not caught them."""
    _handle_signals(_signal.SIG_DFL)
    try:
        for number in posix.read(signals, 4096):
            posix.kill(posix.getpid(), number)
    except BlockingIOError:
        pass  # none has come


def _begin(connection: Any) -> bool:
    """Let the job begin. False: nobody has heard that, so that nothing has begun."""
    connection.settimeout(None)
    try:
        connection.sendall(GO)
    except OSError:
        return False
    return True


def _follow(connection: Any, signals: int) -> int:
    """Forward signals (that come by ``signals``) until the job has ended: its status, as of wait(2); its usage is where
    the engine looks for it.
    """
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    poll.register(signals, select.POLLIN)
    said = b""
    while len(said) < ANSWER:
        if signals in [fd for fd, _ in poll.poll()]:
            try:
                connection.sendall(posix.read(signals, 4096))
            except OSError:
                pass  # the job has ended, and this process is about to hear of it
            continue
        try:
            piece = connection.recv(ANSWER - len(said))
        except ConnectionResetError:
            piece = b""
        if not piece:
            # It may have begun, so that it is not run by other means.
            sys.stderr.write("warm step: the process that watches over this job was killed\n")
            return 1 << 8
        said += piece
    _report_usage(int.from_bytes(said[4:12], "big") / 1e6, int.from_bytes(said[12:], "big"))
    return int.from_bytes(said[:4], "big")


def _report_usage(cpu: float, memory: int) -> None:
    """To the engine, which sees this process only."""
    path = posix.environ.get(b"FXO_USAGE")
    if path is None:
        return
    job = posix.environ.get(b"FLUX_JOB_ID", b"-")
    try:
        file = posix.open(path, posix.O_WRONLY | posix.O_APPEND | posix.O_CREAT | posix.O_CLOEXEC, 0o600)
        posix.write(file, b"%b %.6f %d +\n" % (job, cpu, memory))
    except OSError:
        pass  # of another node: usage is told where it can be


def _end(status: int) -> None:
    """As the job did: by the same signal, or with the same exit code."""
    number = status & 0x7F
    if number:
        if number != _signal.SIGKILL:
            _signal.signal(number, _signal.SIG_DFL)
        posix.kill(posix.getpid(), number)
    posix._exit(128 + number if number else status >> 8)


def main() -> None:
    # It ends this process while there is no job yet; a handler of Python's would let it wait on (see `_catch_signals`).
    if _signal.getsignal(_signal.SIGINT) == _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    coding = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()
    name, asked, count = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
    words = [word.encode(*coding) for word in sys.argv[4:]]
    own = [word.encode(*coding) for word in sys.orig_argv]
    asked_for = _ask(name, asked, own[: len(own) - len(words) + count], words[count:])
    if asked_for is not None:
        connection, signals, tell = asked_for
        _catch_signals(tell)
        if _begin(connection):
            _end(_follow(connection, signals))
        connection.close()
        _take_signals(signals)
    # The first word is what has started this program, by a name that was looked up then.
    posix.execv(sys.executable, [sys.executable.encode(*coding), *words[1:]])


if __name__ == "__main__":
    main()
