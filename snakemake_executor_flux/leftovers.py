"""Temporary scripts of jobs whose Snakemake was killed, and directories of commands that are too long for an argument.

Their name holds the run and the key of its job (`owner`), so that the next Snakemake in the directory can tell
what nobody needs any more. Ends of jobs remove their own; this is for what those left who could not.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

#: Where Snakemake puts scripts, below the working directory.
DIRECTORY = Path(".snakemake") / "scripts"
#: Where Snakemake puts directories of long commands.
_ABOVE = DIRECTORY.parent
_LONG = "shell_tmp."
_NAME = re.compile(r"[^.]*\.flux-(?P<run>[0-9a-f]+)-(?P<key>[0-9a-f.]+)-\.")


def owner(run_id: str, key: str) -> str:
    """The part of a script's name that tells whose it is."""
    return f"flux-{run_id}-{key}-"


def new_directory(owner: str) -> Path:
    """For a command that is too long for one argument."""
    return Path(tempfile.mkdtemp(dir=_ABOVE, prefix=f"{_LONG}{owner}.")).absolute()


def paths_of_job(key: str) -> tuple[Path, ...]:
    """What one job has."""
    return tuple(path for path, _, found in _found() if found == key)


def remove_of_other_runs(run_id: str) -> None:
    """A run that has the directory now means that earlier ones, and their jobs, are over."""
    remove_scratch(path for path, run, _ in _found() if run != run_id)


def remove_of_jobs(keys: Iterable[str]) -> None:
    wanted = set(keys)
    if wanted:
        remove_scratch(path for path, _, key in _found() if key in wanted)


def remove_scratch(paths: Iterable[Path]) -> None:
    """Remove files and directories of a job that has ended, as far as that can be."""
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                path.unlink()


def _found() -> Iterator[tuple[Path, str, str]]:
    for directory, start in ((DIRECTORY, ""), (_ABOVE, _LONG)):
        with contextlib.suppress(FileNotFoundError):
            for path in list(directory.iterdir()):
                match = _NAME.match(path.name) if path.name.startswith(start) else None
                if match:
                    yield path.absolute(), match["run"], match["key"]
