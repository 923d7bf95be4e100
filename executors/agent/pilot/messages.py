"""What passes between the agent and a pilot, by Flux's messages. Pure.

Requests of the agent, each with its ``epoch``; a pilot refuses those of an agent that has been replaced.

* ``attach``  begins the epoch. Its answers are a stream of `Told`.
* ``call``    has ``do``, a list of operations, each a list of its name and arguments (`duties.Duties`; and ``end``,
  with the value of an `EndReason`). Its answer is ``{}``, or ``{"errors": {"number in the list": [text, code]}}``.
* ``read``    asks for a piece of a task's output (`output`).

A request that cannot be served now is answered by ``{"error": text}``.
"""

from __future__ import annotations

from typing import Any, Dict, List, Tuple, TypedDict

from .shape import Shape

#: Of a task: (name, timestamp, context), as a list.
TaskEvent = List[Any]
#: A holder: its number in its pilot, its job's id in Flux, and its shape.
ToldHolder = Tuple[int, str, Shape]


class Told(TypedDict, total=False):
    """One message of the stream that an attached pilot sends. First, in any number of parts, what it has."""

    #: All events so far of each task that is not forgotten.
    inventory: List[Tuple[str, List[TaskEvent]]]
    #: Ends the inventory.
    complete: bool
    #: What the processes of its tasks carry; it tells this pilot from one before and after it on the same node.
    mark: str
    #: The number of its process on its node.
    pid: int
    #: All holders that are here; and so many of each shape are to go.
    holders: List[ToldHolder]
    to_leave: List[Tuple[Shape, int]]
    #: Holders that have come.
    held: List[ToldHolder]
    #: Numbers of holders that are to go besides those that the agent has released.
    leaving: List[int]
    #: So many of a shape that the agent has released were not here any more.
    stay: List[Tuple[Shape, int]]
    #: Numbers of holders that have gone.
    left: List[int]
    #: (task, name, timestamp, context)
    events: List[List[Any]]
    #: Tasks that it gives back, since it had not begun them.
    back: List[str]
    #: The last message: it has ended as it was told; or why it says no more.
    ended: bool
    error: str


#: The answer to ``call``.
Answer = Dict[str, Any]


def topic(suffix: str, request: str) -> str:
    """The name of a request. ``suffix`` names the run's pilots."""
    return "%s.%s" % (suffix, request)
