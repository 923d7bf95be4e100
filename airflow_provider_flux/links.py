"""Links from a task in the UI to its MiniCluster and its job, as the connection's URL templates say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow.providers.common.compat.sdk import BaseOperatorLink, XCom

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, TaskInstanceKey

    from airflow_provider_flux.connection import Settings


class _FluxLink(BaseOperatorLink):
    """A URL that the running task has left as an XCom, so that it is there while the job runs."""

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Airflow 3 asks the task itself, when it has ended, and Airflow 2 whenever somebody looks at it."""
        links: Mapping[str, str] | None = getattr(operator, "flux_links", None)
        if links is not None:
            return links.get(self.xcom_key, "")
        return str(XCom.get_value(key=self.xcom_key, ti_key=ti_key) or "")


class FluxJobLink(_FluxLink):
    name = "Flux job"
    xcom_key = "flux_job_link"


class FluxMiniClusterLink(_FluxLink):
    name = "MiniCluster"
    xcom_key = "flux_minicluster_link"


def push_links(ti: Any, settings: Settings, *, name: str, instance: str, job: str = "") -> dict[str, str]:
    """Leave the links that the connection has templates for. Returns them by their XCom's key."""
    links: dict[str, str] = {}
    values = {"namespace": str(settings.options.get("namespace", "")), "name": name, "instance": instance, "job": job}
    filled = {field: quote(value, safe="") for field, value in values.items()}
    for link, template in ((FluxJobLink, settings.job_url), (FluxMiniClusterLink, settings.minicluster_url)):
        if template and (job or link is FluxMiniClusterLink):
            url = template
            for field, value in filled.items():
                url = url.replace("{" + field + "}", value)
            ti.xcom_push(key=link.xcom_key, value=url)
            links[link.xcom_key] = url
    return links
