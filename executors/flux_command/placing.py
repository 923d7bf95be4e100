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
    """The cores that a task gets: those it asks for, or as many as its memory (bytes) is of a node's that can take it,
    rounded up, since Flux does not schedule memory. Raises NeverFits.

    Where nodes differ, it is the largest share of those nodes. If a node with too little memory could take the task,
    too, it gets more cores than that one has, where another has so many.
    """
    most = max((node.cores for node in nodes), default=0)
    if cores > most:
        raise NeverFits(
            f"cpus {cores}: the largest node has {most}; lower `cpus`, or set process.resourceLimits = [cpus: {most}]"
        )
    able = [node for node in nodes if node.cores >= cores and node.gpus >= gpus]
    if not able:
        there = max((node.gpus for node in nodes), default=0)
        raise NeverFits(
            f"accelerator {gpus}: the largest node has {there} GPUs" + (f" and {most} cores" if gpus else "")
        )
    sizes = [(node.cores, node.memory) for node in able if node.memory]
    if memory is None or not sizes:
        return cores
    fitting = [(there, size) for there, size in sizes if memory <= size]
    if not fitting:
        largest = max(size for _, size in sizes)
        raise NeverFits(
            f"memory {megabytes(memory)} MB: the largest node{' with so many cores and GPUs' if able != nodes else ''} "
            f"has {megabytes(largest)} MB; lower `memory`, or set "
            f"process.resourceLimits = [memory: {megabytes(largest)}.MB]"
        )
    given = max(cores, *(math.ceil(memory * there / size) for there, size in fitting))
    too_small = [there for there, size in sizes if memory > size and there >= given]
    if too_small and max(too_small) < max(there for there, _ in fitting):
        return max(too_small) + 1
    return given


def megabytes(size: int) -> int:
    """Of 2^20 bytes, as Nextflow counts."""
    return size // 2**20
