"""Which MiniCluster a task uses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator

DeletePolicy = Literal["always", "on_success", "never"]
POLICIES = ("always", "on_success", "never")
DEFAULT_CONNECTION = "flux_default"


@dataclass(frozen=True)
class MiniCluster:
    """One of a DAG run's MiniClusters. Tasks that name the same one, with the same settings, share it."""

    #: "" is the DAG run's own.
    name: str = ""
    flux_conn_id: str = DEFAULT_CONNECTION
    #: A pipeline config: the path of a file, relative to the DAG file, or its content.
    config: str | Mapping[str, Any] | None = None


def minicluster_of(task: BaseOperator, cluster: object) -> MiniCluster | None:
    """What a task's ``cluster`` names; where it names none, that of the setup task around it; None: the run's own.

    Asked when the task runs, since mapped tasks do not exist before. Raises ValueError when several are around it.
    """
    if cluster is not None:
        return _named(cluster)
    around: list[MiniCluster] = []
    for setup in task.get_upstreams_only_setups():
        found = getattr(setup, "minicluster", None)
        if isinstance(found, MiniCluster) and found not in around:
            around.append(found)
    if len(around) > 1:
        names = ", ".join(sorted(repr(one.name) for one in around))
        raise ValueError(f"cluster: the task is inside several MiniClusters ({names}); give cluster= one of them")
    return around[0] if around else None


def _named(cluster: object) -> MiniCluster:
    found = cluster if isinstance(cluster, MiniCluster) else getattr(cluster, "minicluster", None)
    if not isinstance(found, MiniCluster):
        raise ValueError(
            f"cluster: {cluster!r} is neither a FluxMiniCluster nor a FluxCreateMiniClusterOperator, "
            "nor None for the DAG run's own MiniCluster"
        )
    return found
