"""What a task returns, before Airflow refuses it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperator, conf

from airflow_provider_flux.output import OutputError
from airflow_provider_flux.request import is_mapped

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


def check_value(task: BaseOperator, value: Any, context: Context) -> None:
    """Raises OutputError for what Airflow refuses after `execute`: the next try would take over the same job, with the
    same value.
    """
    from executors.yaml_text import shown

    value = value if task.do_xcom_push else None
    if value is not None and task.multiple_outputs and not isinstance(value, Mapping):
        raise OutputError(f"result: multiple_outputs needs a JSON mapping: {shown(value)}")
    if not task.has_dag() or ("ti" in context and is_mapped(context)):
        return
    for user in task.iter_mapped_dependants():
        most = conf.getint("core", "max_map_length", fallback=1024)
        if not isinstance(value, list | Mapping):
            raise OutputError(f"result: the task {user.task_id} is mapped over it, and {shown(value)} is not a list")
        if len(value) > most:
            raise OutputError(
                f"result: the task {user.task_id} is mapped over it, and it has {len(value)} values, more than the "
                f"{most} of [core] max_map_length"
            )
