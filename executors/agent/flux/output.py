"""What a job under Flux writes, as Flux's output events tell it."""

from __future__ import annotations

import threading
from typing import Any, Callable, Optional

from ..engine import FAILED_TO_RUN, Follower, OutputPosition, OutputSink, Progress
from ..wire import CHUNK_BYTES


class OutputFollower(Follower):
    """Turns RFC 24 output events of one job into pieces for a sink, in batches. Fed in the reactor's thread."""

    #: Flux gives a job's output from its beginning only.
    costly = True

    def __init__(
        self,
        position: OutputPosition,
        sink: OutputSink,
        progress: Progress,
        to_loop: Callable[[Callable[[], None]], None],
    ) -> None:
        self._job_id = position.job_id
        self._progress = progress
        self._stream = position.stream
        #: Bytes of the stream before those that are asked for; how far the stream and the sink have come.
        self._skip = position.offset
        self._position = 0
        self._sent = position.offset
        self._sink = sink
        self._to_loop = to_loop
        self._lock = threading.Lock()
        self._buffer = bytearray()
        self._ended = False
        #: What tells that this is not all.
        self._lacks = ""
        self._unread = ""
        self._due = False
        self._stopped = False

    def stop(self) -> None:
        self._stopped = True

    def on_event(self, future: Any) -> None:
        try:
            event = future.get_event()
        except OSError as err:
            # Where the job never ran there is none to be read, which `_flush` looks at: it is on the loop.
            self._unread = "Flux does not give the output of job %s: %s" % (self._job_id, err.strerror)
            event = None
        if self._stopped:
            future.stop()
        elif event is None:
            self._add(b"", ended=True)
        elif event.name == "data" and event.stream == self._stream and event.data:
            self._add(event.data.encode("utf-8", "surrogateescape"))
        elif event.name == "log" and event.message.startswith(self._stream) and "truncated" in event.message:
            self._lacks = "Flux kept only the beginning of job %s's output: %s" % (self._job_id, event.message)

    def _add(self, data: bytes, ended: bool = False) -> None:
        """Collect until the loop has time: a program that writes line by line costs one message for many lines."""
        with self._lock:
            self._buffer += data[max(0, self._skip - self._position) :]
            self._position += len(data)
            self._ended = ended
            due, self._due = self._due, True
        if not due:
            self._to_loop(self._flush)

    def _flush(self) -> None:
        with self._lock:
            data, self._buffer = self._buffer, bytearray()
            self._due = False
            ended = self._ended
        if self._stopped:
            return
        for index in range(0, len(data), CHUNK_BYTES):
            self._sink.data(self._sent + index, bytes(data[index : index + CHUNK_BYTES]))
        self._sent += len(data)
        if ended:
            self._stopped = True
            self._sink.end(max(self._sent, self._position), self._error())

    def _error(self) -> Optional[str]:
        if self._unread and (self._position or self._progress() != FAILED_TO_RUN):
            return self._unread
        return self._lacks or None
