"""How long the engine keeps the output of jobs. Pure."""

from __future__ import annotations

from typing import Callable, Dict, Set


class KeptOutput:
    """Has the engine ``forget`` a job as soon as it is neither known nor read any more."""

    def __init__(self, forget: Callable[[str], None]) -> None:
        self._forget = forget
        self._readers: Dict[str, int] = {}
        #: Not known any more, and read still.
        self._unknown: Set[str] = set()

    def followed(self, job_id: str) -> None:
        """Somebody reads this job's output: it is kept until `unfollowed`."""
        self._readers[job_id] = self._readers.get(job_id, 0) + 1

    def unfollowed(self, job_id: str) -> None:
        """One reader less: each call answers one of `followed`."""
        self._readers[job_id] -= 1
        if not self._readers[job_id]:
            del self._readers[job_id]
            if job_id in self._unknown:
                self._unknown.discard(job_id)
                self._forget(job_id)

    def release(self, job_id: str) -> None:
        """The agent does not know this job any more."""
        if job_id in self._readers:
            self._unknown.add(job_id)
        else:
            self._forget(job_id)
