"""What a step makes of a job."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class StepCommand:
    """A command to run once in the job's working directory."""

    argv: list[str]
    #: Changes to the inherited environment; None removes a variable.
    env: Mapping[str, str | None] = field(default_factory=dict)
    #: Values that must not be seen in a jobspec or on a command line.
    secret_env: Mapping[str, str] = field(default_factory=dict, repr=False)
    #: Files and directories that exist for this job only, removed when it has ended.
    scratch: tuple[Path, ...] = ()
    #: Where the job leaves its measurements for ``benchmark:``.
    benchmark_record: Path | None = None
    #: None: the working directory of the workflow.
    cwd: str | None = None


def changed_since(inherited: Mapping[str, str]) -> dict[str, str | None]:
    """What differs now from the environment that jobs inherit: a workflow's code may set variables at any time."""
    changed: dict[str, str | None] = {name: value for name, value in os.environ.items() if inherited.get(name) != value}
    changed.update((name, None) for name in inherited if name not in os.environ)
    return changed
