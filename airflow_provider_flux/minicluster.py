"""Which MiniCluster tasks use, and the context manager that creates it before them and deletes it after them."""

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


class FluxMiniCluster:
    """Creates a MiniCluster before the tasks in a ``with`` block and deletes it after them, whatever happens::

        with FluxMiniCluster(config="minicluster.yaml"):
            FluxOperator(task_id="align", command="...")

    A pair of setup and teardown tasks, ``{task_id}.create`` and ``{task_id}.delete``. Tasks in the block that name no
    ``cluster`` use it, mapped ones too. ``delete_policy``: ``always``; ``on_success``, which leaves it to its idle
    time-out when a task has failed; ``never``. ``name`` tells several MiniClusters of one DAG run apart.
    """

    def __init__(
        self,
        task_id: str = "minicluster",
        *,
        name: str = "",
        config: str | Mapping[str, Any] | None = None,
        flux_conn_id: str = DEFAULT_CONNECTION,
        delete_policy: DeletePolicy = "always",
        **task_arguments: Any,
    ) -> None:
        from airflow_provider_flux.operators.minicluster import (
            FluxCreateMiniClusterOperator,
            FluxDeleteMiniClusterOperator,
        )

        self.minicluster = MiniCluster(name, flux_conn_id, config)
        self.create: BaseOperator = FluxCreateMiniClusterOperator(
            task_id=f"{task_id}.create", minicluster=self.minicluster, **task_arguments
        )
        self.delete: BaseOperator = FluxDeleteMiniClusterOperator(
            task_id=f"{task_id}.delete", minicluster=self.minicluster, delete_policy=delete_policy, **task_arguments
        )
        self.delete.as_teardown(setups=self.create)
        self._before: set[str] = set()

    def __enter__(self) -> FluxMiniCluster:
        self._before = set(self.create.dag.task_dict)
        return self

    def __exit__(self, *exc: object) -> None:
        # Not by Airflow's own context manager, which leaves out mapped tasks.
        tasks = self.create.dag.task_dict
        inside = {name: task for name, task in tasks.items() if name not in self._before}
        for task in inside.values():
            if not task.upstream_task_ids & set(inside):
                task.set_upstream(self.create)
            if not task.downstream_task_ids & set(inside):
                task.set_downstream(self.delete)


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
