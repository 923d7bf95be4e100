"""One task of a run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from executors import JobHandle
from executors.flux_command.asked import Submit
from executors.flux_command.memory import Group

#: Told once: the exit code and what is printed. Whether there is anybody yet to hear it.
Reply = Callable[[int, str], bool]


@dataclass(slots=True, eq=False)
class Task:
    """One job, from its submission to its result."""

    name: str
    directory: bytes
    owner: int
    asked: Submit
    cores: int
    reply: Reply | None
    handle: JobHandle | None = None
    id: str = ""
    #: It has run: from then on it waits no more, whatever becomes of it.
    begun: bool = False
    #: Why we have ended it (`executors.flux_command.ending`), and what is said of that.
    why: str | None = None
    #: Its Nextflow has ended.
    abandoned: bool = False
    timer: asyncio.TimerHandle | None = None
    #: Holds it to its memory.
    group: Group | None = None

    @property
    def state(self) -> str:
        """As Nextflow understands it: S waits, R runs, or its result is being written."""
        assert self.handle is not None  # set with the submission
        self.begun = self.begun or self.handle.state not in ("NEW", "DEPEND", "PRIORITY", "SCHED")
        return "R" if self.begun else "S"
