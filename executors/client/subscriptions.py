"""Readers of jobs' output. Each goes on where it was after a cut of the stream."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol

from executors.client.conversation import Output
from executors.errors import AgentError, TransportError

log = logging.getLogger(__name__)

#: Bytes of output that the agent may send ahead of a paced reader, which tells it after each half of them.
WINDOW = 4 * 1024 * 1024

#: Takes pieces of output, then None, or the error that ended it.
Sink = Callable[[bytes | BaseException | None], None]


class Asking(Protocol):
    """What the subscriptions ask of their client."""

    @property
    def is_over(self) -> bool:
        """It is closed, or its agent is gone."""

    def request_later(
        self, op: str, *, answered: Callable[[Future[dict[str, Any]]], None] | None = None, **fields: Any
    ) -> Future[dict[str, Any]]:
        """Ask without waiting; ``answered`` is called before anything that comes after the answer is dealt with."""


class _Reader:
    __slots__ = ("job", "offset", "paced", "path", "sink", "stopped", "stream", "sub", "taken", "told")

    def __init__(self, job: str, stream: str, path: str | None, offset: int, sink: Sink, paced: bool) -> None:
        self.job = job
        self.stream = stream
        self.path = path
        self.sink = sink
        self.paced = paced
        #: Bytes that were passed on, counted from the beginning of the output.
        self.offset = offset
        #: How far the reader is, and how far the agent knows that it is.
        self.taken = offset
        self.told = offset
        #: The agent's number for it; None until it has one, and after a cut.
        self.sub: int | None = None
        self.stopped = False


class OutputSubscription:
    """A reader of a job's output."""

    def __init__(self, stop: Callable[[], None], taken: Callable[[int], None]) -> None:
        self._stop = stop
        self._taken = taken

    def stop(self) -> None:
        """Nothing more is to be passed on. May be called twice."""
        self._stop()

    def taken(self, size: int) -> None:
        """Of a paced reader: so many more bytes were dealt with."""
        self._taken(size)


class Subscriptions:
    """Thread-safe, by its client's ``lock``."""

    def __init__(self, client: Asking, lock: threading.Lock) -> None:
        self._client = client
        self._lock = lock
        self._readers: dict[int, _Reader] = {}

    def add(
        self, job: str, stream: str, path: str | None, offset: int, sink: Sink, *, paced: bool
    ) -> OutputSubscription:
        """See `Client.follow`."""
        reader = _Reader(job, stream, path, offset, sink, paced)
        self._subscribe(reader)
        return OutputSubscription(lambda: self._stop(reader), lambda size: self._advance(reader, size))

    def take_output(self, piece: Output) -> None:
        """A piece has arrived."""
        with self._lock:
            reader = self._readers.get(piece.subscription)
            if piece.is_last and reader is not None:
                del self._readers[piece.subscription]
                reader.sub = None
        if reader is None:
            return
        data = piece.data[max(0, reader.offset - piece.offset) :]
        if data:
            reader.offset += len(data)
            _pass_on(reader, data)
        if piece.is_last:
            _pass_on(reader, None if piece.error is None else AgentError("engine", piece.error))

    def cut(self) -> Callable[[], None]:
        """The stream is a new one; the lock is held. Returns what subscribes again, to be called without it."""
        readers, self._readers = list(self._readers.values()), {}
        for reader in readers:
            reader.sub = None

        def subscribe_again() -> None:
            for reader in readers:
                self._subscribe(reader)

        return subscribe_again

    def fail(self, error: BaseException) -> None:
        """Nothing more will come."""
        with self._lock:
            readers, self._readers = list(self._readers.values()), {}
        for reader in readers:
            _pass_on(reader, error)

    def _subscribe(self, reader: _Reader) -> None:
        def subscribed(reply: Future[dict[str, Any]]) -> None:
            error = reply.exception()
            if error is None:
                sub = reply.result()["sub"]
                with self._lock:
                    stopped = reader.stopped
                    if not stopped:
                        self._readers[sub] = reader
                        reader.sub = sub
                    # What was taken while there was no subscription to tell it of; the agent may wait for that.
                    taken_since = not stopped and reader.paced and reader.taken > reader.told
                    if taken_since:
                        reader.told = reader.taken
                if taken_since:
                    self._client.request_later("taken", sub=sub, offset=reader.taken)
                if stopped:
                    self._client.request_later("unfollow", sub=sub)
            elif reader.stopped:
                pass
            elif isinstance(error, TransportError) and not self._client.is_over:
                self._subscribe(reader)  # the cut came before the answer
            else:
                _pass_on(reader, error)

        with self._lock:
            reader.told = taken = reader.taken if reader.paced else reader.offset
        self._client.request_later(
            "output", answered=subscribed, job=reader.job, stream=reader.stream, path=reader.path,
            offset=reader.offset, taken=taken, window=WINDOW if reader.paced else 0,
        )  # fmt: skip

    def _stop(self, reader: _Reader) -> None:
        with self._lock:
            reader.stopped = True
            sub, reader.sub = reader.sub, None
            if sub is not None:
                self._readers.pop(sub, None)
        if sub is not None:
            self._client.request_later("unfollow", sub=sub)

    def _advance(self, reader: _Reader, size: int) -> None:
        with self._lock:
            reader.taken += size
            sub = reader.sub
            tell = sub is not None and reader.taken - reader.told >= WINDOW // 2
            if tell:
                reader.told = reader.taken
        if tell:
            self._client.request_later("taken", sub=sub, offset=reader.taken)


def _pass_on(reader: _Reader, what: bytes | BaseException | None) -> None:
    try:
        reader.sink(what)
    except BaseException:  # a caller's function, SystemExit included, must not end the thread of all
        log.exception("a reader of the output of job %s failed", reader.job)
