"""Hands over what one thread collects to another in batches. Pure, but for its lock."""

from __future__ import annotations

import threading
from typing import Callable, Generic, List, TypeVar

Item = TypeVar("Item")


class Batches(Generic[Item]):
    """Items that any thread puts here go to ``deliver`` on the loop, in order, and many of them by one call."""

    def __init__(
        self, to_loop: Callable[[Callable[[], None]], None], deliver: Callable[[List[Item]], None], is_open: bool = True
    ) -> None:
        """``to_loop`` has the loop call a function soon; without ``is_open`` items wait for `open`."""
        self._to_loop = to_loop
        self._deliver = deliver
        self._is_open = is_open
        self._lock = threading.Lock()
        self._items: List[Item] = []

    def put(self, item: Item) -> None:
        with self._lock:
            self._items.append(item)
            is_first = len(self._items) == 1
        if is_first:
            self._to_loop(self._flush)

    def open(self) -> None:
        """On the loop: deliver what has waited, and from now on all that comes."""
        self._is_open = True
        self._flush()

    def _flush(self) -> None:
        if not self._is_open:
            return
        with self._lock:
            items, self._items = self._items, []
        if items:
            self._deliver(items)
