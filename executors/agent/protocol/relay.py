"""A thin relay between stdin/stdout and the agent's socket, for transports that can only start a program."""

from __future__ import annotations

import os
import select
import socket
import sys
import threading
import time

_PIECE = 256 * 1024


def relay(socket_path: str, patience: float = 0.0) -> int:
    """Copy both ways until either side ends; the exit code. It always reads stdin: that is how it notices its end.

    ``patience``: seconds to wait for an agent whose instance is starting.
    """
    deadline = time.monotonic() + patience
    gone = select.poll()
    gone.register(0, 0)  # the end of the client's side, not what it has sent already
    while True:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(socket_path)
            break
        except OSError as err:
            connection.close()
            if time.monotonic() >= deadline:
                if os.path.isdir(os.path.dirname(socket_path)):
                    print("agent relay: cannot reach %s: %s" % (socket_path, err), file=sys.stderr)
                else:  # the agent makes it
                    from ..wire import NOT_YET  # for the message only: a relay has to be quick

                    print("agent relay: %s" % NOT_YET, file=sys.stderr)
                return 1
        # The socket appears in a directory that may not be there yet, and nothing tells of it.
        if gone.poll(20):
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
