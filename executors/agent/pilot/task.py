"""One task of the agent's line, and where it is. Pure."""

from __future__ import annotations

from typing import Optional, Tuple

from ..engine import Submission
from .shape import NOTHING


class Task:
    """It is known until its result is forgotten."""

    __slots__ = (
        "digest", "ended", "environment", "exception", "id", "key", "mark", "name", "rank", "segment", "shape",
        "submission", "withdrawn",
    )  # fmt: skip

    def __init__(self, task_id: str, key: Optional[str], digest: str, name: str) -> None:
        self.id = task_id
        self.key = key
        self.digest = digest
        self.name = name
        #: What it needs, and its holder holds.
        self.shape = NOTHING
        #: The pilot that has it: the rank of its broker, and the mark of its process; -1 for none.
        self.rank = -1
        self.mark = ""
        self.ended = False
        #: The type and note of the exception that the agent has ended it by; None: it has not.
        self.exception: Optional[Tuple[str, str]] = None
        #: The note of its cancellation, while a pilot has it.
        self.withdrawn = ""
        #: Of the ledger's file.
        self.segment = 0
        #: What is sent; None once a pilot has told that it has begun it.
        self.submission: Optional[Submission] = None
        #: The reference of its environment, "" for none.
        self.environment = ""

    @property
    def waits(self) -> bool:
        """It is in the agent's line."""
        return not self.ended and self.rank < 0

    def sent_to(self, rank: int, mark: str) -> None:
        self.rank, self.mark = rank, mark

    def came_back(self) -> None:
        """No pilot has it: none was sent it, or the one that was has not begun it."""
        self.rank, self.mark = -1, ""
