"""Commands for files: nothing is asked of any cluster."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from executors.cli.common import guarded, json_option, name_in, print_json, say
from executors.config import describe, load_config
from executors.errors import ConfigError
from executors.provision.certificate import make_certificate
from executors.render import MiniCluster, render_direct
from executors.spec import default_document, parse_spec
from executors.validation import direct_problems, name_problems


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--name", help="Name of the MiniCluster. Default: the file's own.")
@click.option("--namespace", default="default", show_default=True, help="Namespace of the objects.")
@json_option
@guarded
def render(file: Path, name: str | None, namespace: str, as_json: bool) -> None:
    """Print the objects that direct mode makes of a MiniCluster or FluxRun file, as YAML.

    The CURVE key in the Secret is a new one each time.
    """
    import yaml

    spec = load_config(file, environ={}).minicluster or parse_spec(default_document())
    name = name or name_in(file) or file.stem
    problems = [*direct_problems(spec, program=False), *name_problems(name, spec)]
    if problems:
        raise ConfigError(problems, str(file))
    objects = render_direct(MiniCluster(name, namespace, spec), None, make_certificate(name))
    if as_json:
        print_json({"apiVersion": "v1", "kind": "List", "items": objects})
    else:
        click.echo(yaml.safe_dump_all(objects, sort_keys=False), nl=False)


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--verbose", "-v", is_flag=True, help="Print each value and where it came from.")
@json_option
@guarded
def validate(file: Path, verbose: bool, as_json: bool) -> None:
    """Say everything that is wrong with a MiniCluster or FluxRun file."""
    config = load_config(file)
    spec = config.minicluster
    problems = direct_problems(spec) if spec is not None else []
    if as_json:
        print_json({"valid": True, "not_in_direct_mode": list(problems), "values": describe(config)})
        return
    if verbose:
        for line in describe(config):
            click.echo(line)
    for problem in problems:
        say(f"not in direct mode: {problem}")
    click.echo(f"{file}: valid")


COMMANDS: Sequence[click.Command] = (render, validate)
