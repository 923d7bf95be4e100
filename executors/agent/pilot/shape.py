"""Amounts of cores and GPUs of one node. Pure."""

from __future__ import annotations

from typing import NamedTuple


class Shape(NamedTuple):
    """What a node has, what a task needs, and so what its holder holds."""

    cores: int
    gpus: int

    def holds(self, other: Shape) -> bool:
        """Whether ``other`` is a part of this."""
        return self.cores >= other.cores and self.gpus >= other.gpus

    def times(self, other: Shape) -> int:
        """How often ``other``, which has cores, is in this; 0 or less: it is not."""
        count = self.cores // other.cores
        return min(count, self.gpus // other.gpus) if other.gpus else count

    def plus(self, other: Shape, times: int = 1) -> Shape:
        return Shape(self.cores + times * other.cores, self.gpus + times * other.gpus)


NOTHING = Shape(0, 0)
