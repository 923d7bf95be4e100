"""Commands for instances."""

from __future__ import annotations

import dataclasses
import functools
import os
import time
from collections.abc import Sequence
from typing import Any

import click

from executors.agent.wire import AgentInfo, NodeSummary
from executors.cli.common import (
    Duration,
    cluster_options,
    config_of,
    find,
    guarded,
    instance_argument,
    json_option,
    lifecycle_of,
    print_json,
    print_table,
    run_id_of,
    say,
    where_searched,
)
from executors.errors import ExecutorsError, ProvisionError
from executors.lifecycle import Lifecycle
from executors.lifecycle.reap import reap as reap_instances
from executors.names import run_name
from executors.provision import Instance
from executors.provision.inventory import instances
from executors.session import open_session


@click.command()
@click.option("--name", help="Name of the instance. Default: metadata.name of the config file, else its file name.")
@cluster_options
@json_option
@guarded
def up(name: str | None, as_json: bool, **options: Any) -> None:
    """Start an instance and print its name.

    If it runs already, only print its name. It goes on until `down` or its time-outs end it.
    """
    run_id = run_id_of(name, options["config_file"])
    session = open_session(run_id, config_of(options), report_progress=say)
    hello = session.hello
    try:
        session.wait_for_brokers()
    finally:
        session.leave()
    if as_json:
        version = hello.engine_version
        print_json({"name": hello.run, "instance": hello.instance, "engine": hello.engine, "version": version})
    else:
        click.echo(hello.run)


@click.command()
@functools.partial(instance_argument, required=False)
@click.option("--name", help="The name that you gave to `up`.")
@cluster_options
@json_option
@guarded
def down(instance: str | None, name: str | None, as_json: bool, **options: Any) -> None:
    """End an instance, and wait until it is gone.

    INSTANCE is a name that `list` shows. Or give the same --name or --config as to `up`.
    """
    if instance is not None and name is not None:
        raise click.UsageError("give INSTANCE or --name, not both")
    given = instance or run_name(run_id_of(name, options["config_file"]))
    config = config_of(options)
    found = find(config, given)
    lifecycle_of(config, found).end()
    if any((one.name, one.created) == (found.name, found.created) for one in instances(config, os.environ)):
        raise ProvisionError(f"{found.name} was told to end but still exists; try again")
    if as_json:
        print_json({"name": found.name, "ended": True})
    else:
        say(f"{found.name} is gone")


@click.command("list")
@cluster_options
@json_option
@guarded
def list_(as_json: bool, **options: Any) -> None:
    """List the instances on this machine, or in a namespace."""
    config = config_of(options)
    found = instances(config, os.environ)
    if as_json:
        print_json([dataclasses.asdict(one) for one in found])
        return
    rows = [(one.name, one.provisioner, one.namespace or "-", one.state, _running(one), _age(one)) for one in found]
    print_table(("NAME", "PROVISIONER", "NAMESPACE", "STATE", "RUNNING", "AGE"), rows)
    if not found:
        place = where_searched(config, found)
        say(f"no instances {place}" + ("; elsewhere: --provisioner direct|operator" if "machine" in place else ""))


@click.command()
@instance_argument
@cluster_options
@json_option
@guarded
def status(instance: str, as_json: bool, **options: Any) -> None:
    """Show an instance: state, agent and nodes. This does not keep it alive."""
    config = config_of(options)
    found = find(config, instance)
    info: dict[str, Any] = dataclasses.asdict(found)
    if found.state == "running":
        try:
            lifecycle = lifecycle_of(config, found)
            info["agent"], info["nodes"] = lifecycle.observe_nodes()
        except ExecutorsError as err:
            info["agent"] = {"error": str(err)}
        else:
            info["unconnected"] = _unconnected(lifecycle, info["nodes"])
    if as_json:
        print_json(info)
        return
    click.echo(f"{found.name}: {found.state}{': ' + found.reason if found.reason else ''}, age {_age(found)}")
    if "agent" in info:
        error = info["agent"].get("error")
        click.echo(f"agent: {_agent(info['agent']) if error is None else f'does not answer: {error}'}")
    if "nodes" in info:
        if not found.namespace and info["agent"]["uri"]:
            click.echo(f"FLUX_URI={info['agent']['uri']}")
        print_table(("RANK", "HOST", "CORES", "GPUS", "STATE"), [_node(node) for node in info["nodes"]])
    for line in info.get("unconnected", []):
        click.echo(line)


@click.command()
@instance_argument
@click.argument("size", type=click.IntRange(min=1))
@click.option(
    "--grace",
    type=Duration(),
    metavar="SECONDS",
    default=300.0,
    show_default=True,
    help="Time that jobs may still run on brokers that will be removed, or with a unit, like 5m.",
)
@cluster_options
@json_option
@guarded
def resize(instance: str, size: int, grace: float, as_json: bool, **options: Any) -> None:
    """Change the number of brokers (pods) of an instance.

    SIZE is at most the maxSize of the MiniCluster. New brokers may still be starting when the command ends; `status`
    shows them.
    """
    config = config_of(options)
    found = find(config, instance)
    lifecycle_of(config, found).resize(size, grace, say)
    if as_json:
        print_json({"name": found.name, "from": found.size, "to": size})
    else:
        say(f"{found.name}: {found.size} -> {size}")


@click.command()
@click.option("--dry-run", is_flag=True, help="Only print what would be ended.")
@cluster_options
@json_option
@guarded
def reap(dry_run: bool, as_json: bool, **options: Any) -> None:
    """End instances that nobody uses any more.

    They are over, do not answer, or had no client and no job for longer than run.orphanTimeout (seconds).
    """
    decided = []
    for one in reap_instances(config_of(options), os.environ, dry_run=dry_run):
        decided.append(one)
        if not as_json:
            what = ("would be ended" if dry_run else "ended") if one.ended else "left alone"
            click.echo(f"{one.instance.name}: {what}: {one.reason}")
    if as_json:
        print_json([{"name": one.instance.name, "ended": one.ended, "reason": one.reason} for one in decided])


def _unconnected(lifecycle: Lifecycle, nodes: list[NodeSummary]) -> list[str]:
    try:
        return lifecycle.unconnected(nodes)
    except ExecutorsError as err:  # the table says which are down
        return [f"why brokers are down is unknown: {err}"]


def _agent(info: AgentInfo) -> str:
    engine = f"Flux {info['engine_version']}" if info["engine"] == "flux" else "the embedded engine"
    limit = f"it ends after {info['idle_timeout']:g} s" if info["idle_timeout"] else "no idle time-out"
    return (
        f"{engine}, active jobs: {info['active']}, clients: {info['clients']}, "
        f"neither for {info['quiet']:.0f} s ({limit})"
    )


def _node(node: NodeSummary) -> tuple[Any, ...]:
    state = ("up" if node["up"] else "down") + (", drained" if node["drained"] else "")
    return node["rank"], node["host"], node["cores"], node["gpus"], state


def _running(one: Instance) -> str:
    return f"{one.running}/{one.size}" if one.namespace else "-"


def _age(one: Instance) -> str:
    seconds = max(0, int(time.time() - one.created))
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


COMMANDS: Sequence[click.Command] = (up, down, list_, status, resize, reap)
