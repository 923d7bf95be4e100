"""Plays what an API server says to `executors.provision.kubernetes.startup`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from executors.kube.api import EVENTS, JOBS, PODS
from executors.provision.kubernetes.startup import Expected, QueueTimeout, Ready, Startup
from executors.provision.kubernetes.timeouts import StartTimeouts
from executors.provision.kubernetes.watching import Change, Listed

Stream = list[tuple[float, Change | Listed]]

NAME = "snakemake-9f2c61d0aa"
EXPECTED = Expected(
    where=f"the MiniCluster science/{NAME}",
    container=NAME,
    owner_uid="5d0c",
    job_is_owner=True,
    size=2,
    enough=2,
    by_events=True,
)
ADOPTED = replace(EXPECTED, adopted=True, by_events=False)
FOUND = replace(ADOPTED, found=True)
OPERATED = replace(EXPECTED, owner_uid="mc01", job_is_owner=False)


def recorded(case: str) -> Stream:
    """What tests/cluster/record_startup.py has recorded."""
    found: Stream = []
    for line in (Path(__file__).parent / "startup_streams" / f"{case}.jsonl").read_text().splitlines():
        said = json.loads(line)
        [kind] = [one for one in (JOBS, PODS, EVENTS) if one.plural == said["kind"]]
        if "listed" in said:
            found.append((said["at"], Listed(kind, said["listed"])))
        else:
            found.append((said["at"], Change(kind, said["object"], deleted=said.get("deleted", False))))
    return found


class Played:
    """A stream against a clock that stands still between its changes."""

    def __init__(self, expected: Expected, *, job_limit: float = 0, queue_deadline: float = float("inf")) -> None:
        self.now = 0.0
        self.said: list[str] = []

        def clock() -> float:
            return self.now

        timeouts = StartTimeouts(600, 30, job_limit, self.said.append, clock=clock)
        self.startup = Startup(expected, timeouts, queue_deadline, clock)

    def until(self, stream: Stream, last: float | None = None) -> tuple[float, Ready | QueueTimeout] | None:
        """Returns the first step and when it came; None: it waits still, at the moment ``last``."""
        moments: list[tuple[float, Change | Listed | None]] = [*stream]
        while moments:
            at, change = moments.pop(0)
            while (look := self.startup.next_look()) < at:
                if (step := self._take(look, None)) is not None:
                    return self.now, step
            if (step := self._take(at, change)) is not None:
                return self.now, step
            if not moments and last is not None and self.now < last:
                moments.append((last, None))
        return None

    def _take(self, at: float, change: Change | Listed | None) -> Ready | QueueTimeout | None:
        self.now = at
        self.startup.take(change)
        return self.startup.look()


def ready(expected: Expected, stream: Stream) -> tuple[float, str, bool]:
    found = Played(expected).until(stream)
    assert found is not None and isinstance(found[1], Ready)
    return found[0], found[1].lead["metadata"]["uid"], found[1].tentative
