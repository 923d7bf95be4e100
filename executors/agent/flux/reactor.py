"""The thread that talks to Flux: it runs Flux's reactor on one handle, which no other thread may use.

Nor may another thread free what belongs to the handle. In Flux's bindings a future with a callback refers to itself, so
that only Python's search for cycles frees it, in whatever thread that runs. (What came of it: two requests with one
number, of which the second failed with EEXIST.) So futures are taken up by `then` and `then_each`, which free them when
they have been heard; and for all others, cycles are searched for in this thread only.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import threading
from collections import deque
from typing import Any, Awaitable, Callable, Deque, Optional

import flux
import flux.constants

from ..engine import EngineError

#: Seconds until garbage is looked for where nothing else wakes the thread.
_GARBAGE_SECONDS = 5.0


class Reactor:
    """What passes between the server's loop and Flux. Its methods are called on the loop, but for `to_loop`."""

    def __init__(self, begin: Callable[[flux.Flux], None], on_end: Callable[[EngineError, bool], None]) -> None:
        """``begin`` is called with the handle, in the thread, before anything else. When the reactor has ended,
        ``on_end`` is called on the loop, with the reason, and with True where ``begin`` refused to work here (by
        EngineError).
        """
        self._begin = begin
        self._on_end = on_end
        self._loop = asyncio.get_event_loop()
        self._calls: Deque[Callable[[flux.Flux], None]] = deque()
        self._wake_r, self._wake_w = os.pipe()
        os.set_blocking(self._wake_w, False)
        self._thread = threading.Thread(target=self._run, name="flux-reactor", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    async def stop(self, limit: float) -> None:
        """End the thread, and wait for that, ``limit`` seconds at most."""
        self.call(lambda handle: handle.reactor_stop())
        await self._loop.run_in_executor(None, self._thread.join, limit)

    def call(self, function: Callable[[flux.Flux], None]) -> None:
        """Have the thread call a function with its handle."""
        self._calls.append(function)
        try:
            os.write(self._wake_w, b"\0")
        except BlockingIOError:
            pass  # the pipe is full of wake-ups already

    def to_loop(self, function: Callable[[], None]) -> None:
        """From any thread: have the loop call a function."""
        try:
            self._loop.call_soon_threadsafe(function)
        except RuntimeError:
            pass  # the loop is closed: the agent is past caring

    def rpc(
        self, start: Callable[[flux.Flux], Any], value: Callable[[Any], Any] = lambda future: future.get()
    ) -> Awaitable[Any]:
        """Start a Flux future in the thread; the awaitable gets ``value(future)``, or raises EngineError."""
        result = self._loop.create_future()

        def done(future: Any) -> None:
            try:
                answer = value(future)
            except OSError as err:
                error = EngineError(future.error_string() or os.strerror(err.errno or errno.EIO))
                self.to_loop(lambda: reject(result, error))
            else:
                self.to_loop(lambda: resolve(result, answer))

        def call(handle: flux.Flux) -> None:
            try:
                then(start(handle), done)
            except (OSError, ValueError, TypeError) as err:
                error = EngineError(str(err))
                self.to_loop(lambda: reject(result, error))

        self.call(call)
        return result

    # -- in the thread

    def _run(self) -> None:
        has_begun = refused = False
        try:
            handle = _connect()
            watcher = handle.fd_watcher_create(self._wake_r, self._on_wake, flux.constants.FLUX_POLLIN)
            watcher.start()
            gc.disable()  # see the module
            timer = handle.timer_watcher_create(_GARBAGE_SECONDS, lambda *_: _collect(), repeat=_GARBAGE_SECONDS)
            timer.start()
            _stop_with_broker(handle)
            self._begin(handle)
            has_begun = True
            handle.reactor_run()
        except EngineError as err:
            error, refused = err, not has_begun
        except OSError as err:
            error = EngineError("the connection to Flux was lost: %s" % err)
        except BaseException as err:  # a broken callback: Flux re-raises it here; the agent must restart, not go deaf
            error = EngineError("the Flux engine failed: %r" % err)
        else:
            error = EngineError("the connection to the Flux instance was lost")
        gc.enable()
        self.to_loop(lambda: self._on_end(error, refused))

    def _on_wake(self, handle: flux.Flux, _watcher: Any, fd: int, _events: int, _args: Any) -> None:
        os.read(fd, 65536)
        while self._calls:
            self._calls.popleft()(handle)
        _collect()


def then(future: Any, callback: Callable[..., None], *args: Any) -> None:
    """Call ``callback`` with a future of one answer, and ``args``, when that has come; it is free after that."""

    def answered(future: Any, *args: Any) -> None:
        try:
            callback(future, *args)
        finally:
            future.cb_handle = None

    future.then(answered, *args)


def then_each(future: Any, callback: Callable[..., bool], *args: Any) -> None:
    """The same for a stream of answers, for each of them until ``callback`` returns False."""

    def answered(future: Any, *args: Any) -> None:
        goes_on = False
        try:
            goes_on = callback(future, *args)
        finally:
            if goes_on:
                future.reset()
            else:
                future.cb_handle = None

    future.then(answered, *args)


def _collect() -> None:
    """What Python does itself, when it does."""
    for generation, (count, threshold) in reversed(list(enumerate(zip(gc.get_count(), gc.get_threshold())))):
        if count > threshold:
            gc.collect(generation)
            break


def resolve(future: Optional[asyncio.Future[Any]], value: Any) -> None:
    """On the loop: answer the caller that waits, if one still does."""
    if future is not None and not future.done():
        future.set_result(value)


def reject(future: Optional[asyncio.Future[Any]], error: EngineError) -> None:
    """On the loop: fail the caller that waits, if one still does."""
    if future is not None and not future.done():
        future.set_exception(error)


def _connect() -> flux.Flux:
    try:
        return flux.Flux()
    except OSError as err:
        uri = os.environ.get("FLUX_URI", "(FLUX_URI is not set)")
        raise EngineError("cannot connect to the Flux instance %s: %s" % (uri, os.strerror(err.errno or 0))) from None


def _stop_with_broker(handle: flux.Flux) -> None:
    """End the reactor with the broker. The journal's consumer does not report its end, and without an open request
    Flux does not even read from the connection."""

    def changed(future: Any) -> bool:
        try:
            future.get()  # some other state of the broker; its last one is the end of the stream, an error
        except OSError:
            handle.reactor_stop()
            return False
        return True

    flags = flux.constants.FLUX_RPC_STREAMING
    then_each(handle.rpc("state-machine.monitor", {}, flux.constants.FLUX_NODEID_ANY, flags), changed)
