"""The name that `exceptions` had first, for DAG files that import from here."""

from airflow_provider_flux.exceptions import FluxJobCancelled, FluxJobFailed, FluxJobLost, FluxRequestError

__all__ = ["FluxJobCancelled", "FluxJobFailed", "FluxJobLost", "FluxRequestError"]
