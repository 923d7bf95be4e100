"""Requests that were not answered yet. No I/O; the client's lock is held for every call."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

#: Requests that may be sent a second time after a cut: doing them twice is doing them once. (A submission is one
#: because every item has a key.)
_REPEATABLE = frozenset(
    [
        "submit",
        "cancel",
        "list",
        "info",
        "ack",
        "resources",
        "get",
        "put",
        "stat",
        "shutdown",
        "drain",
        "mark",
        "helper",
    ]
)

#: Times that a request is sent, where each time the answer was no message of this protocol.
TRIES = 3

Answer = Future[dict[str, Any]]


class _Call:
    __slots__ = ("answer", "line", "op", "tries")

    def __init__(self, answer: Answer, line: bytes, op: str) -> None:
        self.answer = answer
        self.line = line
        self.op = op
        #: How often what came instead of its answer was no message.
        self.tries = 0


class Calls:
    """By their ids, in the order in which they were made."""

    def __init__(self) -> None:
        self._calls: dict[int, _Call] = {}
        self._last_id = 1

    def next_id(self) -> int:
        self._last_id += 1
        return self._last_id

    def add(self, request_id: int, op: str, line: bytes, answer: Answer) -> None:
        self._calls[request_id] = _Call(answer, line, op)

    def take(self, request_id: int | None) -> Answer | None:
        """The one that was answered; None: nobody waits for it."""
        call = None if request_id is None else self._calls.pop(request_id, None)
        return None if call is None else call.answer

    def lines(self) -> list[bytes]:
        """All of them, to be sent on a new stream."""
        return [call.line for call in self._calls.values()]

    def take_unrepeatable(self) -> list[Answer]:
        """After a cut: those that may have been carried out, and must not be a second time."""
        taken = [request_id for request_id, call in self._calls.items() if call.op not in _REPEATABLE]
        return [self._calls.pop(request_id).answer for request_id in taken]

    def take_unanswerable(self) -> list[tuple[str, Answer]]:
        """After an answer that was no message: those, with their op, that it has happened to `TRIES` times."""
        for call in self._calls.values():
            call.tries += 1
        taken = [(request_id, call.op) for request_id, call in self._calls.items() if call.tries >= TRIES]
        return [(op, self._calls.pop(request_id).answer) for request_id, op in taken]

    def take_all(self) -> list[Answer]:
        calls, self._calls = self._calls, {}
        return [call.answer for call in calls.values()]
