"""Files and directories of the agent's node, as clients ask for them."""

from __future__ import annotations

import base64
import os
import stat
from typing import List, Optional

from .. import wire
from ..engine import EngineError
from . import fields


class Files:
    """``root``: where relative paths lead."""

    def __init__(self, root: str) -> None:
        self._root = root

    def put(self, request: wire.Message) -> wire.Message:
        """Write a piece of a file at an offset."""
        path = self._path(request)
        data = fields.data(request, "data")
        offset = fields.integer(request, "offset", default=0)
        mode = fields.integer(request, "mode", 0, 0o777, 0o600)
        flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if offset == 0 else 0)
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        fd = os.open(path, flags | os.O_NONBLOCK, mode)  # a FIFO must not hold up the agent
        try:
            _must_be_regular(fd, path)
            written = os.pwrite(fd, data, offset)
        finally:
            os.close(fd)
        if written != len(data):
            raise EngineError("%s: only %d of %d bytes were written" % (path, written, len(data)))
        return {"path": path, "size": offset + written}

    def get(self, request: wire.Message) -> wire.Message:
        """Read a piece of a file from an offset on."""
        path = self._path(request)
        offset = fields.integer(request, "offset", default=0)
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            _must_be_regular(fd, path)
            data = os.pread(fd, wire.CHUNK_BYTES, offset)
            size = os.fstat(fd).st_size
        finally:
            os.close(fd)
        return {"data": base64.b64encode(data).decode("ascii"), "eof": offset + len(data) >= size, "size": size}

    def describe(self, request: wire.Message) -> wire.Message:
        """What each path is ("file", "directory", "other" or null), whose it is, and whether jobs may write there: they
        are the agent's own user.
        """
        paths = fields.strings(request, "paths")
        kinds = [_kind(path) for path in paths]
        return {
            "kinds": kinds,
            "writable": [
                os.access(path, os.W_OK | os.X_OK) if kind == "directory" else None for path, kind in zip(paths, kinds)
            ],
            "owners": [_owner(path) for path in paths],
            "user": [os.getuid(), os.getgid()],
        }

    def _path(self, request: wire.Message) -> str:
        path = fields.string(request, "path")
        if os.path.isabs(path):
            return path
        full = os.path.normpath(os.path.join(self._root, path))
        if not full.startswith(self._root + os.sep):
            raise EngineError("path: %r leads out of the agent's directory" % path, "bad-request")
        return full


def _kind(path: str) -> Optional[str]:
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return None
    return "directory" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "other"


def _owner(path: str) -> Optional[List[int]]:
    """User, group and permissions."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return [status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)]


def _must_be_regular(fd: int, path: str) -> None:
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise EngineError("path: %r is not a regular file" % path, "bad-request")
