"""The name that `hooks.flux` had first, for DAG files that import from here."""

from airflow_provider_flux.hooks.flux import FluxHook

__all__ = ["FluxHook"]
