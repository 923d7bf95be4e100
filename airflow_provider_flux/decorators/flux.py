"""``@task.flux``: a function that returns the command of a Flux job."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import (
    DecoratedOperator,
    TaskDecorator,
    context_merge,
    determine_kwargs,
    task_decorator_factory,
)

from airflow_provider_flux.exceptions import FluxRequestError
from airflow_provider_flux.operators.flux import FluxOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

#: Until the function has been called.
_PENDING = "the command is what the function returns"


class _FluxDecoratedOperator(DecoratedOperator, FluxOperator):
    template_fields: Sequence[str] = (*DecoratedOperator.template_fields, *FluxOperator.template_fields)
    template_fields_renderers = {
        **DecoratedOperator.template_fields_renderers,
        **FluxOperator.template_fields_renderers,
    }
    custom_operator_name = "@task.flux"
    # The command is known only when the function has been called, and is what people look for.
    overwrite_rtif_after_execution = True

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        op_args: Collection[Any] | None = None,
        op_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            python_callable=python_callable, op_args=op_args, op_kwargs=op_kwargs, command=_PENDING, **kwargs
        )

    def execute(self, context: Context) -> Any:
        context_merge(context, self.op_kwargs)
        arguments = determine_kwargs(self.python_callable, self.op_args, context)
        command = self.python_callable(*self.op_args, **arguments)
        good = isinstance(command, str) or (isinstance(command, Sequence) and all(isinstance(w, str) for w in command))
        if not good or not command:
            raise FluxRequestError(
                f"@task.flux: {self.python_callable.__name__} returned {command!r}; it must return the command, a "
                "string for the shell or a list of strings"
            )
        self.command = command
        self.render_template_fields(context)
        return super().execute(context)

    def execute_complete(self, context: Context, event: dict[str, Any], job: Mapping[str, Any] | None = None) -> Any:
        # The command was stored before the task was deferred; here it is not known.
        self.overwrite_rtif_after_execution = False
        return super().execute_complete(context, event, job)


def flux_task(python_callable: Callable[..., Any] | None = None, **kwargs: Any) -> TaskDecorator:
    """``@task.flux``: the function returns the command. Takes what `FluxOperator` takes, but ``command``."""
    return task_decorator_factory(
        python_callable=python_callable, decorated_operator_class=_FluxDecoratedOperator, **kwargs
    )
