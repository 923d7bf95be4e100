"""Signals reach a command whenever they come."""

from __future__ import annotations

import subprocess
import sys

import pytest

#: The main thread does not take the signal itself, so that nothing in the kernel breaks its wait: what happens to a
#: signal that comes when Python has looked for signals and does not wait yet.
_WAITING = """
import os, queue, signal, threading
from executors.cli.signals import ended_like_interrupted, first_one_calls

signum = signal.Signals[{signal!r}]
words = queue.SimpleQueue()

def send():
    os.kill(os.getpid(), signum)

with ended_like_interrupted():
    takes = threading.Event()
    taker = threading.Thread(target=takes.wait)
    taker.start()
    signal.pthread_sigmask(signal.SIG_BLOCK, [signum])
    threading.Timer(0.2, send).start()
    try:
        with first_one_calls(lambda signum: words.put(signum.name)):
            print("first", words.get(), flush=True)
            threading.Timer(0.2, send).start()
            words.get()
    except KeyboardInterrupt:
        print("second", flush=True)
    takes.set()
    taker.join()
print(threading.active_count(), signal.getsignal(signal.SIGURG) is signal.SIG_DFL, signal.set_wakeup_fd(-1))
"""


@pytest.mark.parametrize("signum", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_that_breaks_no_wait_is_heard(signum: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _WAITING.format(signal=signum)],
        capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert (done.stdout.splitlines(), done.stderr) == ([f"first {signum}", "second", "1 True -1"], "")
