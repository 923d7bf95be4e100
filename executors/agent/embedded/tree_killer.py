"""Ends whole process trees: TERM, a grace, KILL; and says when the last process is gone.

Requests of one loop iteration share one look at /proc, so a thousand jobs that end at once cost one pass each for
TERM and KILL, not a thousand.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from typing import Callable, Dict, List, Set

from .. import process_tree
from ..process_tree import Process
from . import exits

#: Looks at /proc within one KILL; the second finds what was forked during the first, further ones next to never.
_KILL_ROUNDS = 50

#: Seconds until the next look where the table of open files is full.
_AGAIN = 1.0

log = logging.getLogger("agent")

#: Returns the live processes of each tree.
Census = Callable[[], Dict[str, List[Process]]]


class _Tree:
    __slots__ = ("killing", "on_gone", "watched")

    def __init__(self, on_gone: Callable[[], None]) -> None:
        self.on_gone = on_gone
        self.watched: Set[Process] = set()
        self.killing = False


class TreeKiller:
    """``grace``: seconds from TERM to KILL, and again from KILL until processes that even that cannot end (they
    sleep in the kernel) are given up."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, watcher: exits.ExitWatcher, grace: float, census: Census
    ) -> None:
        self._loop = loop
        self._watcher = watcher
        self._grace = grace
        self._census = census
        self._trees: Dict[str, _Tree] = {}
        self._new: List[str] = []
        self._changed: Set[str] = set()
        self._due = False

    def end(self, key: str, on_gone: Callable[[], None]) -> None:
        """Begin to end a tree; ``on_gone`` is called on the loop, once, later. A tree that is ending is left alone."""
        if key not in self._trees:
            self._trees[key] = _Tree(on_gone)
            self._new.append(key)
            self._schedule()

    def hurry(self, keys: List[str]) -> None:
        """Do not wait for the rest of the grace of these trees."""
        self._loop.call_soon(self._kill, keys)

    def changed(self, key: str) -> None:
        """A task of this tree has ended: look again soon whether anything is left."""
        if key in self._trees:
            self._changed.add(key)
            self._schedule()

    def _schedule(self) -> None:
        if not self._due:
            self._due = True
            self._loop.call_soon(self._look)

    def _look(self) -> None:
        self._due = False
        new, self._new = self._new, []
        changed, self._changed = self._changed, set()
        try:
            census = self._census()
        except OSError as err:  # no more files can be opened, so that nobody knows who lives: looked at again
            log.warning("cannot look for the processes of jobs that are to end: %s", err)
            self._new += new
            self._changed |= changed
            self._due = True
            self._loop.call_later(_AGAIN, self._look)
            return
        for key in new:
            process_tree.send(census.get(key, ()), signal.SIGTERM)
        if new:
            self._loop.call_later(self._grace, self._kill, new)
        for key in changed.union(new):
            self._check(key, census.get(key, []))

    def _check(self, key: str, alive: List[Process]) -> None:
        tree = self._trees.get(key)
        if tree is None:
            return
        if not alive:
            del self._trees[key]
            tree.on_gone()
            return
        if tree.killing:
            process_tree.send(alive, signal.SIGKILL)
        pids = {process.pid for process in alive}
        for process in alive:
            # The end of a task is reported by the engine, that of a descendant matters after its parent's.
            top = process.ppid not in pids and process.pid not in exits.started
            if top and process not in tree.watched:
                tree.watched.add(process)
                self._watch(key, process.pid)

    def _watch(self, key: str, pid: int) -> None:
        def ended() -> None:
            exits.reap(pid)
            self.changed(key)

        self._watcher.watch(pid, ended)

    def _kill(self, keys: List[str]) -> None:
        keys = [key for key in keys if key in self._trees]
        if not keys:
            return
        killed: Set[int] = set()
        for _ in range(_KILL_ROUNDS):
            try:
                census = self._census()
            except OSError as err:
                log.warning("cannot look for the processes of jobs that are to end: %s", err)
                self._loop.call_later(_AGAIN, self._kill, keys)
                return
            fresh = [process for key in keys for process in census.get(key, ()) if process.pid not in killed]
            if not fresh:
                break
            process_tree.send(fresh, signal.SIGKILL)
            killed.update(process.pid for process in fresh)
        for key in keys:
            self._trees[key].killing = True
            self._changed.add(key)
        self._schedule()
        self._loop.call_later(self._grace, self._give_up, keys)

    def _give_up(self, keys: List[str]) -> None:
        for key in keys:
            tree = self._trees.pop(key, None)
            if tree is not None:
                tree.on_gone()
