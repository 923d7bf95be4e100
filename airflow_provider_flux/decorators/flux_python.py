"""``@task.flux_python``: a Python function that runs as a Flux job, with its arguments and its return value.

The function's source travels in the job's command and its arguments in its environment; so both are stored by Flux, and
limited to what Linux takes as one argument (128 KiB). The return value comes back as a line of JSON on stdout, which
the log does not show. Nothing of what the job sends is unpickled: it might come from somebody else's code.
"""

from __future__ import annotations

import base64
import hashlib
import inspect
import pickle
import textwrap
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import (
    DecoratedOperator,
    TaskDecorator,
    context_merge,
    determine_kwargs,
    task_decorator_factory,
)

from airflow_provider_flux.operators.flux import FluxOperator
from airflow_provider_flux.outcome import FluxRequestError

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_flux.output import Result

_INPUT = "FXO_PYTHON_INPUT"
#: Understood by every Python 3.4 and newer.
_PICKLE = 4
_RUNNER = """\
import base64, json, os, pickle, sys
_args, _kwargs = pickle.loads(base64.b64decode(os.environ.pop({variable!r})))

{source}

_result = {name}(*_args, **_kwargs)
if os.environ.get("FLUX_TASK_RANK", "0") == "0":
    try:
        _line = json.dumps(_result)
    except (TypeError, ValueError) as err:
        sys.exit("the return value of {name} is not plain data that JSON can hold: %s" % err)
    sys.stdout.flush()
    _line = ({marker!r} + _line + "\\n").encode()
    while _line:
        _line = _line[os.write(1, _line):]
"""


class _FluxPythonDecoratedOperator(DecoratedOperator, FluxOperator):
    template_fields: Sequence[str] = (
        *DecoratedOperator.template_fields,
        *(name for name in FluxOperator.template_fields if name != "command"),
        "python",
    )
    template_fields_renderers = {
        **DecoratedOperator.template_fields_renderers,
        **FluxOperator.template_fields_renderers,
    }
    template_ext: Sequence[str] = ()
    custom_operator_name = "@task.flux_python"

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        op_args: Collection[Any] | None = None,
        op_kwargs: Mapping[str, Any] | None = None,
        python: str = "python3",
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("result", "json")
        super().__init__(
            python_callable=python_callable, op_args=op_args, op_kwargs=op_kwargs, command=[python], **kwargs
        )
        self.python = python

    def execute(self, context: Context) -> Any:
        context_merge(context, self.op_kwargs)
        arguments = determine_kwargs(self.python_callable, self.op_args, context)
        source = _source(self)
        script = _RUNNER.format(
            variable=_INPUT, source=source, name=self.python_callable.__name__, marker=self._marker()
        )  # fmt: skip
        self.command = [self.python, "-c", script]
        args = [_plain(value) for value in self.op_args]
        named = {name: _plain(value) for name, value in arguments.items()}
        self.env = {**(self.env or {}), _INPUT: _encoded(self.python_callable, args, named)}
        return super().execute(context)

    def _marker(self) -> str:
        # The same for every try: a try may take over the job of another.
        return f"fxo-result-{hashlib.sha256(self.task_id.encode()).hexdigest()[:16]}:"

    def xcom(self, line: Result | None) -> Any:
        if line is None and self.result == "json":
            return None  # several tasks may have ended before the first has told its value: nothing to give
        return super().xcom(line)


def _source(operator: _FluxPythonDecoratedOperator) -> str:
    try:
        source = str(operator.get_python_source())
    except (OSError, TypeError) as err:
        raise FluxRequestError(
            f"@task.flux_python: the source of {operator.python_callable!r} is not to be had: {err}"
        ) from None
    if inspect.iscoroutinefunction(operator.python_callable):
        raise FluxRequestError("@task.flux_python: give a plain function, not an async one")
    return textwrap.dedent(source)


def _plain(value: object) -> object:
    """Airflow gives the values of a mapped task as a sequence that asks for each when it is read: a list of them."""
    lazy = isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray | list | tuple)
    return list(value) if lazy else value  # type: ignore[call-overload]  # a Sequence


def _encoded(function: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]) -> str:
    try:
        return base64.b64encode(pickle.dumps((args, kwargs), protocol=_PICKLE)).decode("ascii")
    # Whatever an object's own methods raise: the message names what cannot travel.
    except Exception as err:
        names = [f"argument {index}" for index, value in enumerate(args) if not _travels(value)]
        names += [name for name, value in kwargs.items() if not _travels(value)]
        raise FluxRequestError(
            f"@task.flux_python: {function.__name__} cannot be given {', '.join(names)}: only what pickle can hold "
            f"travels to a job ({err})"
        ) from None


def _travels(value: object) -> bool:
    try:
        pickle.dumps(value, protocol=_PICKLE)
    except Exception:  # see above
        return False
    return True


def flux_python_task(python_callable: Callable[..., Any] | None = None, **kwargs: Any) -> TaskDecorator:
    """``@task.flux_python``: the function runs as a Flux job. Takes what `FluxOperator` takes, but ``command``, and
    ``python``: the interpreter in the job. Modules are imported inside the function.
    """
    return task_decorator_factory(
        python_callable=python_callable, decorated_operator_class=_FluxPythonDecoratedOperator, **kwargs
    )
