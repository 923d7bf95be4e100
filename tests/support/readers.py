"""Readers of a job's output."""

from __future__ import annotations

from executors.agent.engine import OutputSink


class Reader(OutputSink):
    """Keeps what it is given: pieces with their offsets, and at last the end's offset with its error or None."""

    def __init__(self) -> None:
        self.got: list[tuple[int, bytes | str | None]] = []

    def data(self, offset: int, data: bytes) -> None:
        self.got.append((offset, data))

    def end(self, offset: int, error: str | None) -> None:
        self.got.append((offset, error))
