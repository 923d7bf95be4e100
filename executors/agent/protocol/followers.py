"""Who reads the output of jobs that have not ended. Pure."""

from __future__ import annotations

from typing import Dict
from weakref import WeakSet

from ..engine import Follower


class Followers:
    """Tells followers of the end of their job, so that its last output waits for no follower's next look."""

    def __init__(self) -> None:
        self._of: Dict[str, WeakSet[Follower]] = {}

    def add(self, job_id: str, follower: Follower) -> None:
        """Until the job's end, or that of the follower."""
        self._of.setdefault(job_id, WeakSet()).add(follower)

    def job_ended(self, job_id: str) -> None:
        for follower in list(self._of.pop(job_id, ())):
            follower.job_ended()
