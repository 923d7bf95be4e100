"""Create and delete a DAG run's MiniCluster: the setup and the teardown of `FluxMiniCluster`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowException, BaseOperator

from airflow_provider_flux.hook import FluxHook
from airflow_provider_flux.links import FluxMiniClusterLink, push_links
from airflow_provider_flux.minicluster import POLICIES, DeletePolicy, MiniCluster
from airflow_provider_flux.operators.failures import clear_errors

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

_FAILED = ("failed", "upstream_failed")


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
        with clear_errors():
            session = hook.open_session(self.minicluster, ti.dag_id, ti.run_id, folder_of(self), self.log.info)
        # Killed meanwhile: nobody will come to use it.
        session.close(release=self._killed)
        if self._killed:
            raise AirflowException("the task was killed; its MiniCluster was ended")
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
        if self.delete_policy not in POLICIES:
            raise ValueError(f"delete_policy: {self.delete_policy!r} must be one of {', '.join(POLICIES)}")
        failed = self.delete_policy == "on_success" and _failed_tasks(context)
        if failed or self.delete_policy == "never":
            because = f"{', '.join(failed)} failed" if failed else "of delete_policy"
            self.log.info("the MiniCluster is left to its idle time-out, because %s", because)
            return
        with clear_errors():
            name = FluxHook(self.minicluster.flux_conn_id).end_run(
                self.minicluster, ti.dag_id, ti.run_id, folder_of(self)
            )
        self.log.info("%s is gone", name)


def folder_of(task: BaseOperator) -> str | None:
    """The folder of a task's DAG file, which paths of configs are relative to."""
    dag = task.dag if task.has_dag() else None
    return None if dag is None else str(dag.folder)


def _failed_tasks(context: Context) -> list[str]:
    ti = context["ti"]
    if hasattr(ti, "get_task_states"):
        states = ti.get_task_states(dag_id=ti.dag_id, run_ids=[ti.run_id]).get(ti.run_id, {})
    else:  # Airflow 2
        states = {one.task_id: one.state for one in context["dag_run"].get_task_instances()}
    return sorted(task for task, state in states.items() if str(state) in _FAILED)
