"""What other processes of this user have in their environment, which is how those of a run are known again."""

from __future__ import annotations

import os
from collections.abc import Iterator


def environments() -> Iterator[tuple[int, list[bytes]]]:
    """The pid and the ``NAME=VALUE`` words of every process whose environment can be read."""
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/environ", "rb") as file:
                words = file.read().split(b"\0")
        except OSError:
            continue  # another user's, or it has just ended
        yield int(entry), words
