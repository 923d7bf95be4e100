"""Output that only a pilot can read, piece by piece: both ends of the request ``read``. Pure.

A piece is ``{"offset": ..., "data": base64}``; with ``end``, nothing comes after it, and ``error`` says why where that
is not the end of the output. ``{"error": ...}`` alone: the request cannot be served.
"""

from __future__ import annotations

import base64
from typing import Callable, Optional, Protocol

from ..engine import Follower, OutputPosition, OutputSink
from .messages import Answer


class PieceReader(Protocol):
    """The way to pilots."""

    def read(
        self, rank: int, position: OutputPosition, answered: Callable[[Answer], None], lost: Callable[[str], None]
    ) -> None:
        """Ask the pilot of a rank for one piece; one of the two is called on the loop, ``lost`` with a reason."""


class RemoteFollower(Follower):
    """Delivers the output of a task from the pilot that has it. One piece is asked for at a time."""

    def __init__(self, pilots: PieceReader, rank: int, position: OutputPosition, sink: OutputSink) -> None:
        self._pilots = pilots
        self._rank = rank
        self._position = position
        self._sink = sink
        self._stopped = False
        self._ask()

    def stop(self) -> None:
        self._stopped = True

    def _ask(self) -> None:
        self._pilots.read(self._rank, self._position, self._answered, self._lost)

    def _answered(self, answer: Answer) -> None:
        if self._stopped:
            return
        if "offset" not in answer:
            self._lost(str(answer.get("error")))
            return
        data = base64.b64decode(answer["data"])
        if data:
            self._position = self._position.at(self._position.offset + len(data))
            self._sink.data(answer["offset"], data)
        if answer.get("end"):
            self._stopped = True
            self._sink.end(self._position.offset, answer.get("error"))
        elif not self._stopped:
            self._ask()

    def _lost(self, reason: str) -> None:
        if not self._stopped:
            self._stopped = True
            text = "the pilot on rank %d, which kept this output, cannot be asked: %s" % (self._rank, reason)
            self._sink.end(self._position.offset, text)


class PieceSink(OutputSink):
    """Answers one request with the next piece of output, once there is one; or with the end."""

    def __init__(self, answer: Callable[[Answer], None]) -> None:
        self._answer = answer
        self.follower: Optional[Follower] = None

    def data(self, offset: int, data: bytes) -> None:
        self._say({"offset": offset, "data": base64.b64encode(data).decode("ascii")})

    def end(self, offset: int, error: Optional[str]) -> None:
        self._say({"offset": offset, "data": "", "end": True, "error": error})

    def _say(self, answer: Answer) -> None:
        if self.follower is not None:
            self.follower.stop()
            self.follower = None
            self._answer(answer)
