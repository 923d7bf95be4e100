"""Errors of the core -> what Airflow is told: whether it is of use to try again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from airflow.providers.common.compat.sdk import AirflowNotFoundException

from airflow_provider_flux.outcome import FluxJobLost, FluxRequestError


@contextmanager
def clear_errors() -> Iterator[None]:
    """A wrong config or request fails for good; what may be better next time is retried."""
    from executors import ConfigError, ExecutorsError, RequestError, RunNameError

    try:
        yield
    except (ConfigError, RequestError, RunNameError, AirflowNotFoundException) as err:
        raise FluxRequestError(f"{err} (wrong settings: not tried again)") from err
    except ExecutorsError as err:
        raise FluxJobLost(f"the MiniCluster is not to be had: {err}") from err
