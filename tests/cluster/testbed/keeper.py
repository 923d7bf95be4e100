"""Ends a bed with the process that wanted it: ``python -m tests.cluster.testbed.keeper DIRECTORY``.

The keeper's input is a pipe from the process that wants the bed. When it closes, or on SIGTERM, every process of the
bed is killed, and what the kernel keeps for it (control groups, the network link) and its directory are removed. It
holds the bed's lock. If it is killed itself, its namespaces' processes end by the kernel's hand, and the process that
gets the lock next removes the rest.
"""

from __future__ import annotations

import fcntl
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import psutil

from tests.cluster.testbed.waiting import wait_until

MARK = "FLUXOP_TESTBED"
# Fixed in containerd, kubelet and the CNI library, whatever they are told: covered in the bed's namespaces.
COVERED = ("/run/containerd", "/var/lib/cni", "/var/lib/kubelet", "/var/log/containers")
# Kubelet sets these for the whole machine, and doesn't start where it cannot.
SETTINGS = tuple(
    f"/proc/sys/{name}"
    for name in (
        *("vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops"),
        *("kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes"),
    )
)
LIMIT = 30.0


def main() -> None:
    directory = Path(sys.argv[1])
    # A signal only wakes the select below: it must not cut anything short.
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGTERM, lambda *_: None)
    wanted = [woken] if "--stay" in sys.argv else [woken, sys.stdin.fileno()]
    isolated = "--isolated" in sys.argv
    with covered(directory.with_name("covered")) if isolated else nullcontext():
        try:
            if isolated:
                enter_namespaces(directory)
            print("ready", flush=True)
            select.select(wanted, [], [])
        finally:
            sweep(directory)


@contextmanager
def covered(record: Path) -> Iterator[None]:
    """Makes what is missing of COVERED, which the last bed of all removes again. ``record`` holds what was made.

    Not any but the last: to remove a directory takes away what another bed has mounted over it.
    """
    with record.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        for path in COVERED:
            with suppress(FileExistsError):
                os.makedirs(path)
                file.write(f"{path}\n")
        file.flush()
        try:
            yield
        finally:
            with suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                file.seek(0)
                for path in file.read().split():
                    # Whatever else has put something in there keeps it.
                    with suppress(OSError):
                        os.rmdir(path)
                file.truncate(0)


def enter_namespaces(directory: Path) -> None:
    """Starts process 1 of new namespaces; its pid, as seen from here, is in ``directory/init.pid``."""
    inside = Path(__file__).with_name("inside.py")
    unshare = subprocess.Popen(
        [
            *("unshare", "--mount", "--net", "--pid", "--ipc", "--fork", "--kill-child=KILL", "--mount-proc"),
            *(sys.executable, "-I", str(inside), *COVERED, "--", *(s for s in SETTINGS if Path(s).exists())),
        ],
        # With the mark, so that it is killed with the others; and it ends when we do.
        env={**os.environ, MARK: str(directory)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert unshare.stdout is not None
    if unshare.stdout.readline() != b"ready\n":
        sys.exit(f"new namespaces cannot be made here: unshare ended with {unshare.wait()}")
    (child,) = psutil.Process(unshare.pid).children()
    (directory / "init.pid").write_text(str(child.pid))


def sweep(directory: Path) -> None:
    """Removes all that the bed of ``directory`` may have left; the caller holds the bed's lock."""
    for process in marked(directory):
        with suppress(psutil.NoSuchProcess):
            process.kill()
    wait_until(f"the end of the processes of {directory}", lambda: not list(marked(directory)), LIMIT)
    if (directory / "init.pid").exists():
        name = link_name(directory)
        if Path("/sys/class/net", name).exists():
            subprocess.run(["ip", "link", "delete", name], check=False)
        wait_until(f"the end of the control groups of {name}", lambda: remove_cgroups(name), LIMIT)
    shutil.rmtree(directory, ignore_errors=True)


def marked(directory: Path) -> list[psutil.Process]:
    """The bed's processes outside its pods: all carry its mark in their environment. The keeper does not."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if process.environ().get(MARK) == str(directory):
                found.append(process)
    return found


def link_name(directory: Path) -> str:
    """Of the network link from this machine into the bed, and of the bed's control groups."""
    return f"fluxop{directory.name}"


def make_cgroups(directory: Path) -> None:
    """A control group for the bed's pods in every hierarchy, for kubelet to work under."""
    for hierarchy in hierarchies():
        group = hierarchy / link_name(directory)
        group.mkdir(exist_ok=True)
        if (group / "cgroup.subtree_control").exists():
            controllers = (group / "cgroup.controllers").read_text().split()
            (group / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in controllers))


def hierarchies() -> list[Path]:
    """The roots of the control groups: one on v2; on v1 one for each controller, and perhaps an unused v2."""
    root = Path("/sys/fs/cgroup")
    if (root / "cgroup.controllers").exists():
        return [root]
    return [path for path in root.iterdir() if path.is_dir() and not path.is_symlink() and path.is_mount()]


def remove_cgroups(name: str) -> bool:
    """Removes the bed's control groups, deepest first; False while one is still in use."""
    for hierarchy in hierarchies():
        for path, _, _ in os.walk(hierarchy / name, topdown=False):
            try:
                os.rmdir(path)
            except OSError:
                return False
    return True


if __name__ == "__main__":
    main()
