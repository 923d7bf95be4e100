"""Commands for files: nothing is asked of any cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click

from executors.cli.common import WRONG_INPUT, guarded, is_minicluster, json_option, name_of, print_json, say
from executors.config import describe, load_config
from executors.errors import ConfigError
from executors.names import RunId, run_name
from executors.provision.kubernetes.certificate import make_certificate
from executors.render import MiniCluster, pod_patch_problems, render_direct
from executors.spec import default_document, parse_spec
from executors.validation import direct_problems, name_problems, replaced_by_program


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--name", help="Name of the MiniCluster. Default: metadata.name of FILE, else its file name.")
@click.option("--namespace", metavar="NAME", default="default", show_default=True, help="Namespace of the objects.")
@json_option
@guarded
def render(file: Path, name: str | None, namespace: str, as_json: bool) -> None:
    """Print as YAML the objects that direct mode creates.

    FILE is a MiniCluster or FluxRun file. With kubectl apply -f, the objects run the command of the file without this
    program. Each call makes a new CURVE key for the Secret.
    """
    import yaml

    config = load_config(file, environ={})
    spec = replace(config.minicluster or parse_spec(default_document()), pod_patch=config.run.pod_patch)
    name = name or name_of(file)
    cluster = MiniCluster(name, namespace, spec)
    problems = _render_problems(cluster)
    if problems:
        raise ConfigError(problems, str(file))
    objects = render_direct(cluster, None, make_certificate(name))
    if as_json:
        print_json({"apiVersion": "v1", "kind": "List", "items": objects})
    else:
        click.echo(yaml.safe_dump_all(objects, sort_keys=False), nl=False)


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("-v", "--verbose", is_flag=True, help="Print each value and its source.")
@json_option
@guarded
def validate(file: Path, verbose: bool, as_json: bool) -> None:
    """Report all problems of a MiniCluster or FluxRun file."""
    try:
        config = load_config(file)
    except ConfigError as err:
        if not as_json:
            raise
        print_json({"valid": False, "problems": list(err.problems)})
        raise SystemExit(WRONG_INPUT) from None
    spec = config.minicluster
    name = run_name(RunId("cli", name_of(file)))
    refused = [*direct_problems(spec), *name_problems(name, spec)] if spec is not None else []
    if not refused and config.run.pod_patch:
        patched = replace(spec or parse_spec(default_document()), pod_patch=config.run.pod_patch)
        refused = pod_patch_problems(MiniCluster(name, "default", patched), None)
    rendered = []
    if spec is not None and is_minicluster(file):
        rendered = [one for one in _render_problems(MiniCluster(name_of(file), "default", spec)) if one not in refused]
    replaced = replaced_by_program(spec) if spec is not None else []
    if as_json:
        found = {
            "not_in_direct_mode": refused,
            "not_rendered": rendered,
            "not_used": replaced,
            "values": describe(config),
        }
        print_json({"valid": True, "problems": [], **found})
        return
    if verbose:
        for line in describe(config):
            click.echo(line)
    for problem in refused:
        say(f"not in direct mode: {problem}")
    for problem in rendered:
        say(f"`render` refuses: {problem}")
    for field in replaced:
        say(f"not used by workflow runs, which submit jobs of their own: {field}")
    click.echo(f"{file}: valid")


def _render_problems(cluster: MiniCluster) -> list[str]:
    """Why objects cannot be made that run the spec's own command under this name."""
    found = [*direct_problems(cluster.spec, program=False), *name_problems(cluster.name, cluster.spec)]
    return found or pod_patch_problems(cluster, None)


COMMANDS: Sequence[click.Command] = (render, validate)
