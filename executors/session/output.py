"""A job's output as an iterator."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator

from executors.client import Client
from executors.session.job import Job


def read_output(client: Client, job: Job, stream: str, offset: int, is_closed: Callable[[], bool]) -> Iterator[bytes]:
    """Output of a job whose id is known, from a byte offset on, as it is written.

    Raises the error that ended it, unless the session was closed here meanwhile.
    """
    assert job.id is not None
    pieces: queue.SimpleQueue[bytes | BaseException | None] = queue.SimpleQueue()
    path = job.output_files[stream == "stderr"]
    subscription = client.follow(job.id, stream, path, offset, pieces.put, paced=True)
    try:
        while (piece := pieces.get()) is not None:
            if isinstance(piece, BaseException):
                if is_closed():
                    return
                raise piece
            yield piece
            subscription.taken(len(piece))
    finally:
        subscription.stop()
