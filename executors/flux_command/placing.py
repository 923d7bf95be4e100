"""What a task is given: cores for its memory, and whether any node could ever hold it. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from executors import NodeInfo


class NeverFits(ValueError):
    """No node has what is asked for; the text says what there is, and the cure."""


@dataclass(frozen=True)
class Node:
    """``memory`` in bytes, None where it is not known."""

    cores: int
    gpus: int
    memory: int | None


def nodes_of(nodes: Sequence[NodeInfo]) -> list[Node]:
    """From `executors.Session.nodes`; those that are down may come up."""
    return [Node(node.cores, node.gpus, node.memory) for node in nodes if node.cores]


def cores_for(cores: int, gpus: int, memory: int | None, nodes: Sequence[Node]) -> int:
    """The cores that a task gets: those it asks for, or as many as its memory (bytes) is of the largest node's, rounded
    up, since Flux does not schedule memory. Raises NeverFits."""
    most = max((node.cores for node in nodes), default=0)
    if cores > most:
        raise NeverFits(
            f"cpus {cores}: the largest node has {most}; lower `cpus`, or set process.resourceLimits = [cpus: {most}]"
        )
    if not any(node.cores >= cores and node.gpus >= gpus for node in nodes):
        there = max((node.gpus for node in nodes), default=0)
        raise NeverFits(
            f"accelerator {gpus}: the largest node has {there} GPUs" + (f" and {most} cores" if gpus else "")
        )
    largest = min((node.memory for node in nodes if node.memory and node.cores == most), default=None)
    if memory is None or largest is None:
        return cores
    if memory > largest:
        raise NeverFits(
            f"memory {megabytes(memory)} MB: the largest node has {megabytes(largest)} MB; lower `memory`, or set "
            f"process.resourceLimits = [memory: {megabytes(largest)}.MB]"
        )
    return max(cores, min(most, math.ceil(memory * most / largest)))


def megabytes(size: int) -> int:
    """Of 2^20 bytes, as Nextflow counts."""
    return size // 2**20
