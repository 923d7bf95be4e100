"""The command ``flux-operator``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from executors.command_group import CommandGroup
from executors.errors import ExecutorsError


@click.group("flux-operator", cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="flux-operator-executors")
def main() -> None:
    """The Flux Operator: runs the MiniClusters that you apply to Kubernetes."""


@main.command()
@click.option("--namespace", help="Manage the MiniClusters of this namespace only.")
@click.option("--restricted", is_flag=True, help="Make all pods pass the restricted Pod Security Standard.")
@click.option("--kubeconfig", type=click.Path(), help="kubeconfig file. Default: as kubectl.")
@click.option("--context", "context_name", help="Context in the kubeconfig. Default: the current one.")
@click.option("--health-port", type=click.IntRange(0, 65535), default=0, help="Port of /healthz and /readyz; 0: off.")
@click.option(
    "--metrics-port",
    type=click.IntRange(1, 65535),
    help="Port of /metrics (TLS). Kubernetes decides who may read it.",
)
@click.option("--metrics-tls", type=click.Path(path_type=Path), help="Directory with tls.crt and tls.key for /metrics.")
@click.option(
    "--log-format",
    type=click.Choice(["auto", "json", "text"]),
    default="auto",
    help="auto: text if on a terminal.",
)
@click.option("--debug", is_flag=True, help="Log more.")
def run(
    namespace: str | None,
    restricted: bool,
    kubeconfig: str | None,
    context_name: str | None,
    health_port: int,
    metrics_port: int | None,
    metrics_tls: Path | None,
    log_format: str,
    debug: bool,
) -> None:
    """Run the controller until SIGTERM or Ctrl-C."""
    from executors.controller.logs import set_up
    from executors.controller.loop import Options
    from executors.controller.running import Process
    from executors.kube import ClusterAccess, connect

    if (metrics_port is None) != (metrics_tls is None):
        raise click.UsageError(
            "--metrics-port needs --metrics-tls, because readers send tokens: give both options, or neither"
        )
    metrics = (metrics_port, metrics_tls) if metrics_port is not None and metrics_tls is not None else None
    set_up(as_json=log_format == "json" or (log_format == "auto" and not sys.stderr.isatty()), debug=debug)
    try:
        api = connect(ClusterAccess(kubeconfig, context_name))
        code = Process(api, Options(namespace, restricted), health_port, metrics).run()
    except ExecutorsError as err:
        raise click.ClickException(str(err)) from None
    # What is left are watches that wait for an answer.
    sys.stderr.flush()
    os._exit(code)


@main.command()
def crd() -> None:
    """Print the CRD, for kubectl apply --server-side."""
    import yaml

    from executors.controller.crd import crd as made

    click.echo(yaml.safe_dump(made(), sort_keys=False), nl=False)


@main.command()
@click.option("--namespace", help="Manage this namespace only. The CRD is then not printed (see `crd`).")
@click.option("--image", help="Image that contains this package.")
def manifests(namespace: str | None, image: str | None) -> None:
    """Print the objects to install: permissions, Deployment, CRD."""
    import yaml

    from executors.controller.manifests import IMAGE
    from executors.controller.manifests import manifests as made

    click.echo(yaml.safe_dump_all(made(namespace, image or IMAGE), sort_keys=False), nl=False)
