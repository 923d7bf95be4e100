# What a type checker is told of ``@task.flux`` and ``@task.flux_python``: their own parameters, those of FluxOperator.
# The parameters of every Airflow task are in ``**kwargs``.
from collections.abc import Callable, Collection, Mapping
from datetime import timedelta
from typing import Any, Literal, ParamSpec, TypeVar, overload

from airflow.sdk.bases.decorator import Task, TaskDecorator

_Parameters = ParamSpec("_Parameters")
_Command = TypeVar("_Command", bound=str | list[str] | tuple[str, ...])
_Value = TypeVar("_Value")

@overload
def flux_task(python_callable: Callable[_Parameters, _Command]) -> Task[_Parameters, _Command]: ...
@overload
def flux_task(
    *,
    multiple_outputs: bool | None = None,
    nodes: int | str | None = None,
    ntasks: int | str = 1,
    cores_per_task: int | str | None = None,
    gpus_per_task: int | str | None = None,
    exclusive: bool = False,
    time_limit: float | str | timedelta | None = None,
    env: Mapping[str, str] | None = None,
    secret_env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    cluster: Any = None,
    config: str | Mapping[str, Any] | None = None,
    flux_conn_id: str = ...,
    flux_queue: str | None = None,
    bank: str | None = None,
    urgency: int | str | None = None,
    constraint: Mapping[str, Any] | None = None,
    result: Literal["last_line", "json", "none"] = "last_line",
    skip_on_exit_code: int | str | Collection[int] | None = None,
    deferrable: bool = ...,
    durable: bool = True,
    get_logs: bool = True,
    wait: bool = True,
    **kwargs: Any,
) -> TaskDecorator: ...
@overload
def flux_python_task(python_callable: Callable[_Parameters, _Value]) -> Task[_Parameters, _Value]: ...
@overload
def flux_python_task(
    *,
    python: str = "python3",
    multiple_outputs: bool | None = None,
    nodes: int | str | None = None,
    ntasks: int | str = 1,
    cores_per_task: int | str | None = None,
    gpus_per_task: int | str | None = None,
    exclusive: bool = False,
    time_limit: float | str | timedelta | None = None,
    env: Mapping[str, str] | None = None,
    secret_env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    cluster: Any = None,
    config: str | Mapping[str, Any] | None = None,
    flux_conn_id: str = ...,
    flux_queue: str | None = None,
    bank: str | None = None,
    urgency: int | str | None = None,
    constraint: Mapping[str, Any] | None = None,
    result: Literal["last_line", "json", "none"] = "json",
    skip_on_exit_code: int | str | Collection[int] | None = None,
    deferrable: bool = ...,
    durable: bool = True,
    get_logs: bool = True,
    wait: bool = True,
    **kwargs: Any,
) -> TaskDecorator: ...
