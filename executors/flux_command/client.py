"""The command ``flux`` itself. It is started for every task, so it imports next to nothing and parses nothing. Where
there is Perl, `executors.flux_command.fast` comes first, and this has the rarer cases.

Request: null-separated words: the parent's pid, the working directory, the arguments. Reply: one byte (the exit code as
a digit, or ``p``: for the real flux), then what is to be printed. Nothing is printed but that.
"""

import posix
import sys
from _signal import (  # type: ignore[import-not-found]  # no stub; `signal` itself imports more than all of this
    SIG_DFL,
    SIG_IGN,
    SIGHUP,
    SIGINT,
    SIGPIPE,
    signal,
)
from _socket import AF_UNIX, SHUT_WR, SOCK_STREAM, socket

#: Seconds to wait for an answer; Nextflow submits nothing else meanwhile, gives up cancelling after 10 and listing
#: after 60, and looks at no task until then. After "Socket timed out" it submits again by itself.
LIMIT = {"submit": 30.0, "jobs": 10.0}
OTHER_LIMIT = 6.0
#: See `executors.flux_command.environment`.
_INSIDE = b"FLUXOP_NEXTFLOW_TASK"


def main(directory: str) -> None:
    """``directory`` is that of the session. Does not return."""
    argv = sys.argv[1:]
    first = argv[0] if argv else ""
    ours = first in ("submit", "jobs", "cancel") or argv[:2] == ["job", "cancel"]
    if not ours or _INSIDE in posix.environ:
        pass_on(directory, argv)
    # A Ctrl-C reaches Nextflow and all that it has started: a submission is whole, and so is a cancellation.
    signal(SIGINT, SIG_IGN)
    signal(SIGHUP, SIG_IGN)
    limit = LIMIT.get(first, OTHER_LIMIT)
    try:
        reply = ask(directory, [str(posix.getppid()), posix.getcwd(), *argv], limit)
    except TimeoutError:
        say(1, f"flux: the session of this run has not answered within {limit:g} s: Socket timed out\n")
    except OSError:
        reply = b""
    if not reply:
        from executors.flux_command import burial

        say(*burial.answer(directory, argv))
    if reply[:1] == b"p":
        pass_on(directory, argv)
    leave(int(reply[:1]), reply[1:])


def ask(directory: str, words: "list[str]", limit: float) -> bytes:
    """The session's reply; empty where it ended meanwhile. Raises OSError, TimeoutError."""
    encoding = sys.getfilesystemencoding()
    connection = socket(AF_UNIX, SOCK_STREAM)
    connection.settimeout(limit)
    connect(connection, directory + "/sock", limit)
    connection.sendall("\0".join(words).encode(encoding, "surrogateescape"))
    connection.shutdown(SHUT_WR)
    pieces = []
    while piece := connection.recv(1 << 20):
        pieces.append(piece)
    return b"".join(pieces)


def connect(connection: socket, path: str, limit: float) -> None:
    """Also while more wait to be heard than the kernel lets wait. Raises OSError, TimeoutError."""
    try:
        connection.connect(path)
    except BlockingIOError:
        import time

        end = time.monotonic() + limit
        while True:
            try:
                return connection.connect(path)
            except BlockingIOError:
                if time.monotonic() > end:
                    raise TimeoutError from None
                time.sleep(0.02)


def leave(code: int, out: bytes) -> None:
    """Print and end, without Python's own tidying up."""
    while out:
        out = out[posix.write(1, out) :]
    posix._exit(code)


def say(code: int, text: str) -> None:
    leave(code, text.encode("utf-8", "surrogateescape"))


def pass_on(directory: str, argv: "list[str]") -> None:
    """Become the real flux, the first on PATH that is not ours."""
    ours = directory + "/"
    path = posix.environ.get(b"PATH", b"").decode("utf-8", "surrogateescape")
    for place in path.split(":"):
        program = (place or ".") + "/flux"
        if not program.startswith(ours) and posix.access(program, posix.X_OK):
            for number in (SIGPIPE, SIGINT, SIGHUP):  # Python ignores the first, we may have the others
                signal(number, SIG_DFL)
            posix.execv(program, [program, *argv])
    words = " ".join(argv[:2])
    say(
        127, f"flux: {words}: Flux itself is not installed here (no other flux on PATH); Nextflow's own commands work\n"
    )
