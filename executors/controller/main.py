"""The command ``flux-operator``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from executors.errors import ExecutorsError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="flux-operator-executors")
def main() -> None:
    """The Flux Operator: makes MiniClusters of MiniCluster resources."""


@main.command()
@click.option("--namespace", help="Look after the MiniClusters of this namespace only.")
@click.option("--restricted", is_flag=True, help="Have all pods pass the restricted pod security standard.")
@click.option("--kubeconfig", type=click.Path(), help="Default: as kubectl; in a pod its service account.")
@click.option("--context", "context_name", help="A context of the kubeconfig.")
@click.option("--health-port", type=click.IntRange(0, 65535), default=0, help="Serve /healthz and /readyz (0: do not).")
@click.option("--metrics-port", type=click.IntRange(1, 65535), help="Serve /metrics, to whom the API server allows it.")
@click.option("--metrics-tls", type=click.Path(path_type=Path), help="A directory with tls.crt and tls.key, for that.")
@click.option(
    "--log-format", type=click.Choice(["auto", "json", "text"]), default="auto", help="auto: text on a terminal."
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
    """Run the controller, until it is told to end (SIGTERM, Ctrl-C)."""
    from executors.controller.logs import set_up
    from executors.controller.loop import Options
    from executors.controller.running import Process
    from executors.kube import ClusterAccess, connect

    if (metrics_port is None) != (metrics_tls is None):
        raise click.UsageError(
            "--metrics-port and --metrics-tls belong together: readers show tokens; give both, or none"
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
    """Print the CustomResourceDefinition, for kubectl apply --server-side."""
    import yaml

    from executors.controller.crd import crd as made

    click.echo(yaml.safe_dump(made(), sort_keys=False), nl=False)


@main.command()
@click.option("--namespace", help="For one namespace, without rights beyond it; its CRD is printed by `crd`.")
@click.option("--image", help="The image that holds this package.")
def manifests(namespace: str | None, image: str | None) -> None:
    """Print what is installed: rights, the Deployment, and for the whole cluster the CRD."""
    import yaml

    from executors.controller.manifests import IMAGE
    from executors.controller.manifests import manifests as made

    click.echo(yaml.safe_dump_all(made(namespace, image or IMAGE), sort_keys=False), nl=False)
