"""The instance's initial program: it keeps an agent alive, and ends (and with it the instance) when the agent says so.

The end of the initial program is the end of a Flux instance, so the agent itself must not be it: an agent that dies
by accident is started again and finds its jobs still there. Exit code 0 of the agent means "end", `REFUSED` means
"cannot work here": both are passed on. Anything else is an accident.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from typing import List

from ..signals import Signals
from .exit_codes import JOBS_LEFT, REFUSED, USAGE

#: Seconds for each of the two commands that end them then.
CLEANUP_LIMIT = 60.0
#: So many accidents within `WINDOW` seconds are no accidents.
MAX_RESTARTS = 20
WINDOW = 60.0


def supervise(command: List[str], attached: bool = False) -> int:
    """Run ``command`` until it ends on purpose; the exit code for the instance.

    An agent ends its jobs before itself. Where it could not, they are ended here, unless the instance is not ours:
    Flux's own clean-up of jobs is turned off for the instances that we start (see `provision.local`).
    """
    if not attached:
        _wake_validators()
    code = _keep_alive(command, [] if attached else ["--first"])
    if code != 0 and not attached and _end_jobs() and code == JOBS_LEFT:
        return 0
    return code


def _wake_validators() -> None:
    """Have Flux start the programs that check jobs while the agent starts; the run's first job would wait for them.

    Flux starts them for the first job that it is given, so it is given one that they refuse. (Where the instance has a
    frobnicator, that refuses it before them, and nothing is won.)
    """
    try:
        waker = subprocess.Popen(
            ["flux", "job", "submit"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
    except OSError as err:
        print("agent supervisor: %s" % err, file=sys.stderr)
        return
    # A thread, so that it does not stay a zombie for as long as the agent runs.
    threading.Thread(target=waker.communicate, args=(b"{}",), daemon=True).start()


def _end_jobs() -> bool:
    """Whether no job is left. What is stuck is swept when the instance has ended with another code than 0."""
    try:
        for command in (["flux", "cancel", "--user=all", "--all", "--quiet"], ["flux", "queue", "idle", "--quiet"]):
            subprocess.run(command, stdin=subprocess.DEVNULL, timeout=CLEANUP_LIMIT, check=True)
    except (OSError, subprocess.SubprocessError) as err:
        print("agent supervisor: %s" % err, file=sys.stderr)
        return False
    return True


def _keep_alive(command: List[str], for_the_first: List[str]) -> int:
    """The exit code of the agent that was the last. ``for_the_first``: words more for the one that is the first."""
    # A broker that is told to end sends its initial program SIGHUP.
    ending = {signal.SIGHUP, signal.SIGTERM, signal.SIGINT}
    signals = Signals(signal.SIGCHLD, *ending)
    stopping = False
    starts: List[float] = []
    while True:
        starts = [moment for moment in starts if time.monotonic() - moment < WINDOW] + [time.monotonic()]
        if len(starts) > MAX_RESTARTS:
            print("agent supervisor: the agent died %d times in %d s" % (MAX_RESTARTS, WINDOW), file=sys.stderr)
            return 1
        child = subprocess.Popen(command + for_the_first)
        for_the_first = []
        while child.poll() is None:
            if ending.intersection(signals.wait()):
                stopping = True
                child.send_signal(signal.SIGTERM)
        code = child.returncode
        if code == REFUSED and len(starts) > 1:
            return JOBS_LEFT  # it worked here before, so it is the instance that has gone
        if code in (0, USAGE, REFUSED, JOBS_LEFT):
            return code
        if stopping or ending.intersection(signals.wait(0)):
            return JOBS_LEFT
        print("agent supervisor: the agent ended with %d and is started again" % code, file=sys.stderr)
        sys.stderr.flush()


def agent_command(arguments: List[str]) -> List[str]:
    """How to start this same zipapp (or package) again as an agent."""
    program = os.path.abspath(sys.argv[0])
    if program.endswith(".pyz"):
        return [sys.executable, program] + arguments
    return [sys.executable, "-m", "executors.agent"] + arguments
