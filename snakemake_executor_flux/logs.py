"""Where job logs lie, how long they stay, and their last lines.

Rule: one file per job and attempt, stdout and stderr together, below the log directory as
RULE/WILDCARDS.KEY.ATTEMPT.log.
Files of jobs that wrote nothing are removed when the job ends. In the default directory, runs older than
`KEEP_DAYS` days are removed when a new one starts; a directory given by --flux-operator-logdir is left alone.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from pathlib import Path

from executors import JobHandle

DEFAULT = Path(".snakemake") / "flux_operator_logs"
KEEP_DAYS = 10
_TAIL_BYTES = 16 * 1024


def log_directory(setting: Path | None, run_id: str) -> Path:
    """The absolute directory for one run's logs; old runs in the default place are removed. Raises OSError."""
    if setting is not None:
        directory = setting.absolute()
    else:
        base = DEFAULT.absolute()
        _prune(base)
        directory = base / run_id
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def log_path(directory: Path, rule: str, wildcards: str, key: str, attempt: int) -> Path:
    """A job's log. Wildcards make it readable, the key's first digits make it unique."""
    slug = re.sub(r"[^A-Za-z0-9_.=,+-]+", "_", wildcards)[:80].strip("._") or "job"
    return directory / re.sub(r"[^A-Za-z0-9_.-]+", "_", rule)[:80] / f"{slug}.{key[:8]}.{attempt}.log"


def save(path: Path, handle: JobHandle) -> None:
    """Write what an ended job's streams hold, stdout before stderr, where it could not write the file itself.

    Raises OSError.
    """
    with path.open("wb") as target:
        for stream in ("stdout", "stderr"):
            for piece in handle.output(stream):
                target.write(piece)


def tail(path: Path, lines: int = 20) -> str:
    """The last lines of a log, or "" when there is none."""
    try:
        with path.open("rb") as source:
            size = source.seek(0, os.SEEK_END)
            source.seek(max(0, size - _TAIL_BYTES))
            text = source.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def remove_if_empty(path: Path) -> None:
    with contextlib.suppress(OSError):
        if path.stat().st_size == 0:
            path.unlink()


def remove_empty_directories(directory: Path) -> None:
    """For the end of a run: rules whose jobs wrote nothing leave nothing."""
    with contextlib.suppress(OSError):
        for entry in list(directory.iterdir()):
            with contextlib.suppress(OSError):  # not empty, or no directory
                entry.rmdir()


def _prune(base: Path) -> None:
    limit = time.time() - KEEP_DAYS * 86400
    with contextlib.suppress(OSError):
        for entry in list(base.iterdir()):
            if entry.stat().st_mtime < limit:
                shutil.rmtree(entry, ignore_errors=True)
