"""Temporary scripts of jobs whose Snakemake was killed.

A script's name holds the run and the key of its job (`owner`), so that the next Snakemake in the directory can tell
what nobody needs any more. Ends of jobs remove their own; this is for what those left who could not.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from snakemake_executor_flux.steps.base import remove_scratch

#: Where Snakemake puts scripts, below the working directory.
DIRECTORY = Path(".snakemake") / "scripts"
_NAME = re.compile(r"[^.]*\.flux-(?P<run>[0-9a-f]+)-(?P<key>[0-9a-f.]+)-\.")


def owner(run_id: str, key: str) -> str:
    """The part of a script's name that tells whose it is."""
    return f"flux-{run_id}-{key}-"


def of_job(key: str) -> tuple[Path, ...]:
    """The scripts of one job."""
    return tuple(path for path, _, found in _scripts() if found == key)


def remove_of_other_runs(run_id: str) -> None:
    """A run that has the directory now means that earlier ones, and their jobs, are over."""
    remove_scratch(path for path, run, _ in _scripts() if run != run_id)


def remove_of_jobs(keys: Iterable[str]) -> None:
    wanted = set(keys)
    if wanted:
        remove_scratch(path for path, _, key in _scripts() if key in wanted)


def _scripts() -> Iterator[tuple[Path, str, str]]:
    with contextlib.suppress(FileNotFoundError):
        for path in list(DIRECTORY.iterdir()):
            match = _NAME.match(path.name)
            if match:
                yield path.absolute(), match["run"], match["key"]
