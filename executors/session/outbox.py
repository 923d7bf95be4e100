"""Jobs that a session was asked for and the instance does not have yet: flow control, and batches.

At most ``max_in_flight`` jobs of a session are in the instance at once, the others wait here, urgent ones first. The
lead broker's memory grows with what it holds, and Flux runs no job sooner for being told of it early. Room is filled a
quarter of that at a time: Flux keeps jobs in a directory with one entry for each 256 ms in which a job was submitted
(its ids begin with the time, RFC 19), and writes all of it with every change of a job. Jobs that trickle in one by one
make it grow with the time that the run takes, and each job then costs more than the one before.

Held jobs (urgency 0) have a room of their own, of the same size: they run when somebody says so, and until then would
keep out what could run.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

from executors.agent.wire import BATCH_BYTES
from executors.job import DEFAULT_URGENCY, Environment
from executors.session.job import Job

#: Jobs in one submission message.
_BATCH_JOBS = 200


@dataclass
class Batch:
    """What goes in one message: jobs, encoded, with the environments that they name by index."""

    jobs: list[Job] = field(default_factory=list)
    items: list[bytes] = field(default_factory=list)
    environments: list[Environment] = field(default_factory=list)


class Outbox:
    """Not thread-safe: its session's lock is held for every call."""

    def __init__(self, max_in_flight: int) -> None:
        self._max_in_flight = max_in_flight
        self._waiting: list[tuple[int, int, Job, bytes, Environment]] = []
        self._sequence = 0
        self._in_flight = 0
        self._held = 0
        self._full = False

    def put(self, urgency: int, job: Job, line: bytes, environment: Environment) -> None:
        self._sequence += 1
        heapq.heappush(self._waiting, (-urgency, self._sequence, job, line, environment))

    def clear(self) -> list[Job]:
        """Forget what still waits, and return it."""
        waiting, self._waiting = self._waiting, []
        return [job for _, _, job, _, _ in waiting]

    def ended(self, job: Job) -> None:
        if job.is_sent and job.is_held:
            self._held -= 1
        elif job.is_sent:
            self._in_flight -= 1

    def take(self) -> Batch:
        """What may go now; empty when nothing waits, or there is no room for it."""
        batch = Batch()
        if not self._waiting:
            return batch
        indices: dict[Environment, int] = {}
        room = self._room()
        size = 0
        while self._waiting and len(batch.jobs) < _BATCH_JOBS:
            urgency, _, job, line, environment = self._waiting[0]
            if job.cancel_note is not None:
                heapq.heappop(self._waiting)
                continue
            # Held ones are the last of the line.
            if (self._max_in_flight <= self._held) if urgency == 0 else room <= 0:
                break
            size += len(line) + (0 if environment in indices else len(environment.encoded))
            if batch.jobs and size > BATCH_BYTES:
                break
            heapq.heappop(self._waiting)
            job.set_sent(held=urgency == 0)
            if job.is_held:
                self._held += 1
            else:
                self._in_flight += 1
                room -= 1
            batch.jobs.append(job)
            index = indices.setdefault(environment, len(indices))
            batch.items.append(b'{"environment":%d,%b' % (index, line[1:]))
        batch.environments = list(indices)
        return batch

    def _room(self) -> int:
        """How many of the waiting jobs may go now."""
        room = self._max_in_flight - self._in_flight
        if room <= 0:
            self._full = True
        elif room >= self._max_in_flight // 4:
            self._full = False
        urgent = -self._waiting[0][0] > DEFAULT_URGENCY if self._waiting else False
        return 0 if self._full and not urgent else room
