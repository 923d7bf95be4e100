"""The thread on which all that arrives is applied in order, and callbacks run."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable

log = logging.getLogger(__name__)

Work = Callable[[], None]


class Dispatcher:
    """Runs what is posted, one after the other, until `stop`. Thread-safe."""

    def __init__(self, failed: Callable[[str], None]) -> None:
        """``failed`` is called on the thread, with the reason, when a piece of work raised what it must not raise."""
        self._failed = failed
        self._inbox: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        #: What can wait, with the moment until which it can. Of the thread.
        self._later: deque[tuple[float, Work]] = deque()
        self._ending = threading.Lock()
        self._has_ended = False
        self._thread = threading.Thread(target=self._run, name="session-dispatcher", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def post(self, work: Work) -> bool:
        """Returns False where nothing is run any more."""
        with self._ending:
            if not self._has_ended:
                self._inbox.put(work)
            return not self._has_ended

    def post_within(self, seconds: float, work: Work) -> None:
        """Run it so much later, so that others can join it."""
        due = time.monotonic() + seconds
        self._inbox.put(lambda: self._later.append((due, work)))

    def stop(self) -> None:
        """Let it end after all that was posted, and what that posts."""
        self._inbox.put(None)

    def join(self) -> None:
        """After `stop`: wait for its end, unless this is its own thread."""
        if not self.is_current:
            self._thread.join()

    @property
    def is_current(self) -> bool:
        return threading.current_thread() is self._thread

    def _run(self) -> None:
        while (work := self._next()) is not None:
            self._do(work)
        while (work := self._rest()) is not None:
            self._do(work)

    def _do(self, work: Work) -> None:
        try:
            work()
        except BaseException as err:  # a defect; those that wait for the other jobs must not wait for ever
            log.exception("the session cannot go on")
            reason = f"the session cannot go on: {err!r}"
            self._inbox.put(lambda: self._failed(reason))

    def _rest(self) -> Work | None:
        """What came after it was told to end: callbacks ask for more, as long as they are called."""
        if self._later:
            return self._later.popleft()[1]
        with self._ending:
            while True:
                try:
                    work = self._inbox.get_nowait()
                except queue.Empty:
                    self._has_ended = True
                    return None
                if work is not None:
                    return work

    def _next(self) -> Work | None:
        """What is to be done next; None: it is to end."""
        if not self._later:
            return self._inbox.get()
        left = self._later[0][0] - time.monotonic()
        # What is due does not wait until there is nothing else to do.
        if left > 0:
            try:
                work = self._inbox.get(timeout=left)
            except queue.Empty:
                work = None
            else:
                if work is not None:
                    return work
                self._inbox.put(None)  # the rest first
        return self._later.popleft()[1]
