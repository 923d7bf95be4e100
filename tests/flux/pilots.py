"""Sessions with pilots, looked at more closely than their users do."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from executors import JobHandle, JobRequest, Session
from tests.processes import alive, of_run
from tests.support.jobs import wait_running
from tests.support.sessions import ask
from tests.support.waiting import wait_for

#: Opens a session; see the fixture ``pilots``.
Opener = Callable[..., Session]


def flux(session: Session, *argv: str) -> str:
    """What a command of Flux says in the session's instance."""
    environ = {**os.environ, "FLUX_URI": str(ask(session, "info")["uri"])}
    done = subprocess.run(["flux", *argv], env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def holders(session: Session) -> list[str]:
    """Ids of the holders that have a core."""
    lines = flux(session, "jobs", "-no", "{id.f58plain} {name} {state}").splitlines()
    return [line.split()[0] for line in lines if line.split()[1:] == ["pilot-holder", "RUN"]]


def pids(session: Session, word: str) -> list[int]:
    """Processes of the run that have a word on their command line: "pilot", or "hold" for holders themselves."""
    found = [(process, argv) for process, argv in of_run(session.run_name) if word in argv and "start" not in argv]
    return [process.pid for process, argv in found if "python" in os.path.basename(argv[0])]


def cores(session: Session) -> int:
    return sum(node.cores for node in session.nodes())


#: Notes its own process and one that it detaches, and stays.
STAYS = (
    "setsid sleep 600 & echo $! > {0}/detached; echo $$ > {0}/pid; trap '' TERM; touch {0}/up; "
    "while :; do sleep 1; done"
)


def stays(session: Session, directory: Path, **fields: object) -> tuple[list[int], JobHandle]:
    """A task that does not end; it, and the processes that it has."""
    directory.mkdir(exist_ok=True)
    handle = session.submit_one(JobRequest(argv=["sh", "-c", STAYS.format(directory)], **fields))  # type: ignore[arg-type]
    wait_running(handle, directory / "up")
    return [int((directory / name).read_text()) for name in ("pid", "detached")], handle


def wait_for_one_that_is_free(free: Callable[[], int], count: int, running: set[int]) -> None:
    """Of ``count`` cores or GPUs, each of which a task of two processes has."""

    def one_is_free() -> bool:
        now_free = free()
        # Asked after it: whatever ran on the free one has gone before.
        assert sum(map(alive, running)) <= 2 * (count - now_free), "one is free on which a task runs"
        return now_free > 0

    wait_for(one_is_free, "one is free")


def free_cores(session: Session) -> int:
    return int(flux(session, "resource", "list", "-s", "free", "-no", "{ncores}").strip() or 0)
