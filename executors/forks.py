"""What belongs to one process alone: a forked child of it is refused the use.

A child has the parent's objects, sockets and locks, but none of its threads: what it did with them would reach the
parent's instance, or wait for ever for a lock that a thread of the parent held at that moment. So in every child the
named attributes of what was bound are replaced, before anything else runs there, by something that only raises.
"""

from __future__ import annotations

import os
import weakref
from typing import NoReturn

from executors.errors import ForkedError

_bound: weakref.WeakKeyDictionary[object, tuple[int, tuple[str, ...]]] = weakref.WeakKeyDictionary()


def bind(owner: object, *names: str) -> None:
    """Have the attributes of these names work in this process only."""
    _bound[owner] = os.getpid(), names


class _Refusal:
    """Raises ForkedError, whatever is done with it."""

    def __init__(self, pid: int) -> None:
        self.__dict__["pid"] = pid

    def _refuse(self, *_: object) -> NoReturn:
        raise ForkedError(
            f"this session belongs to process {self.__dict__['pid']}; its forked child, process {os.getpid()}, cannot "
            "use it, because that would reach the parent's instance; open or join another session in the child"
        )

    __getattr__ = __setattr__ = __enter__ = __exit__ = __call__ = __iter__ = __len__ = __bool__ = _refuse


def _after_fork() -> None:
    for owner, (pid, names) in list(_bound.items()):
        for name in names:
            owner.__dict__[name] = _Refusal(pid)


os.register_at_fork(after_in_child=_after_fork)
