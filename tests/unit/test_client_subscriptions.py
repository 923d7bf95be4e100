"""A reader of output across cuts, from the client's side."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from executors.client.subscriptions import WINDOW, Subscriptions


class Asked:
    """What a client was asked to send, to be answered by hand."""

    is_over = False

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.answers: list[Callable[[Future[dict[str, Any]]], None]] = []

    def request_later(
        self, op: str, *, answered: Callable[[Future[dict[str, Any]]], None] | None = None, **fields: Any
    ) -> Future[dict[str, Any]]:
        self.requests.append((op, fields))
        if answered is not None:
            self.answers.append(answered)
        return Future()

    def answer(self, sub: int) -> None:
        reply: Future[dict[str, Any]] = Future()
        reply.set_result({"sub": sub})
        self.answers.pop(0)(reply)


def test_what_was_taken_while_nobody_could_be_told_is_told_when_the_stream_is_back() -> None:
    """The agent waits for it: it is a whole window ahead of what it knows to have been taken."""
    client = Asked()
    subscriptions = Subscriptions(client, threading.Lock())
    reading = subscriptions.add("f1", "stdout", None, 0, lambda _piece: None, paced=True)
    client.answer(1)
    subscriptions.cut()()
    assert [op for op, _ in client.requests] == ["output", "output"]
    reading.taken(WINDOW)
    client.answer(2)
    assert client.requests[2:] == [("taken", {"sub": 2, "offset": WINDOW})]
    reading.taken(1)
    assert len(client.requests) == 3, "not each byte"
