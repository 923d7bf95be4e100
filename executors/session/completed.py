"""Handles in the order in which their jobs end."""

from __future__ import annotations

import queue
import time
from collections.abc import Iterable, Iterator
from functools import partial

from executors.session.handle import JobHandle, check_free, when_ended


def as_completed(handles: Iterable[JobHandle], timeout: float | None = None) -> Iterator[JobHandle]:
    """Yield each of the handles once, as its job ends; those that have ended come first.

    As `concurrent.futures.as_completed`, without a future per job. Jobs of several sessions may be mixed. Raises
    TimeoutError if not all have ended ``timeout`` seconds after the first was asked for, RuntimeError in a callback.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    ended: queue.SimpleQueue[JobHandle] = queue.SimpleQueue()
    waiting = {id(handle): handle for handle in handles}
    total = len(waiting)
    ready = [handle for handle in waiting.values() if handle.done()]
    for handle in ready:
        del waiting[id(handle)]
    for handle in waiting.values():
        when_ended(handle, partial(ended.put, handle))
    yield from ready
    while waiting:
        check_free(waiting.values(), "as_completed()")
        try:
            handle = ended.get(timeout=None if deadline is None else max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            raise TimeoutError(f"{len(waiting)} of {total} jobs have not ended within {timeout:g} s") from None
        del waiting[id(handle)]
        yield handle
