"""Signals reach a process that waits, whenever they come."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
import time
from collections.abc import Iterator

#: Tells nobody anything: programs that do not ask for it never notice it.
_NUDGE = signal.SIGURG
#: Seconds between two of them.
_PAUSE = 0.02


@contextlib.contextmanager
def none_missed() -> Iterator[None]:
    """Have a signal's handler run, whenever the signal comes.

    Not inside of itself. A loop of asyncio's that handles signals does the same, and ends it.

    Python notes a signal, and its main thread runs the handler later, between two instructions. If the note is made
    just after it has looked and before it begins to wait, for a lock or in the kernel, it waits on, for ever if need
    be. So a thread is told of every signal by its descriptor, and breaks the wait until handlers have been run.
    """
    told, tell = socket.socketpair()
    tell.setblocking(False)
    main = threading.main_thread().ident
    assert main is not None
    run_since = [False]

    def nudge() -> None:
        while signums := told.recv(64):
            if set(signums) == {_NUDGE}:
                continue
            run_since[0] = False
            while not run_since[0]:
                time.sleep(_PAUSE)
                signal.pthread_kill(main, _NUDGE)

    def nudged(_signum: int, _frame: object) -> None:
        run_since[0] = True

    thread = threading.Thread(target=nudge, name="signals", daemon=True)
    handler = signal.signal(_NUDGE, nudged)
    told_before = -1
    try:
        told_before = signal.set_wakeup_fd(tell.fileno(), warn_on_full_buffer=False)
        thread.start()
        yield
    finally:
        signal.set_wakeup_fd(told_before)
        tell.close()
        while thread.is_alive():
            run_since[0] = True
            thread.join(_PAUSE)
        told.close()
        signal.signal(_NUDGE, handler)
