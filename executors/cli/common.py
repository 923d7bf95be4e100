"""What the commands share: options, errors and their exit codes, output as a table or as JSON."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from executors.config import RunConfig, load_config
from executors.errors import ConfigError, ExecutorsError, ProvisionError
from executors.lifecycle import Instance, instances
from executors.names import RunId

#: Exit codes, besides 0 and those of a job that ``run`` passes through (docs/cli.md).
FAILED = 1
WRONG_INPUT = 3
#: ``run`` only, so that they are not taken for a job's own: like those of env(1) and of container runtimes.
RUN_FAILED = 125

PROVISIONERS = ("local", "attach", "direct", "operator")

_F = TypeVar("_F", bound=Callable[..., Any])


def cluster_options(function: _F) -> _F:
    """The options that say where instances are."""
    options = (
        click.option("--provisioner", type=click.Choice(PROVISIONERS), help="Default: attach or local, as for a run."),
        click.option(
            "--config",
            "config_file",
            type=click.Path(path_type=Path),
            help="Pipeline config (kind FluxRun) or a MiniCluster file.",
        ),
        click.option("--namespace", help="Kubernetes namespace. Default: the kubeconfig context's."),
        click.option("--context", help="kubeconfig context. Default: the current one."),
        click.option("--kubeconfig", help="kubeconfig file. Default: KUBECONFIG, else ~/.kube/config."),
    )
    return functools.reduce(lambda decorated, option: option(decorated), reversed(options), function)


def json_option(function: _F) -> _F:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)


def config_of(options: Mapping[str, Any]) -> RunConfig:
    """The config that the options of `cluster_options` name. Raises ConfigError."""
    given = {f"run.{name}": options[name] for name in ("provisioner", "namespace", "context", "kubeconfig")}
    return load_config(options["config_file"], options=given)


def with_provisioner(config: RunConfig, name: str) -> RunConfig:
    return replace(config, run=replace(config.run, provisioner=name))


def run_id_of(name: str | None, options: Mapping[str, Any]) -> RunId:
    """The run that ``up`` makes of a name or a file. Raises ConfigError for neither."""
    if name is None and options["config_file"] is None:
        raise ConfigError(["--name: is missing; give it, or --config"])
    return RunId("cli", name or name_in(options["config_file"]) or options["config_file"].stem)


def name_in(path: Path) -> str:
    """``metadata.name`` of a file; "" where it has none, or cannot be read (`load_config` says why)."""
    import yaml

    try:
        document: Any = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError, ValueError, RecursionError):
        return ""
    metadata = document.get("metadata") if isinstance(document, dict) else None
    return str(metadata.get("name") or "") if isinstance(metadata, dict) else ""


def find(config: RunConfig, name: str) -> Instance:
    """The instance of a name, or of the beginning of one. Raises ProvisionError where there is none, or more."""
    found = instances(config, os.environ)
    exact = [one for one in found if one.name == name]
    if exact:
        return exact[0]
    near = [one for one in found if one.name.startswith(name)]
    if len(near) == 1:
        return near[0]
    known = ", ".join(one.name for one in found) or "there is none"
    raise ProvisionError(f"{name}: {'is not unique' if near else 'there is no such instance'} ({known})")


def say(line: str) -> None:
    """Progress and news, which are no part of a command's output."""
    click.echo(line, err=True)


def print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, sort_keys=True, default=str))


def print_table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    texts = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[at]) for row in [list(heads), *texts]) for at in range(len(heads))]
    for row in [list(heads), *texts]:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def guarded(function: Callable[..., None], failed: int = FAILED) -> Callable[..., None]:
    """Errors that are raised on purpose become one message and an exit code."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)
        except ConfigError as err:
            fail(str(err), WRONG_INPUT if failed == FAILED else failed)
        except ExecutorsError as err:
            fail(str(err), failed)
        except BrokenPipeError:
            # Whoever read the output has seen enough; Python would complain once more when it flushes at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(FAILED) from None

    return run


def fail(message: str, code: int) -> NoReturn:
    click.echo(f"flux-minicluster: {message}", err=True)
    raise SystemExit(code)
