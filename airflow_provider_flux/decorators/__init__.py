"""``@task.flux`` and ``@task.flux_python``; the same with types, for which Airflow's own ``task`` has no place."""

from airflow_provider_flux.decorators.flux import flux_task
from airflow_provider_flux.decorators.flux_python import flux_python_task

__all__ = ["flux_python_task", "flux_task"]
