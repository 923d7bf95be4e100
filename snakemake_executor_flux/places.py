"""What of this machine the jobs find where they run: working directory, interpreter, log files."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

#: A job without shared files begins in a directory of its own, which Flux removes with the job.
_IN_SCRATCH = ('cd "$FLUX_JOB_TMPDIR" && exec "$@"', "sh")


@dataclass(frozen=True)
class Places:
    """``files``: the working directory is there too. ``python``: the interpreter for a nested Snakemake, as the jobs
    see it; ``package``: this package is importable by it."""

    files: bool
    python: str
    package: bool

    def argv(self, argv: list[str]) -> list[str]:
        return argv if self.files else ["/bin/sh", "-c", *_IN_SCRATCH, *argv]


def _by_pythonpath() -> bool:
    """Whether this package is only found because of a variable that jobs elsewhere do not inherit."""
    here = str(Path(__file__).resolve().parents[1])
    return any(str(Path(one).resolve()) == here for one in os.environ.get("PYTHONPATH", "").split(os.pathsep) if one)


class NotShared(Exception):
    """Something that is said to be shared is not; the text has the cure."""


def find_places(
    kinds: Callable[[Sequence[str]], list[str | None]],
    cwd: str,
    *,
    remote: bool,
    files_shared: bool,
    software_shared: bool,
) -> Places:
    """``kinds`` tells what paths are on the instance's lead node. Raises NotShared."""
    if not remote:
        return Places(files=True, python=sys.executable if software_shared else "python", package=software_shared)
    directory, interpreter = kinds([cwd, sys.executable])
    if files_shared and directory != "directory":
        raise NotShared(
            f"the working directory {cwd} is not in the pods; mount the volume that holds it there "
            "(minicluster.containers[0].volumes), or share no files: --shared-fs-usage none, with a storage provider "
            "(--default-storage-provider) that the pods can reach"
        )
    if software_shared and interpreter == "file" and not _by_pythonpath():
        return Places(files=files_shared, python=sys.executable, package=True)
    # Debian and its kin have no program of the name python.
    return Places(files=files_shared, python="python3", package=False)
