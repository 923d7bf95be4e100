"""Commands for instances."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Sequence
from typing import Any

import click

from executors.cli.common import (
    cluster_options,
    config_of,
    find,
    guarded,
    json_option,
    print_json,
    print_table,
    run_id_of,
    say,
    with_provisioner,
)
from executors.errors import ExecutorsError
from executors.lifecycle import Instance, Lifecycle, instances
from executors.lifecycle import reap as reap_instances
from executors.names import run_name
from executors.session import open_session


@click.command()
@click.option("--name", help="Name of the instance. Default: the file's metadata.name, else its own name.")
@cluster_options
@json_option
@guarded
def up(name: str | None, as_json: bool, **options: Any) -> None:
    """Make an instance, or find it running, and leave it to its time-outs or to `down`."""
    session = open_session(run_id_of(name, options), config_of(options), announce=say)
    hello = session.hello
    session.close(release=False)
    if as_json:
        print_json(
            {"name": hello.run, "instance": hello.instance, "engine": hello.engine, "version": hello.engine_version}
        )
    else:
        click.echo(hello.run)


@click.command()
@click.argument("instance", required=False)
@click.option("--name", help="The name that was given to `up`.")
@cluster_options
@guarded
def down(instance: str | None, name: str | None, **options: Any) -> None:
    """End an instance and everything that belongs to it; wait until it is gone.

    Give INSTANCE as `list` shows it, or the same --name or --config as to `up`.
    """
    config = config_of(options)
    found = find(config, instance or run_name(run_id_of(name, options)))
    Lifecycle(found.name, with_provisioner(config, found.provisioner), os.environ).end()
    say(f"{found.name} is gone")


@click.command("list")
@cluster_options
@json_option
@guarded
def list_(as_json: bool, **options: Any) -> None:
    """List the instances that this program has made."""
    found = instances(config_of(options), os.environ)
    if as_json:
        print_json([dataclasses.asdict(one) for one in found])
        return
    rows = [
        (one.name, one.provisioner, one.namespace, one.state, f"{one.running}/{one.size}", _age(one)) for one in found
    ]
    print_table(("NAME", "PROVISIONER", "NAMESPACE", "STATE", "RUNNING", "AGE"), rows)


@click.command()
@click.argument("instance")
@cluster_options
@json_option
@guarded
def status(instance: str, as_json: bool, **options: Any) -> None:
    """Show an instance: its state, its agent, its nodes."""
    config = config_of(options)
    found = find(config, instance)
    info: dict[str, Any] = dataclasses.asdict(found)
    if found.state == "running":
        try:
            lifecycle = Lifecycle(found.name, with_provisioner(config, found.provisioner), os.environ)
            info["agent"], info["nodes"] = lifecycle.observe("info", "resources")
            info["nodes"] = info["nodes"]["nodes"]
        except ExecutorsError as err:
            info["agent"] = {"error": str(err)}
    if as_json:
        print_json(info)
        return
    click.echo(f"{found.name}: {found.state}{': ' + found.reason if found.reason else ''}, age {_age(found)}")
    agent = info.get("agent")
    if agent is not None and "error" in agent:
        click.echo(f"agent: does not answer: {agent['error']}")
    elif agent is not None:
        click.echo(
            f"agent: Flux {agent['engine_version']}, {agent['active']} active jobs, {agent['clients']} clients, "
            f"nobody and nothing for {agent['quiet']:.0f} s (ends after {agent['idle_timeout']:g} s)"
        )
        rows = [
            (
                n["rank"],
                n["host"],
                n["cores"],
                n["gpus"],
                "up" if n["up"] else "down",
                "drained" if n["drained"] else "",
            )
            for n in info["nodes"]
        ]
        print_table(("RANK", "HOST", "CORES", "GPUS", "STATE", ""), rows)


@click.command()
@click.argument("instance")
@click.argument("size", type=click.IntRange(min=1))
@click.option(
    "--grace", type=float, default=300.0, show_default=True, help="Seconds for jobs on brokers that are to go."
)
@cluster_options
@guarded
def resize(instance: str, size: int, grace: float, **options: Any) -> None:
    """Change the number of an instance's brokers, up to the maxSize that it was made with."""
    config = config_of(options)
    found = find(config, instance)
    Lifecycle(found.name, with_provisioner(config, found.provisioner), os.environ).resize(size, grace, say)
    say(f"{found.name}: {found.size} -> {size}")


@click.command()
@click.option("--dry-run", is_flag=True, help="Only say what would be ended.")
@cluster_options
@json_option
@guarded
def reap(dry_run: bool, as_json: bool, **options: Any) -> None:
    """End instances that are of no use: over, not answering, or unused for longer than run.orphanTimeout."""
    decided = []
    for one in reap_instances(config_of(options), os.environ, dry_run=dry_run):
        decided.append(one)
        if not as_json:
            what = ("would be ended" if dry_run else "ended") if one.ended else "left alone"
            click.echo(f"{one.instance.name}: {what}: {one.reason}")
    if as_json:
        print_json([{"name": one.instance.name, "ended": one.ended, "reason": one.reason} for one in decided])


def _age(one: Instance) -> str:
    seconds = max(0, int(time.time() - one.created))
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


COMMANDS: Sequence[click.Command] = (up, down, list_, status, resize, reap)
