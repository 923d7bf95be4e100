"""Signals to a command: they end it in good order, and none is missed."""

from __future__ import annotations

import contextlib
import queue
import signal
import threading
from collections.abc import Callable, Iterator

from executors.interrupts import none_missed


@contextlib.contextmanager
def ended_like_interrupted() -> Iterator[None]:
    """SIGTERM and a closed terminal end a command as Ctrl-C does: what it was making is not left behind."""
    signums = [one for one in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(one) is signal.SIG_DFL]
    for signum in signums:
        signal.signal(signum, signal.default_int_handler)
    try:
        with none_missed():
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
