"""Whether an instance on this machine is used, though its agent does not answer: it may be stopped, or overloaded."""

from __future__ import annotations

import contextlib
import socket
import sys
from pathlib import Path

from executors.agent import process_tree

#: Flux's name for the parent of a job's processes on each node.
_JOB_SHELL = "flux-shell"


def seen(path: Path) -> str | None:
    """Returns what is seen of the agent that listens at ``path``: it is stopped, has clients, jobs; None: nothing."""
    pid = _listener(path)
    agent = process_tree.read(pid) if pid else None
    if agent is None:
        return None
    if agent.state in ("T", "t"):
        return f"it is only stopped: continue it with `kill -CONT {pid}`, or end the instance with `down`"
    if _connections(path):
        return "it has a client"
    # Under Flux the broker starts the jobs; both it and the agent are in the keeper's session.
    children = [one for one in process_tree.below(pid) if one.session != agent.session]
    shells = [one for one in process_tree.below(agent.session) if _name(one.pid).startswith(_JOB_SHELL)]
    return "it has a job" if children or shells else None


def _listener(path: Path) -> int:
    """The pid of the process that listens on a socket; 0 for none."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except OSError:
            return 0
        peer = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)  # struct ucred: pid, uid, gid
        return int.from_bytes(peer[:4], sys.byteorder)


def _connections(path: Path) -> int:
    """How many streams to this socket there are: each has a line with its path, connected (state 03)."""
    names = str(path), f"{path}.new"  # the agent's end is called as the socket was before it was renamed into place
    with contextlib.suppress(OSError):
        lines = [line.split() for line in Path("/proc/net/unix").read_text(errors="replace").splitlines()]
        return sum(words[5:6] == ["03"] and words[7:8] in ([names[0]], [names[1]]) for words in lines)
    return 0


def _name(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path("/proc", str(pid), "comm").read_text(errors="replace")
    return ""
