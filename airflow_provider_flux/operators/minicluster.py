"""Create and delete a DAG run's MiniCluster around its tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowException, BaseOperator

from airflow_provider_flux.cluster_reference import DEFAULT_CONNECTION, POLICIES, DeletePolicy, MiniCluster
from airflow_provider_flux.exceptions import FluxRequestError, translate_errors
from airflow_provider_flux.hooks.flux import FluxHook
from airflow_provider_flux.links import FluxMiniClusterLink, push_links

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

_FAILED = ("failed", "upstream_failed")
_MAPPED = (
    "a mapped task group cannot have a MiniCluster of its own: its copies share one, which the first copy that is done "
    "would delete; put FluxMiniCluster around the group"
)


class FluxCreateMiniClusterOperator(BaseOperator):
    """Creates the MiniCluster, or finds it running. It ends by its idle time-out if no task comes to use it.

    Gives (XCom): {"name", "instance", "engine", "engine_version"}. When it fails, nothing is left.
    """

    operator_extra_links = (FluxMiniClusterLink(),)
    ui_color = "#e3f2e1"

    def __init__(self, *, minicluster: MiniCluster | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.minicluster = minicluster or MiniCluster()
        self.flux_links: dict[str, str] = {}
        self._killed = False

    def execute(self, context: Context) -> dict[str, str]:
        ti = context["ti"]
        hook = FluxHook(self.minicluster.flux_conn_id)
        with translate_errors():
            session = hook.open_session(self.minicluster, ti.dag_id, ti.run_id, dag_folder(self), self.log.info)
        if self._killed:
            session.release()  # nobody will come to use it
            raise AirflowException("the task was killed; its MiniCluster was ended")
        session.leave()
        hello = session.hello
        self.flux_links = push_links(ti, hook.settings(), name=hello.run, instance=hello.instance)
        return {
            "name": hello.run,
            "instance": hello.instance,
            "engine": hello.engine,
            "engine_version": hello.engine_version,
        }

    def on_kill(self) -> None:
        self._killed = True


class FluxDeleteMiniClusterOperator(BaseOperator):
    """Deletes the MiniCluster and waits until it is gone; one that is gone already is no error.

    ``delete_policy``: ``always``; ``on_success``: not when a task of the DAG run has failed; ``never``. What is not
    deleted ends by its idle time-out.
    """

    ui_color = "#f2e1e1"
    template_fields: Sequence[str] = ("delete_policy",)

    def __init__(
        self, *, minicluster: MiniCluster | None = None, delete_policy: DeletePolicy = "always", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.minicluster = minicluster or MiniCluster()
        self.delete_policy = delete_policy

    def execute(self, context: Context) -> None:
        ti = context["ti"]
        if ti.map_index is not None and ti.map_index >= 0:
            raise FluxRequestError(_MAPPED)
        if self.delete_policy not in POLICIES:
            raise ValueError(f"delete_policy: {self.delete_policy!r} must be one of {', '.join(POLICIES)}")
        failed = self.delete_policy == "on_success" and _failed_tasks(context)
        if failed or self.delete_policy == "never":
            because = f"{', '.join(failed)} failed" if failed else "of delete_policy"
            self.log.info("the MiniCluster is left to its idle time-out, because %s", because)
            return
        with translate_errors():
            name = FluxHook(self.minicluster.flux_conn_id).end_run(
                self.minicluster, ti.dag_id, ti.run_id, dag_folder(self)
            )
        self.log.info("%s is gone", name)


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
        if next(iter(self.create.iter_mapped_task_groups()), None) is not None:
            raise ValueError(_MAPPED)
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


def dag_folder(task: BaseOperator) -> str | None:
    """The folder of a task's DAG file, which paths of configs are relative to."""
    dag = task.dag if task.has_dag() else None
    return None if dag is None else str(dag.folder)


def _failed_tasks(context: Context) -> list[str]:
    ti = context["ti"]
    if hasattr(ti, "get_task_states"):
        states = ti.get_task_states(dag_id=ti.dag_id, run_ids=[ti.run_id]).get(ti.run_id, {})
    else:  # Airflow 2
        states = {other.task_id: other.state for other in context["dag_run"].get_task_instances()}
    return sorted(task for task, state in states.items() if str(state) in _FAILED)
