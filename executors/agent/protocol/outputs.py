"""The outputs of jobs that one client reads: what is sent, what waits, and when a follower begins again.

Each subscription has a window, so that a client whose own reader is slow goes on reading events. Pure but for the
loop's `call_soon`.
"""

from __future__ import annotations

import asyncio
import base64
from collections import deque
from typing import Callable, Deque, Dict, Optional, Protocol, Tuple

from .. import wire
from ..engine import EngineError, Follower, OutputPosition, OutputSink

#: Bytes of output that wait here while a client does not read, of followers that begin again at a cost. Beyond them
#: these are stopped too, and begin again where they were when the client reads.
MAX_HELD = 4 * 1024 * 1024


class OutputSource(Protocol):
    """Where the output of jobs comes from."""

    def follow(self, position: OutputPosition, sink: OutputSink) -> Follower:
        """Deliver to ``sink`` from ``position`` on. Raises EngineError where there is nothing to be read."""

    def followed(self, job_id: str) -> None:
        """Somebody reads this job's output from now on."""

    def unfollowed(self, job_id: str) -> None:
        """One reader less: each call answers one of `followed`."""


class Subscription(OutputSink):
    """One reader of one stream. It belongs to the `Subscriptions` of its client, which tell it when there is room."""

    def __init__(
        self, client: Subscriptions, source: OutputSource, number: int, start: OutputPosition, taken: int, window: int
    ) -> None:
        self._client = client
        self._source = source
        self._number = number
        self._start = start
        #: Bytes that may be sent beyond what the client's reader has taken; 0 for any number.
        self._window = window
        #: How far it was sent, and taken.
        self._sent = start.offset
        self._taken = taken
        self._follower: Optional[Follower] = None
        #: Lines that wait, each with the offset of its end.
        self._held: Deque[Tuple[bytes, int]] = deque()
        #: Where a follower that was stopped begins again.
        self._resume: Optional[int] = start.offset
        self._over = False
        self._closed = False

    def close(self) -> None:
        """Deliver no more, and forget what waits. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._stop()
        self._client.held_bytes -= sum(len(line) for line, _ in self._held)
        self._source.unfollowed(self._start.job_id)

    def take(self, offset: int) -> None:
        """The client's reader has come so far."""
        self._taken = max(self._taken, offset)
        self.go_on()

    def go_on(self) -> None:
        """Send what waits, and begin the follower again, as far as there is room."""
        if self._closed:
            return
        while self._held and not self._is_blocked():
            line, end = self._held.popleft()
            self._client.held_bytes -= len(line)
            self._send(line, end)
        if self._over:
            if not self._held:
                self._client.close(self._number)
            return
        if self._held or self._resume is None or self._is_blocked():
            return
        offset, self._resume = self._resume, None
        try:
            self._follower = self._source.follow(self._start.at(offset), self)
        except EngineError as err:
            self._client.close(self._number)
            self._client.write(self._line(offset, b"", True, str(err)))

    # -- OutputSink

    def data(self, offset: int, data: bytes) -> None:
        if self._closed or self._resume is not None:
            return
        end = offset + len(data)
        self._send_or_hold(self._line(offset, data, False), end)
        if self._is_blocked() and (self._client.held_bytes > MAX_HELD or not self._is_costly()):
            self._stop()
            self._resume = end

    def end(self, offset: int, error: Optional[str]) -> None:
        if self._closed or self._resume is not None:
            return
        self._over = True
        self._send_or_hold(self._line(offset, b"", True, error), offset)
        if not self._held:
            self._client.close(self._number)

    # -- how

    def _line(self, offset: int, data: bytes, eof: bool, error: Optional[str] = None) -> bytes:
        text = base64.b64encode(data).decode("ascii")
        message: wire.Message = {"out": [self._number, self._start.stream, offset, text, eof]}
        if error is not None:
            message["error"] = error
        return wire.encode(message)

    def _send_or_hold(self, line: bytes, end: int) -> None:
        if self._held or self._is_blocked():
            self._held.append((line, end))
            self._client.held_bytes += len(line)
        else:
            self._send(line, end)

    def _send(self, line: bytes, end: int) -> None:
        self._sent = end
        self._client.write(line)

    def _is_blocked(self) -> bool:
        return self._client.is_paused or 0 < self._window <= self._sent - self._taken

    def _is_costly(self) -> bool:
        return self._follower is not None and self._follower.costly

    def _stop(self) -> None:
        if self._follower is not None:
            self._follower.stop()
            self._follower = None


class Subscriptions:
    """All that one client reads. ``write`` sends a line to it."""

    def __init__(self, source: OutputSource, write: Callable[[bytes], None]) -> None:
        self.write = write
        #: The client does not read now: nothing is sent.
        self.is_paused = False
        #: Bytes that wait for it, of all subscriptions.
        self.held_bytes = 0
        self._source = source
        self._open: Dict[int, Subscription] = {}
        self._last = 0

    def open(self, start: OutputPosition, taken: int, window: int) -> int:
        """Begin to send; the number of the subscription.

        ``taken``: how far the client's own reader is; ``window``: bytes that may be sent beyond that, 0 for any number.
        """
        self._last += 1
        subscription = Subscription(self, self._source, self._last, start, taken, window)
        self._open[self._last] = subscription
        self._source.followed(start.job_id)
        # After the reply, which carries the number that the first piece refers to.
        asyncio.get_event_loop().call_soon(subscription.go_on)
        return self._last

    @property
    def is_open(self) -> bool:
        """Whether something has not been read to its end."""
        return bool(self._open)

    def taken(self, number: int, offset: int) -> None:
        """The client's reader of this subscription has come so far. A subscription that is over is no error."""
        subscription = self._open.get(number)
        if subscription is not None:
            subscription.take(offset)

    def close(self, number: int) -> None:
        """End a subscription. One that is over is no error."""
        subscription = self._open.pop(number, None)
        if subscription is not None:
            subscription.close()

    def close_all(self) -> None:
        for number in list(self._open):
            self.close(number)

    def pause(self) -> None:
        self.is_paused = True

    def resume(self) -> None:
        self.is_paused = False
        for subscription in list(self._open.values()):
            subscription.go_on()
