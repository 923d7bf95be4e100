"""Follows a file that a job writes: pieces of at most CHUNK_BYTES from an offset on, until the job has ended.

What is cut off is never told as the end: a file that went, or became shorter than what was read of it, ends with an
error. Only a job that never wrote anything may have none.
"""

from __future__ import annotations

import asyncio
import os
import stat
from typing import Optional

from .engine import ACTIVE, RAN, Follower, OutputSink, Progress
from .wire import CHUNK_BYTES

#: Seconds between looks. Only a file that somebody follows while its job runs is looked at: inotify does not hear of
#: what other hosts write to a shared file system, so there would have to be a timer beside it anyway.
_INTERVAL = 0.2


class FileFollower(Follower):
    """One reader's place in one file. The file may not exist yet."""

    def __init__(self, path: str, offset: int, sink: OutputSink, progress: Progress) -> None:
        self._loop = asyncio.get_event_loop()
        self._path = path
        self._offset = offset
        self._sink = sink
        self._progress = progress
        self._seen = offset > 0
        self._timer: Optional[asyncio.Handle] = self._loop.call_soon(self._look)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def job_ended(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = self._loop.call_soon(self._look)

    def _look(self) -> None:
        progress = self._progress()  # before reading: what was written before the end is read then
        try:
            data = self._read()
        except _Gone as err:
            if progress == ACTIVE or (progress != RAN and not self._seen):
                data = b""  # not there yet, or never
            else:
                self._end(str(err))
                return
        except OSError as err:
            self._end("%s: %s" % (self._path, err.strerror))
            return
        if data:
            self._offset += len(data)
            self._sink.data(self._offset - len(data), data)
        if self._timer is None:
            return  # stopped by the sink
        if len(data) == CHUNK_BYTES:
            self._timer = self._loop.call_soon(self._look)
        elif progress != ACTIVE:
            self._end(None)
        else:
            self._timer = self._loop.call_later(_INTERVAL, self._look)

    def _end(self, error: Optional[str]) -> None:
        self._timer = None
        self._sink.end(self._offset, error)

    def _read(self) -> bytes:
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError):
            raise _Gone("%s is not there (any more): its output cannot be read" % self._path) from None
        try:
            about = os.fstat(fd)
            if not stat.S_ISREG(about.st_mode):
                return b""  # a directory, a FIFO, a device: nothing is kept there
            self._seen = True
            if about.st_size < self._offset:
                raise _Gone(
                    "%s was cut to %d bytes, %d of it had been read" % (self._path, about.st_size, self._offset)
                )
            return os.pread(fd, CHUNK_BYTES, self._offset)
        finally:
            os.close(fd)


class _Gone(Exception):
    """The file, or what was read of it, is not there."""
