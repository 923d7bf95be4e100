"""What Nextflow asks the command ``flux`` for. Pure."""

from __future__ import annotations

from dataclasses import dataclass


class Refused(ValueError):
    """The command line cannot be obeyed; the text names the word, and the cure. ``task``: as far as it was read."""

    task: Submit


@dataclass(frozen=True)
class Submit:
    """One task. Sizes are bytes, durations seconds; None is "nothing said"."""

    name: str
    #: Words behind the program, without directory: ``("/bin/bash", ".command.run")``.
    argv: tuple[str, ...]
    #: Whether the task's output goes to .command.log in its directory.
    logged: bool = False
    cores: int = 1
    gpus: int = 0
    memory: int | None = None
    limit: float | None = None
    queue: str | None = None
    bank: str | None = None
    urgency: int | None = None
    env: tuple[tuple[str, str | None], ...] = ()
    shell_options: tuple[tuple[str, str], ...] = ()
    attributes: tuple[tuple[str, str], ...] = ()
    #: Its process ignores failures.
    ignored: bool = False
    #: What was not obeyed as it was said, one sentence each, for the log.
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Jobs:
    """The states of all tasks are asked for."""


@dataclass(frozen=True)
class Cancel:
    ids: tuple[str, ...]


@dataclass(frozen=True)
class Other:
    """For the real ``flux``."""


Asked = Submit | Jobs | Cancel | Other
