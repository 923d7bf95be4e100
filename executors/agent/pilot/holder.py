"""A holder: the job in Flux that holds a core for the pilot of its node, or what a task with GPUs needs.

It tells the pilot which CPUs Flux has bound it to and which GPUs it sees, and hands over its own stdout: Flux does not
take a job for ended before that is closed, so that even a holder that is killed keeps what it has until the pilot has
ended what runs there. If the pilot dies, its holders end the tasks that it leaves, by their mark, and then themselves.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import signal
import socket
import sys
import time
from typing import List, Optional

from ..signals import Signals

#: Seconds for the pilot of this node to start.
_PATIENCE = 60.0
#: Seconds in which what a dead pilot has left is killed again and again.
_SWEEP_LIMIT = 30.0


def hold(suffix: str, shape: List[int]) -> int:
    """Hold cores and GPUs (``shape``) until the pilot lets them go; 0 then. ``suffix``: see `socket_path`."""
    path = socket_path(os.environ["FLUX_URI"], suffix)
    signals = Signals(signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    stream = _connect(path, signals)
    if stream is None:
        return 1  # no task has had this core
    about = {
        "job": os.environ.get("FLUX_JOB_ID", ""),
        "shape": shape,
        "cpus": sorted(os.sched_getaffinity(0)),
        "gpus": os.environ.get("CUDA_VISIBLE_DEVICES", ""),
    }
    said = b""
    try:
        stream.sendmsg(
            [json.dumps(about).encode("ascii") + b"\n"],
            [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [1]))],
        )
        while True:
            if signals.wait(fd=stream.fileno()):
                with contextlib.suppress(OSError):  # the pilot is gone; what it has said last is read below
                    stream.send(b"end\n")
                continue
            data = stream.recv(4096)
            if not data:
                break
            said += data
            if said.endswith(b"\ngo\n"):
                return 0
    except OSError as err:
        print("the pilot: %s" % err, file=sys.stderr)
    _sweep(said.partition(b"\n")[0].decode("ascii"))
    return 1


def socket_path(uri: str, suffix: str) -> str:
    """Where a pilot listens for its holders: beside the socket of its broker, whose URI is given."""
    return "%s.%s" % (uri.partition("://")[2], suffix)


def _connect(path: str, signals: Signals) -> Optional[socket.socket]:
    """None where no pilot answers, or this process is told to end before one does."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        stream = socket.socket(socket.AF_UNIX)
        stream.setblocking(False)
        try:
            stream.connect(path)
            stream.setblocking(True)
            return stream
        except (FileNotFoundError, ConnectionRefusedError, BlockingIOError):
            stream.close()
        if time.monotonic() > deadline:
            print("no pilot answers at %s" % path, file=sys.stderr)
            return None
        if signals.wait(0.01):  # the agent starts the pilot when the first holder of a node has its core
            return None


def _sweep(mark: str) -> None:
    """Kill all that carries a mark."""
    from .. import process_tree

    deadline = time.monotonic() + _SWEEP_LIMIT
    empty = 0
    # Twice: what the pilot was starting when it died has its mark a moment later.
    while mark and empty < 2 and time.monotonic() < deadline:
        left = process_tree.processes_of_epoch(mark)
        empty = 0 if left else empty + 1
        process_tree.send(left, signal.SIGKILL)
        time.sleep(0.02)  # they are nobody's children here, so that nothing tells of their end
