"""What runs on this machine, for tests that nothing is left behind."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator, Sequence

import psutil


def alive(pid: int) -> bool:
    """Whether the process runs; one that only waits to be reaped does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def of_run(run: str) -> Iterator[tuple[psutil.Process, list[str]]]:
    """The processes whose command line names the run, with that command line."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            argv = process.cmdline()
            if any(run in word for word in argv):
                yield process, argv


def kill_agent(run: str, words: Sequence[str] = ("supervise", "serve")) -> int:
    """SIGKILL for the run's agent (``serve``), and what would start it again first; how many processes that were."""
    killed = 0
    # The supervisor first, or it would start another one.
    for word in words:
        for process, argv in of_run(run):
            # Not the keeper nor `flux start`, whose arguments hold those of the agent.
            if word in argv[:6] and "start" not in argv and not argv[0].endswith("sh"):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGKILL)
                    killed += 1
    return killed
