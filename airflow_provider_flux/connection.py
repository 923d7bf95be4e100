"""What a connection of type ``flux`` says."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook

from airflow_provider_flux.fields import FIELDS
from airflow_provider_flux.kubernetes import kubernetes_settings

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Connection

#: Fields that are keys of the config's section ``run``.
_OF_RUN = ("provisioner", "namespace", "kubeconfig", "context")


@dataclass(frozen=True)
class Settings:
    """What a connection says. ``options``: keys of the config and their values; ``source``: for messages."""

    source: str
    options: Mapping[str, object]
    config: str | None = None
    kubeconfig: str | None = None
    job_url: str = ""
    minicluster_url: str = ""


def read_settings(conn_id: str, connection: Connection | None) -> Settings:
    """Raises ConfigError for what it holds, AirflowNotFoundException for a connection that it names."""
    from executors import ConfigError

    if connection is None:
        return Settings(source="", options={"provisioner": "local"})
    extra = dict(connection.extra_dejson)
    unknown = sorted(set(extra) - set(FIELDS))
    if connection.conn_type != "flux":
        raise ConfigError([f"flux_conn_id: {conn_id!r} has the type {connection.conn_type!r}; it must be flux"])
    if unknown:
        raise ConfigError(
            [
                f"connection {conn_id}: {name!r} is not one of its fields, which are {', '.join(FIELDS)}"
                for name in unknown
            ]
        )
    given = {name: value for name, value in extra.items() if value not in (None, "")}
    kubernetes = _of_kubernetes(given["kubernetes_conn_id"]) if "kubernetes_conn_id" in given else {}
    kubeconfig = kubernetes.pop("content", None)
    options: dict[str, object] = {**kubernetes, **{name: given[name] for name in _OF_RUN if name in given}}
    if "provisioner" not in options:
        raise ConfigError([f"connection {conn_id}: provisioner: is not set; give direct, operator, local or attach"])
    return Settings(
        source=conn_id,
        options=options,
        config=given.get("config"),
        kubeconfig=kubeconfig,
        job_url=str(given.get("job_url", "")),
        minicluster_url=str(given.get("minicluster_url", "")),
    )


def _of_kubernetes(conn_id: str) -> dict[str, Any]:
    """What a connection of Airflow's own Kubernetes provider says. Raises ConfigError, AirflowNotFoundException."""
    try:
        extra = BaseHook.get_connection(conn_id).extra_dejson
    except AirflowNotFoundException as err:
        raise AirflowNotFoundException(f"kubernetes_conn_id: {conn_id!r} is not a connection") from err
    return kubernetes_settings(conn_id, extra, os.environ)


def config_content(config: str | Mapping[str, Any] | None, folder: str | None) -> str | Mapping[str, Any] | None:
    """A path that can be opened, or the content itself."""
    if not isinstance(config, str):
        return config
    if "\n" in config or config.lstrip().startswith("{"):
        from executors.config import config_of_text

        return config_of_text(config)
    path = os.path.expanduser(config)
    return path if os.path.isabs(path) or folder is None else os.path.join(folder, path)
