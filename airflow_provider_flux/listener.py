"""Ends a DAG run's own MiniCluster when the run has ended and no teardown task has decided about it: the run had none,
or it was skipped, as after dagrun_timeout. Opt-in.

It runs inside the scheduler and the API server, whose loops must not wait: one thread takes ended runs one by one, best
effort. What it misses ends by its time-outs.
"""

from __future__ import annotations

import logging
import threading
from typing import Any

from airflow.providers.common.compat.sdk import AirflowPlugin, conf, hookimpl

log = logging.getLogger(__name__)


#: `ti.operator` of tasks that may have made a MiniCluster.
_OURS = ("FluxOperator", "FluxCreateMiniClusterOperator", "@task.flux", "@task.flux_python")
_ENDED = ("success", "failed")
_TEARDOWN = "FluxDeleteMiniClusterOperator"


class _Listener:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[tuple[str, str], None] = {}
        self._works = False

    @hookimpl
    def on_dag_run_success(self, dag_run: Any, msg: str) -> None:
        self._ended(dag_run.dag_id, dag_run.run_id)

    @hookimpl
    def on_dag_run_failed(self, dag_run: Any, msg: str) -> None:
        self._ended(dag_run.dag_id, dag_run.run_id)

    def _ended(self, dag_id: str, run_id: str) -> None:
        with self._lock:
            self._waiting[dag_id, run_id] = None  # a failure is told twice, by the API server and by the scheduler
            if self._works:
                return
            self._works = True
        threading.Thread(target=self._work, name="flux-listener", daemon=True).start()

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._works = False
                    return
                dag_id, run_id = next(iter(self._waiting))
                del self._waiting[dag_id, run_id]
            try:
                self._end(dag_id, run_id)
            # Nobody waits for this thread, and a listener must never be the reason that a scheduler fails.
            except Exception:
                log.exception("the MiniCluster of run %s of %s is left to its time-outs", run_id, dag_id)

    def _end(self, dag_id: str, run_id: str) -> None:
        from airflow.models.dagrun import DagRun

        from airflow_provider_flux.cluster_reference import MiniCluster
        from airflow_provider_flux.hooks.flux import FluxHook

        # It may have been cleared while it waited here, and be running again.
        if any(run.state not in _ENDED for run in DagRun.find(dag_id=dag_id, run_id=run_id)):
            return
        tasks = DagRun.fetch_task_instances(dag_id=dag_id, run_id=run_id)
        if not any(task.operator in _OURS for task in tasks):
            return
        if any(task.operator == _TEARDOWN and task.state == "success" for task in tasks):
            return  # it has deleted the MiniCluster, or kept it as its policy says
        minicluster = MiniCluster()
        name = FluxHook(minicluster.flux_conn_id).end_run(minicluster, dag_id, run_id, None)
        log.info("run %s of %s has ended: %s is gone", run_id, dag_id, name)


class FluxPlugin(AirflowPlugin):
    """The entry point ``airflow.plugins``."""

    name = "flux"
    listeners = [_Listener()] if conf.getboolean("flux", "listener", fallback=False) else []
