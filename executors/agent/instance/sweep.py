"""Ends what an instance has left that died together with all that would have tidied up."""

from __future__ import annotations

import os
import signal
import time
from typing import Set

from .. import process_tree


def sweep(directory: str) -> int:
    """End what an instance that died has left: TERM, a grace, KILL. 1 if something remains."""
    try:
        with open(os.path.join(directory, "epoch"), encoding="ascii") as text:
            epoch = text.read()
    except OSError:
        return 0  # it had not begun
    told: Set[int] = set()
    for attempt in range(60):
        left = process_tree.processes_of_epoch(epoch)
        if not left:
            return 0
        if attempt < 30:
            process_tree.send([process for process in left if process.pid not in told], signal.SIGTERM)
            told.update(process.pid for process in left)
        else:
            process_tree.send(left, signal.SIGKILL)
        time.sleep(0.1)  # they are nobody's children, so that nothing tells of their end
    return 1
