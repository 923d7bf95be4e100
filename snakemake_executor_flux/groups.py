"""Groups of jobs, pipes and services among them: what they ask for, bounded by the largest node.

Snakemake's own sum over a group knows no node: forty jobs of one core side by side ask for forty cores. It takes
constraints, though, and puts what does not fit side by side one after the other.
"""

from __future__ import annotations

import contextlib
from typing import Any

from snakemake.exceptions import ResourceInsufficiencyError
from snakemake.resources import GroupResources, Resources
from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_storage_plugins.exceptions import FileOrDirectoryNotFoundError

from snakemake_executor_flux.resources import NodeShape, parse_resources


def members(job: Any) -> list[Any]:
    """The single jobs of a job whose resources are known: not those that depend on the size of a file which the group
    itself makes. Snakemake's sum leaves them out, too."""
    known = []
    for member in job if job.is_group() else [job]:
        with contextlib.suppress(FileNotFoundError, FileOrDirectoryNotFoundError):
            assert member.resources is not None
            known.append(member)
    return known


def bound(group: Any, shape: NodeShape, *, use_memory: bool) -> None:
    """Give a group resources that fit one node. Raises ResourceError for a member that fits none, and WorkflowError in
    Snakemake's words where members that run at the same time do not."""
    for member in members(group):
        parse_resources(member.threads, member.resources, shape, use_memory=use_memory)
    bounds = {"_cores": shape.cores}
    if use_memory and shape.memory is not None:
        bounds["mem_mb"] = shape.memory // 10**6
    try:
        group._resources = GroupResources.basic_layered(
            toposorted_jobs=group.toposorted,
            constraints=_Bounded(group.global_resources, bounds),
            run_local=False,
            additive_resources=["runtime"],
            sortby=["runtime"],
        )
    except (WorkflowError, ResourceInsufficiencyError) as err:
        raise WorkflowError(f"Error grouping resources in group '{group.groupid}': {err.args[0]}") from err


class _Limit:
    """What Snakemake's sum asks of a constraint."""

    def __init__(self, value: Any) -> None:
        self.value = value


class _Bounded:
    """A run's own constraints (``--cores``, ``--resources``), tightened."""

    def __init__(self, given: Resources, bounds: dict[str, int]) -> None:
        self._given = given
        self._bounds = bounds

    def get(self, name: str) -> _Limit:
        given = self._given.get(name).value
        limits = [one for one in (given, self._bounds.get(name)) if one is not None]
        return _Limit(min(limits) if limits else None)
