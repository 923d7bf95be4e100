"""Ends a DAG run's own MiniCluster when the run has ended, also where no teardown ran (dagrun_timeout). Opt-in.

It runs inside the scheduler and the API server, whose loops must not wait: one thread per ended run, best effort. What
it misses ends by its time-outs.
"""

from __future__ import annotations

import logging
import threading
from typing import Any

from airflow.providers.common.compat.sdk import AirflowPlugin, conf, hookimpl

log = logging.getLogger(__name__)


class _Listener:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ending: set[tuple[str, str]] = set()

    @hookimpl
    def on_dag_run_success(self, dag_run: Any, msg: str) -> None:
        self._ended(dag_run.dag_id, dag_run.run_id)

    @hookimpl
    def on_dag_run_failed(self, dag_run: Any, msg: str) -> None:
        self._ended(dag_run.dag_id, dag_run.run_id)

    def _ended(self, dag_id: str, run_id: str) -> None:
        with self._lock:  # a failure is told twice, by the API server and by the scheduler
            if (dag_id, run_id) in self._ending:
                return
            self._ending.add((dag_id, run_id))
        threading.Thread(target=self._end, args=(dag_id, run_id), name="flux-listener", daemon=True).start()

    def _end(self, dag_id: str, run_id: str) -> None:
        from airflow_provider_flux.hook import FluxHook
        from airflow_provider_flux.minicluster import MiniCluster

        minicluster = MiniCluster()
        try:
            name = FluxHook(minicluster.flux_conn_id).end_run(minicluster, dag_id, run_id, None)
            log.info("run %s of %s has ended: %s is gone", run_id, dag_id, name)
        # Nobody waits for this thread, and a listener must never be the reason that a scheduler fails.
        except Exception:
            log.exception("the MiniCluster of run %s of %s is left to its time-outs", run_id, dag_id)
        finally:
            with self._lock:
                self._ending.discard((dag_id, run_id))


class FluxPlugin(AirflowPlugin):
    """The entry point ``airflow.plugins``."""

    name = "flux"
    listeners = [_Listener()] if conf.getboolean("flux", "listener", fallback=False) else []
