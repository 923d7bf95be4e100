"""Signals to a command: they end it in good order, and none is missed."""

from __future__ import annotations

import contextlib
import queue
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator

#: Tells nobody anything: programs that do not ask for it never notice it.
_NUDGE = signal.SIGURG
#: Seconds between two of them.
_PAUSE = 0.02


@contextlib.contextmanager
def ended_like_interrupted() -> Iterator[None]:
    """SIGTERM and a closed terminal end a command as Ctrl-C does: what it was making is not left behind."""
    signums = [one for one in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(one) is signal.SIG_DFL]
    for signum in signums:
        signal.signal(signum, signal.default_int_handler)
    try:
        with _none_missed():
            yield
    finally:
        for signum in signums:
            signal.signal(signum, signal.SIG_DFL)


@contextlib.contextmanager
def first_one_calls(function: Callable[[signal.Signals], None]) -> Iterator[None]:
    """The first signal that would end a command calls ``function`` instead; the next one raises KeyboardInterrupt.

    A thread calls it: a signal's handler may have interrupted the holder of a lock that it needs.
    """
    arrived: queue.SimpleQueue[int | None] = queue.SimpleQueue()

    def call() -> None:
        signum = arrived.get()
        if signum is not None:
            function(signal.Signals(signum))

    def pass_on(signum: int, _frame: object) -> None:
        arrived.put(signum)
        for one in before:
            signal.signal(one, signal.default_int_handler)

    caught = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {one: signal.getsignal(one) for one in caught if signal.getsignal(one) is not signal.SIG_IGN}
    threading.Thread(target=call, name="first-signal", daemon=True).start()
    for one in before:
        signal.signal(one, pass_on)
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
        arrived.put(None)


@contextlib.contextmanager
def _none_missed() -> Iterator[None]:
    """Have a signal's handler run, whenever the signal comes.

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
    told_before = signal.set_wakeup_fd(tell.fileno(), warn_on_full_buffer=False)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(told_before)
        tell.close()
        while thread.is_alive():
            run_since[0] = True
            thread.join(_PAUSE)
        told.close()
        signal.signal(_NUDGE, handler)
