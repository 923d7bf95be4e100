"""A job's output into the log of the worker that waits for it."""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from airflow_provider_flux.output import OutputLog

if TYPE_CHECKING:
    from executors import Session

_Piece = tuple[str, bytes | BaseException | None]


def read_output(
    session: Session,
    job_id: str,
    output: OutputLog,
    streams: Sequence[str],
    show: Callable[[Sequence[str]], None],
) -> dict[str, str]:
    """Read the streams of a job to their end, from where ``output`` stands; ``show`` is called with lines to log.

    Returns, for each stream that is not whole, why. Raises ExecutorsError.
    """
    pieces: queue.SimpleQueue[_Piece] = queue.SimpleQueue()
    subscriptions = [
        session.follow(job_id, stream, output.offset(stream), partial(_put, pieces, stream)) for stream in streams
    ]
    open_streams = set(streams)
    cuts: dict[str, str] = {}
    try:
        while open_streams:
            stream, piece = pieces.get()
            if isinstance(piece, bytes):
                show(output.feed(stream, piece))
                continue
            open_streams.discard(stream)
            if piece is not None:
                cuts[stream] = str(piece)
    finally:
        for subscription in subscriptions:
            subscription.stop()
    show(output.end())
    return cuts


def _put(pieces: queue.SimpleQueue[_Piece], stream: str, piece: bytes | BaseException | None) -> None:
    pieces.put((stream, piece))
