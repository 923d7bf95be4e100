"""Process 1 of a bed's own namespaces: makes them private, reaps what falls to it, ends when its input does.

Run as a file by ``keeper``, with nothing of the project on its path. Its end is the end of every process in here:
the kernel kills them all. Arguments: the directories to cover, ``--``, the files of the kernel's settings to cover.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile


def main() -> None:
    split = sys.argv.index("--")
    call("mount", "--make-rprivate", "/")
    for directory in sys.argv[1:split]:
        call("mount", "-t", "tmpfs", "testbed", directory)
    for setting in sys.argv[split + 1 :]:
        cover(setting)
    call("ip", "link", "set", "lo", "up")
    signal.signal(signal.SIGCHLD, reap)
    os.write(1, b"ready\n")
    # A signal's handler does not end the read: Python takes it up again.
    while os.read(0, 1):
        pass


def call(*argv: str) -> None:
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)


def cover(setting: str) -> None:
    """Puts an ordinary file with the same content over a file of /proc/sys, so that writing to it changes nothing."""
    with open(setting, "rb") as file:
        value = file.read()
    with tempfile.NamedTemporaryFile() as copy:
        copy.write(value)
        copy.flush()
        call("mount", "--bind", copy.name, setting)


def reap(*_: object) -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass  # none is left


if __name__ == "__main__":
    main()
