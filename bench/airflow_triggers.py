"""Many triggers of one run in one event loop, as a triggerer has them; prints what was seen, as JSON.

Argument: how many. Each waits for a job of an instance on this machine, with its output.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import sys
import time
import uuid
from pathlib import Path

from airflow_provider_flux.hooks.flux import FluxHook, reconnect_options
from airflow_provider_flux.triggers.job import FluxJobTrigger
from bench.common import rss
from executors import JobRequest, RunId, Session, load_config, open_session
from tests.support.sessions import ask

#: The first jobs hold all cores until all triggers wait.
_HOLD = "while [ ! -e {gate} ]; do sleep 0.1; done"


def main(count: int) -> None:
    gate = f"/tmp/bench-gate-{uuid.uuid4().hex[:8]}"
    config = load_config(environ={}, options={"run.provisioner": "local"})
    environ = FluxHook().environment()
    with open_session(RunId("bench", uuid.uuid4().hex[:8]), config, environ=environ) as session:
        held = session.submit(
            [JobRequest(argv=["sh", "-c", _HOLD.format(gate=gate)]) for _ in range(os.cpu_count() or 1)]
        )
        handles = session.submit([JobRequest(argv=["echo", str(number)]) for number in range(count)])
        ids = [str(handle.wait_submitted(60.0)) for handle in (*held, *handles)][len(held) :]
        try:
            print(json.dumps(asyncio.run(_watch(session, ids, reconnect_options(config), gate))))
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(gate)


async def _watch(session: Session, ids: list[str], options: dict[str, object], gate: str) -> dict[str, object]:
    delays: list[float] = []
    lag = _Lag()

    async def one(job_id: str) -> None:
        trigger = FluxJobTrigger(run_name=session.run_name, options=options, job_id=job_id)
        async for event in trigger.run():
            payload = event.payload
            delays.append(time.time() - payload["result"]["times"]["finish"])
            assert payload["result"]["outcome"] == "COMPLETED", payload
            assert payload["result_line"] is not None, payload

    # What is loaded for the first trigger of a process is not what these many cost.
    [first] = session.submit([JobRequest(argv=["echo", "1"], urgency=31)])
    asyncio.get_running_loop().call_later(1.0, first.cancel)  # it waits behind the held cores
    async for _ in FluxJobTrigger(run_name=session.run_name, options=options, job_id=str(first.wait_submitted())).run():
        pass
    # A full collection of what Airflow has loaded takes 0.1 s by itself, no matter who allocates.
    gc.collect()
    gc.freeze()
    before = rss(os.getpid())
    watching = asyncio.ensure_future(lag.watch())
    triggers = []
    for job_id in ids:  # one in each turn of the loop, as the triggerer does
        triggers.append(asyncio.ensure_future(one(job_id)))
        await asyncio.sleep(0)
    clients = 1
    while clients < 2:
        clients = (await asyncio.to_thread(ask, session, "info"))["clients"]
        await asyncio.sleep(0.1)
    await asyncio.sleep(3.0)  # all of them wait, and what their beginning cost is in the figures
    clients = (await asyncio.to_thread(ask, session, "info"))["clients"]
    begin = time.monotonic()
    await asyncio.to_thread(Path(gate).touch)
    await asyncio.gather(*triggers)
    seconds = time.monotonic() - begin
    watching.cancel()
    # The session of this program is one of the clients.
    return {
        "delays": delays,
        "streams": clients - 1,
        "grown": rss(os.getpid()) - before,
        "blocked": lag.worst,
        "busy": lag.busiest,
        "seconds": seconds,
    }


class _Lag:
    """The longest time for which the loop did not come round, and the most of its own processor time in one round."""

    def __init__(self) -> None:
        self.worst = 0.0
        self.busiest = 0.0

    async def watch(self) -> None:
        while True:
            begin, busy = time.monotonic(), time.thread_time()
            await asyncio.sleep(0.005)
            self.busiest = max(self.busiest, time.thread_time() - busy)
            self.worst = max(self.worst, time.monotonic() - begin - 0.005)


if __name__ == "__main__":
    main(int(sys.argv[1]))
