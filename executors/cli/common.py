"""What the commands share: options, errors and their exit codes, output as a table or as JSON."""

from __future__ import annotations

import functools
import json
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NoReturn, TypeVar

import click
from click.shell_completion import CompletionItem

from executors.cli.signals import ended_like_interrupted
from executors.command_group import fail_of_system, write_no_more
from executors.config import PROVISIONERS, RunConfig, load_config
from executors.errors import ConfigError, ExecutorsError, ProvisionError, RequestError, RunNameError
from executors.lifecycle import Lifecycle
from executors.names import RunId, run_name
from executors.provision import Instance
from executors.provision.choice import choose_provisioner
from executors.provision.inventory import instances, own_config
from executors.yaml_text import read_mapping

PROGRAM = "flux-minicluster"
#: Exit codes, besides 0 and those of a job that ``run`` passes through (docs/cli.md).
FAILED = 1
#: The command line (click's own code for it), a file or the environment.
WRONG_INPUT = 2
#: ``run`` only, so that they are not taken for a job's own: like those of timeout(1) and of container runtimes.
TIMED_OUT = 124
RUN_FAILED = 125
INTERRUPTED = 128 + signal.SIGINT
#: Nobody reads the output any more.
UNREAD = 128 + signal.SIGPIPE

_F = TypeVar("_F", bound=Callable[..., Any])


class Duration(click.ParamType):  # type: ignore[type-arg]  # which click 8.1 has not
    """A time as seconds, or as a Flux Standard Duration (RFC 23): 90, 5m, 1.5h."""

    name = "duration"
    _UNITS: ClassVar = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value  # a default
        match = re.fullmatch(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ms|[smhd]?)", value)
        if match is None:
            self.fail(
                f"{value!r} is not a number of seconds, nor one with a unit (ms, s, m, h, d), like 5m", param, ctx
            )
        return float(match[1]) * self._UNITS[match[2]]


def cluster_options(function: _F) -> _F:
    """The options that say where instances are."""
    options = (
        click.option(
            "--provisioner",
            type=click.Choice(PROVISIONERS),
            help="Where instances are. Default: FLUX_OPERATOR_PROVISIONER, else the config, else attach if FLUX_URI is "
            "set, else local. (`doctor`: else direct.)",
        ),
        click.option(
            "--config",
            "config_file",
            metavar="FILE",
            type=click.Path(path_type=Path),
            help="Pipeline config (kind FluxRun) or MiniCluster file. Default: none.",
        ),
        click.option("--namespace", metavar="NAME", help="Kubernetes namespace. Default: the one of the context."),
        click.option("--context", metavar="NAME", help="Context in the kubeconfig. Default: the current one."),
        click.option("--kubeconfig", metavar="FILE", help="kubeconfig file. Default: KUBECONFIG, else ~/.kube/config."),
    )
    return functools.reduce(lambda decorated, option: option(decorated), reversed(options), function)


def json_option(function: _F) -> _F:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)


def instance_argument(function: _F, *, required: bool = True) -> _F:
    """INSTANCE, which a shell completes from what there is."""
    return click.argument("instance", required=required, shell_complete=_complete)(function)


def _complete(context: click.Context, _parameter: click.Parameter, begin: str) -> list[CompletionItem]:
    try:
        found = instances(config_of(context.params), os.environ)
    except (ExecutorsError, click.UsageError):  # a shell has no place for it; the command will say
        return []
    return [CompletionItem(one.name) for one in found if one.name.startswith(begin)]


#: Options that mean something on Kubernetes only.
_OF_CLUSTERS = ("namespace", "context", "kubeconfig")


def config_of(options: Mapping[str, Any], default: str = "") -> RunConfig:
    """The config that the options of `cluster_options` name; ``default``: a command's own default provisioner.

    Raises ConfigError, and UsageError for options that would have no effect.
    """
    given = {f"run.{name}": options.get(name) for name in ("provisioner", *_OF_CLUSTERS)}
    config = load_config(options.get("config_file"), options=given)
    provisioner = config.run.provisioner or default or choose_provisioner(config, os.environ).name
    for name in _OF_CLUSTERS:
        if options.get(name) is not None and provisioner not in ("direct", "operator"):
            raise click.UsageError(
                f"--{name} has no effect with the provisioner {provisioner}; add --provisioner direct or operator"
            )
    return config


def run_id_of(name: str | None, config_file: Path | None) -> RunId:
    """The run that ``up`` makes of a name, or else of a file. Raises UsageError for neither."""
    if not name and config_file is None:
        raise click.UsageError("give --name, or a --config to name it after; `list` shows instances that are there")
    return RunId("cli", name or name_of(config_file or Path()))


def name_of(path: Path) -> str:
    """``metadata.name`` of a file, else its own name; also of one that cannot be read (`load_config` says why)."""
    metadata = _document(path).get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    return name if name and isinstance(name, str) else path.stem


def is_minicluster(path: Path) -> bool:
    """Whether a file is a MiniCluster itself, which can be applied or rendered, and no config of a run."""
    return _document(path).get("kind") == "MiniCluster"


def _document(path: Path) -> dict[str, Any]:
    try:
        return read_mapping(path.read_bytes())
    except (OSError, ValueError):
        return {}


def find(config: RunConfig, given: str) -> Instance:
    """The instance that is meant by its name, by that without the digits at its end, or by the one given to ``up``.

    Raises ProvisionError where there is none, or more.
    """
    found = instances(config, os.environ)
    meant = [one for one in found if one.name == given]
    # The agent beside an attached instance has one more word at its end.
    meant = meant or [one for one in found if one.name.rpartition("-")[0] in (given, _upped(given))]
    meant = meant or [one for one in found if one.name == _upped(given)]
    if len(meant) == 1:
        return meant[0]
    where = where_searched(config, found)
    if meant:
        raise ProvisionError(f"{given}: is not unique {where}: {', '.join(one.name for one in meant)}")
    there = ", ".join(one.name for one in found) or "none"
    raise ProvisionError(f"{given}: there is no such instance {where} (existing: {there})")


def _upped(name: str) -> str:
    return run_name(RunId("cli", name)) if name else ""


def where_searched(config: RunConfig, found: Sequence[Instance]) -> str:
    """Where was looked, in words: "on this machine" surprises who meant a cluster."""
    if config.run.provisioner not in ("direct", "operator"):
        return "on this machine"
    namespace = config.run.namespace or (found[0].namespace if found else "the context's own")
    return f"in the namespace {namespace} (provisioner {config.run.provisioner})"


def lifecycle_of(config: RunConfig, instance: Instance) -> Lifecycle:
    return Lifecycle(instance.name, own_config(config, instance), os.environ)


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


def write_all(fd: int, data: bytes) -> None:
    """Every byte, past Python's own buffers. Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def copy_output(output: Callable[[str], Iterator[bytes]]) -> None:
    """A job's two streams to this process's own, byte for byte, until both end.

    Raises OSError as soon as stdout takes no more, or at the end where stderr did not; ExecutorsError where the output
    has come to an end before its job.
    """
    failed: list[Exception] = []

    def copy(stream: str, target: int) -> None:
        for piece in output(stream):
            write_all(target, piece)

    def copy_errors() -> None:
        try:
            copy("stderr", 2)
        except (OSError, ExecutorsError) as err:
            failed.append(err)

    sys.stdout.flush()
    errors = threading.Thread(target=copy_errors, daemon=True)
    errors.start()
    copy("stdout", 1)
    errors.join()
    if failed:
        raise failed[0]


def guarded(function: Callable[..., None], failed: int = FAILED, wrong: int = WRONG_INPUT) -> Callable[..., None]:
    """Errors that are raised on purpose, and signals, become one message and an exit code."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            with ended_like_interrupted():
                function(*args, **kwargs)
        except (ConfigError, RequestError, RunNameError) as err:
            fail(str(err), wrong)
        except ExecutorsError as err:
            fail(str(err), failed)
        except KeyboardInterrupt:
            fail("interrupted", INTERRUPTED)
        except BrokenPipeError:
            write_no_more()
            raise SystemExit(UNREAD) from None
        except OSError as err:  # a full disk, a directory that is not ours to use
            fail_of_system(err, failed, PROGRAM)

    return run


def fail(message: str, code: int) -> NoReturn:
    click.echo(f"{PROGRAM}: {message}", err=True)
    raise SystemExit(code)
