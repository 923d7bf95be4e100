"""Operators. Each is imported from its own module, or from here by the name it has in DAG files."""

from airflow_provider_flux.operators.flux import FluxOperator
from airflow_provider_flux.operators.minicluster import (
    FluxCreateMiniClusterOperator,
    FluxDeleteMiniClusterOperator,
    FluxMiniCluster,
)

__all__ = ["FluxCreateMiniClusterOperator", "FluxDeleteMiniClusterOperator", "FluxMiniCluster", "FluxOperator"]
