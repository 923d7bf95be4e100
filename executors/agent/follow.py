"""Follows a file that a job writes: pieces of at most CHUNK_BYTES from an offset on, until the job has ended."""

from __future__ import annotations

import asyncio
import os
from typing import Callable, Optional

from .engine import Sink
from .wire import CHUNK_BYTES

#: Seconds between looks. Only a file that somebody follows while its job runs is looked at: inotify does not hear of
#: what other hosts write to a shared file system, so there would have to be a timer beside it anyway.
_INTERVAL = 0.2


class FileFollower:
    """One reader's place in one file. The file may not exist yet."""

    def __init__(
        self, path: str, stream: str, offset: int, sink: Sink, ended: Callable[[], bool], room: Callable[[], bool]
    ) -> None:
        self._loop = asyncio.get_event_loop()
        self._path = path
        self._stream = stream
        self._offset = offset
        self._sink = sink
        self._ended = ended
        self._room = room
        self._timer: Optional[asyncio.Handle] = self._loop.call_soon(self._look)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        if not self._room():  # what its reader has not taken would only fill our memory
            self._timer = self._loop.call_later(_INTERVAL, self._look)
            return
        ended = self._ended()  # before reading: what was written before the end is read then
        data = self._read()
        if data:
            self._offset += len(data)
            self._sink(self._stream, self._offset - len(data), data, False)
        if self._timer is None:
            return  # stopped by the sink
        if len(data) == CHUNK_BYTES:
            self._timer = self._loop.call_soon(self._look)
        elif ended:
            self._timer = None
            self._sink(self._stream, self._offset, b"", True)
        else:
            self._timer = self._loop.call_later(_INTERVAL, self._look)

    def _read(self) -> bytes:
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            return b""  # not there yet, or never
        try:
            return os.pread(fd, CHUNK_BYTES, self._offset)
        except OSError:
            return b""  # a directory, a FIFO, a file system in trouble: it ends with the job
        finally:
            os.close(fd)
