"""Jobs of an earlier Snakemake of the same run: which of them this one can go on with."""

from __future__ import annotations

import hashlib
import os
from typing import Any

from snakemake.io import is_flagged
from snakemake_interface_executor_plugins.settings import SharedFSUsage

from executors import JobInfo, JobResult, Session
from snakemake_executor_flux import identity, leftovers

#: Outputs that go with their users, or that Snakemake itself makes when their job has ended.
_NOT_KEPT = ("temp", "pipe", "service", "touch")
#: Seconds to wait for the end of a job that must are replaced by a new one.
REPLACE_LIMIT = 120.0


class Survivors:
    """What the agent still has of an earlier Snakemake, by Snakemake's key of a job (`identity.base_key`)."""

    def __init__(self, session: Session, workflow: Any, logger: Any, *, resumed: bool) -> None:
        """``resumed``: there was an earlier Snakemake."""
        self._session = session
        self._workflow = workflow
        self._logger = logger
        self._resumed = resumed
        #: Outputs of jobs that this Snakemake has taken up.
        self._taken_up: set[str] = set()
        self._jobs: dict[str, list[JobInfo]] = {}
        if resumed:
            for job in session.jobs(unacknowledged=True):
                if job.key:
                    self._jobs.setdefault(identity.split_key(job.key), []).append(job)

    def keys(self) -> set[str]:
        """Keys of the jobs that nobody has asked for."""
        return {job.key for jobs in self._jobs.values() for job in jobs if job.key}

    def take(self, job: Any, base: str, digest: str) -> str | None:
        """The key of a job that does the same, and lives or has done it; others make room. Raises TimeoutError.

        Must come before the job is prepared, which removes its outputs, that the earlier one may still be writing.
        """
        candidates = self._jobs.pop(base, [])
        if not candidates and self._resumed:
            candidates = self._by_marker(job)
        usable = None
        doomed = []
        for candidate in candidates:
            same = candidate.digest == _digest_at_the_agent(digest) and not self._is_outdated(job, candidate)
            if usable is None and same and (candidate.result is None or self._has_made_all(job, candidate.result)):
                usable = candidate
            else:
                doomed.append(candidate)
        if doomed:
            ids = [candidate.id for candidate in doomed]
            self._logger.info(f"flux-operator: earlier job(s) {', '.join(ids)} of {job.name} are replaced by a new one")
            self._session.cancel_and_wait(ids, REPLACE_LIMIT)
            leftovers.remove_of_jobs(candidate.key for candidate in doomed if candidate.key)
        if usable is None:
            return None
        self._logger.info(f"flux-operator: {job.name} is attached to job {usable.id} of an earlier Snakemake")
        self._taken_up.update(map(str, job.output))
        return usable.key

    def _is_outdated(self, job: Any, earlier: JobInfo) -> bool:
        since = earlier.times.submit
        changed = since is not None and identity.changed_input(job, since, self._taken_up)
        if changed:
            self._logger.info(
                f"flux-operator: {changed} has changed since job {earlier.id} of {job.name} was submitted"
            )
        return bool(changed)

    def _has_made_all(self, job: Any, result: JobResult) -> bool:
        """Whether a job has completed, and what it has made is still there."""
        if not result.ok:
            return False
        if SharedFSUsage.INPUT_OUTPUT not in self._workflow.storage_settings.shared_fs_usage:
            return True
        gone = [
            str(file)
            for file in job.output
            if not any(is_flagged(file, one) for one in _NOT_KEPT) and not file.is_storage and not os.path.lexists(file)
        ]
        if gone:
            self._logger.info(f"flux-operator: {gone[0]}, which an earlier job of {job.name} has made, is gone")
        return not gone

    def _by_marker(self, job: Any) -> list[JobInfo]:
        """Jobs that Snakemake's own incomplete markers name (``incomplete_external_jobid`` hides them on a rerun)."""
        prefix = f"{self._session.hello.instance}/"
        members = job if job.is_group() else [job]
        ids = {
            external.removeprefix(prefix)
            for member in members
            for external in self._workflow.persistence.external_jobids(member)
            if external.startswith(prefix)
        }
        return [known for known in self._session.jobs(unacknowledged=True) if known.id in ids] if ids else []


def _digest_at_the_agent(digest: str) -> str:
    """The form in which `executors.job.digest_of` passes an identity on."""
    return hashlib.sha256(digest.encode()).hexdigest()[:24]
