"""The job that a task asks for, from the task's arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol

from airflow.providers.common.compat.sdk import context_to_airflow_vars, mask_secret

from airflow_provider_flux import arguments
from airflow_provider_flux.masking import Masker

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from executors import JobRequest


class JobTask(Protocol):
    """The arguments of `FluxOperator` that make its job; rendered, but for ``secret_env``."""

    task_id: str
    command: str | Sequence[str]
    nodes: int | str | None
    ntasks: int | str
    cores_per_task: int | str | None
    gpus_per_task: int | str | None
    exclusive: bool
    time_limit: float | str | timedelta | None
    env: Mapping[str, str] | None
    secret_env: Mapping[str, str] | None
    cwd: str | None
    flux_queue: str | None
    bank: str | None
    urgency: int | str | None
    constraint: Mapping[str, Any] | None

    def render_template(self, content: Any, context: Context) -> Any: ...


def job_request(task: JobTask, context: Context | None) -> JobRequest:
    """The request of a task; without a context its secrets are hidden, and Airflow's own variables are not in it.

    Raises RequestError with everything that is wrong, field by field.
    """
    from executors import JobRequest, RequestError

    problems: list[str] = []

    def parsed(parse: Callable[[str, object, list[str]], Any], name: str) -> Any:
        return parse(name, getattr(task, name), problems)

    tasks = parsed(arguments.number, "ntasks")
    env = parsed(arguments.variables, "env")
    request = JobRequest(
        argv=arguments.argv(task.command, problems),
        name=task.task_id,
        nodes=parsed(arguments.number, "nodes"),
        tasks=1 if tasks is None else tasks,
        cores_per_task=parsed(arguments.number, "cores_per_task"),
        gpus_per_task=parsed(arguments.number, "gpus_per_task"),
        exclusive=task.exclusive,
        duration=parsed(arguments.seconds, "time_limit"),
        env=env,
        secret_env=secret_variables(task, context, problems),
        cwd=parsed(arguments.text, "cwd"),
        queue=parsed(arguments.text, "flux_queue"),
        bank=parsed(arguments.text, "bank"),
        urgency=parsed(arguments.number, "urgency"),
        constraint=task.constraint,
    )
    # What two tries must have in common for one to take over the other's job: what the task asks for.
    identity = repr(replace(request, secret_env={}, name=""))
    request = replace(request, identity=identity, env={**_context_variables(context), **env})
    if problems:
        raise RequestError(problems, task.task_id)
    return request


def secret_variables(task: JobTask, context: Context | None, problems: list[str]) -> dict[str, str]:
    """The values of ``secret_env``, rendered, and masked in all that this process logs; hidden without a context."""
    secrets = arguments.variables("secret_env", task.secret_env, problems)
    for name, value in secrets.items():
        if value is None:
            problems.append(f"secret_env.{name}: has no value")
        # Airflow stores the arguments of mapped tasks as they are written in the DAG.
        elif context is not None and is_mapped(context) and "{{" not in value:
            problems.append(
                f"secret_env.{name}: the arguments of a mapped task are stored with the DAG, in clear; give a "
                "template, for instance '{{ conn.my_connection.password }}'"
            )
    if context is None or problems:
        return dict.fromkeys(secrets, "***")
    # Here and not as a template field, since Airflow stores and shows what those are rendered to.
    rendered = {name: str(value) for name, value in task.render_template(dict(secrets), context).items()}
    # Output is masked line by line; whatever else this process logs, exceptions too, by Airflow.
    mask_secret(list(Masker(rendered.values()).literals()))  # one message to the task's supervisor
    return rendered


def is_mapped(context: Context) -> bool:
    """Whether the task is one of several that a mapping has made."""
    index = context["ti"].map_index
    return index is not None and index >= 0


def _context_variables(context: Context | None) -> dict[str, str]:
    """AIRFLOW_CTX_*, as Airflow's own operators give them to what they run."""
    if context is None:
        return {}
    return {name: str(value) for name, value in context_to_airflow_vars(context, in_env_var_format=True).items()}
