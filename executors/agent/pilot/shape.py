"""What one holder holds. Pure."""

from __future__ import annotations

from typing import NamedTuple


class Shape(NamedTuple):
    """``cores`` and ``gpus`` of one node."""

    cores: int
    gpus: int

    def holds(self, other: Shape) -> bool:
        """Whether ``other`` is a part of this."""
        return self.cores >= other.cores and self.gpus >= other.gpus


#: The holders of tasks without GPUs: a task has as many of them as it has cores, and each goes alone. A task with GPUs
#: has one holder, of just its own shape, so that its cores and GPUs are of one node, and close to each other.
CORE = Shape(1, 0)
