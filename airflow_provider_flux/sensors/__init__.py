"""Sensors."""

from airflow_provider_flux.sensors.job import FluxJobSensor

__all__ = ["FluxJobSensor"]
