"""Flux's handle bears one thread: what belongs to it is freed in the reactor's, and no other looks for garbage."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import executors.agent
from tests.support.environment import environment

_PROGRAM = """
import asyncio, gc, json, threading
from agent.flux.reactor import Reactor

async def main():
    begun = asyncio.get_event_loop().create_future()
    reactor = Reactor(lambda handle: reactor.to_loop(lambda: begun.set_result(None)), lambda *_: None)
    reactor.start()
    await begun
    searched = set()
    gc.callbacks.append(lambda phase, info: searched.add(threading.current_thread().name))
    for _ in range(20):
        ranks = await asyncio.gather(*[
            reactor.rpc(lambda handle: handle.rpc("attr.get", {"name": "rank"}), lambda future: future.get()["value"])
            for _ in range(50)
        ])
        assert set(ranks) == {"0"}
        for _ in range(2000):  # garbage of the loop's
            cycle = []
            cycle.append(cycle)
    # What is left of futures, and only cycles would keep it.
    left = asyncio.get_event_loop().create_future()
    def look(handle):
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        gc.set_debug(0)
        found = [type(one).__name__ for one in gc.garbage if type(one).__name__ != "list"]
        reactor.to_loop(lambda: left.set_result(found))
    reactor.call(look)
    print(json.dumps([sorted(searched), await left]))
    await reactor.stop(5)

asyncio.run(main())
"""


def test_futures_are_freed_when_they_are_heard_and_garbage_is_looked_for_in_the_reactors_thread(
    need: Callable[[str], None],
) -> None:
    need("flux")
    done = subprocess.run(
        ["flux", "start", "flux", "python", "-c", _PROGRAM],
        env={**environment(), "PYTHONPATH": str(Path(executors.agent.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == '[["flux-reactor"], []]'
