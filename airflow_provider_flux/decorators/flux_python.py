"""``@task.flux_python``: a Python function that runs as a Flux job, with its arguments and its return value.

The function's source travels in the job's command and its arguments in its environment; so both are stored by Flux, and
limited to what Linux takes as one argument (128 KiB). The return value comes back as a line of JSON on stdout, which
the log does not show. Nothing of what the job sends is unpickled: it might come from somebody else's code.
"""

from __future__ import annotations

import ast
import base64
import hashlib
import inspect
import pickle
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

    from airflow_provider_flux.output import Result

_INPUT = "FXO_PYTHON_INPUT"
#: Understood by every Python 3.4 and newer.
_PICKLE = 4
_RUNNER = """\
import base64, json, linecache, os, pickle, sys
_args, _kwargs = pickle.loads(base64.b64decode(os.environ.pop({variable!r})))
_source = {source!r}
linecache.cache["<{name}>"] = (len(_source), None, _source.splitlines(True), "<{name}>")
_space = {{"__name__": "__flux__"}}
exec(compile(_source, "<{name}>", "exec"), _space)
_result = _space[{name!r}](*_args, **_kwargs)
if os.environ.get("FLUX_TASK_RANK", "0") == "0":
    try:
        _line = json.dumps(_result, allow_nan=False)
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
        source = _source(self.python_callable)
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


def _source(function: Callable[..., Any]) -> str:
    """The function by itself: without this decorator, and without annotations, whose names are not in the job."""
    name = function.__name__
    if inspect.iscoroutinefunction(function):
        raise FluxRequestError(f"@task.flux_python: {name} is async; give a plain function")
    try:
        source = inspect.getsource(function)
        # As deep as it is indented, whatever is in its strings.
        tree = ast.parse(f"if True:\n{source}" if source[:1].isspace() else source)
    except (OSError, TypeError, SyntaxError) as err:
        raise FluxRequestError(f"@task.flux_python: the source of {name} cannot be read: {err}") from None
    found = next((node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == name), None)
    if found is None:
        raise FluxRequestError(f"@task.flux_python: {name} is not defined by def")
    free = function.__code__.co_freevars
    if free:
        raise FluxRequestError(
            f"@task.flux_python: {name} uses {', '.join(free)} of the function around it, which does not travel to the "
            "job; pass it as an argument"
        )
    # Airflow calls what its own decorator has been given: those above that one are Airflow's, too, as setup and run_if.
    own = [at for at, one in enumerate(found.decorator_list) if "flux_python" in ast.unparse(one)]
    found.decorator_list = found.decorator_list[own[-1] + 1 :] if own else []
    found.returns = None
    every = found.args
    for argument in [*every.posonlyargs, *every.args, *every.kwonlyargs, every.vararg, every.kwarg]:
        if argument is not None:
            argument.annotation = None
    return ast.unparse(found)


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
