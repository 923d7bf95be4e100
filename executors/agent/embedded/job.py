"""One job of the embedded engine, and what is known of it while it waits and runs."""

from __future__ import annotations

import asyncio
import os
from typing import Dict, List

from ..engine import Submission
from .plan import Plan

PENDING, RUNNING, ENDED = "pending", "running", "ended"


class LocalJob:
    """``spool`` is where output is kept that goes to no file of the job's."""

    __slots__ = (
        "cores",
        "cpu",
        "gpus",
        "id",
        "is_ending",
        "kept_here",
        "left",
        "max_rss",
        "paths",
        "pids",
        "plan",
        "secret_env",
        "state",
        "status",
        "timers",
        "urgency",
        "usage_path",
    )  # fmt: skip

    def __init__(self, job_id: str, plan: Plan, submission: Submission, spool: str) -> None:
        self.id = job_id
        self.plan = plan
        self.urgency = submission.urgency
        self.secret_env = submission.secret_env or {}
        self.state = PENDING
        #: Ranks of the tasks that run, by pid.
        self.pids: Dict[int, int] = {}
        #: Tasks that have been started and have not ended.
        self.left = 0
        #: The largest status of its tasks (wait(2)), their CPU seconds together, and the largest peak memory in bytes.
        self.status = 0
        self.cpu = 0.0
        self.max_rss = 0
        #: What it has of the machine while it runs: GPUs by id, cores by number.
        self.gpus: List[int] = []
        self.cores: List[int] = []
        self.timers: List[asyncio.TimerHandle] = []
        #: An exception was raised while it ran: its whole tree has to go before it has finished.
        self.is_ending = False
        base = os.path.join(spool, job_id.rpartition("-")[2])
        #: Of stdout and stderr.
        self.paths = (plan.stdout or base + ".out", plan.stderr or base + ".err")

        #: Those of them that are ours: it names no file of its own for them.
        self.kept_here = [path for path, own in zip(self.paths, (plan.stdout, plan.stderr)) if not own]
        #: See `wire.USAGE_VARIABLE`.
        self.usage_path = base + ".usage"

    def output_path(self, stream: str) -> str:
        return self.paths[0 if stream == "stdout" else 1]
