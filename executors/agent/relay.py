"""A thin relay between stdin/stdout and the agent's socket, for transports that can only start a program."""

from __future__ import annotations

import os
import socket
import sys
import threading

_PIECE = 256 * 1024


def relay(socket_path: str) -> int:
    """Copy both ways until either side ends; the exit code. It always reads stdin: that is how it notices its end."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(socket_path)
    except OSError as err:
        print("agent relay: cannot reach %s: %s" % (socket_path, err), file=sys.stderr)
        return 1

    def upstream() -> None:
        while True:
            data = os.read(0, _PIECE)
            if not data:
                break
            connection.sendall(data)
        connection.shutdown(socket.SHUT_RDWR)

    threading.Thread(target=_until_cut, args=(upstream,), daemon=True).start()

    def downstream() -> None:
        while True:
            data = connection.recv(_PIECE)
            if not data:
                break
            view = memoryview(data)
            while view:
                view = view[os.write(1, view) :]

    _until_cut(downstream)
    return 0


def _until_cut(copy) -> None:  # type: ignore[no-untyped-def]  # typing.Callable would be this file's only import of it
    try:
        copy()
    except OSError:
        pass  # a cut is the normal end of a relay
