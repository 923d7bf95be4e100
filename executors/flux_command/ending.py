"""What the result file of a task must say when its job has ended. Pure, standard library only.

Nextflow never asks for an exit status: it reads ``.exitcode`` in the task's directory, which the task's own wrapper
writes. Where the wrapper could not, we write it. nf-core's retry rules fire at 130 to 145, so a kill must be in there.

A wrapper writes from its EXIT trap, which bash runs also when a signal ends it: 0 is then what nobody has set yet, and
is believed only of a wrapper that has itself exited with 0.
"""

from __future__ import annotations

#: The job was told to end: over its limit, cancelled, or its node is lost. 128 + TERM.
ENDED = 143
NEVER_STARTED = 1

#: Why we have ended a job.
LIMIT, CANCELLED, LOST = "limit", "cancelled", "lost"


def recorded(content: bytes | None) -> int | None:
    """The status in a result file; None for no file, and for one that the wrapper has only begun to write."""
    if content is None:
        return None
    try:
        return int(content.decode("ascii").strip())
    except ValueError:
        return None


def exit_status(returncode: int | None, started: bool, why: str | None) -> int:
    """What to write where the wrapper could not. ``returncode``: 128+n after signal n, None where it is not known."""
    if why is not None:
        return ENDED
    if returncode:
        return returncode
    if not started:
        return NEVER_STARTED
    # The wrapper has exited with 0 and written nothing (a full disk), or nobody knows how it ended.
    return NEVER_STARTED if returncode == 0 else ENDED


def to_write(content: bytes | None, returncode: int | None, started: bool, why: str | None) -> int | None:
    """The status to write into the result file, or None: what is there (``content``) stays."""
    there = recorded(content)
    if there is not None and (there != 0 or returncode == 0):
        return None
    return exit_status(returncode, started, why)
