"""The command group and its entry point."""

from __future__ import annotations

import importlib.metadata

import click

from executors.cli import clusters, doctor, files, jobs


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(importlib.metadata.version("flux-operator-executors"))
def main() -> None:
    """MiniClusters for workflow runs: Flux instances on Kubernetes or on this machine, and the jobs in them."""


for command in (*clusters.COMMANDS, *jobs.COMMANDS, *files.COMMANDS, *doctor.COMMANDS):
    main.add_command(command)
