"""What a step makes of a job."""

from __future__ import annotations

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
    #: Directories that exist for this job only, removed when it has ended.
    scratch: tuple[Path, ...] = ()
    #: Where the job leaves its measurements for ``benchmark:``.
    benchmark_record: Path | None = None
