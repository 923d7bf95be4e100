"""What ``airflow flux`` offers. Read by every ``airflow`` command; what the commands do is imported when they run."""

from __future__ import annotations

from typing import Any


def get_commands() -> list[Any]:
    """For the key ``cli`` of the provider info."""
    from airflow.cli.cli_config import ActionCommand, Arg, GroupCommand, lazy_load_command

    conn_id = Arg(("--conn-id",), help="Connection of type flux (default: flux_default)", default="flux_default")
    everything = Arg(
        ("--all",), help="Include MiniClusters of other deployment_ids", action="store_true"
    )  # fmt: skip
    as_json = Arg(("--json",), help="Print JSON", action="store_true")
    dry_run = Arg(("--dry-run",), help="Only print what would be ended", action="store_true")
    return [
        GroupCommand(
            name="flux",
            help="MiniClusters of DAG runs",
            subcommands=[
                ActionCommand(
                    name="list",
                    help="List the MiniClusters of DAG runs",
                    func=lazy_load_command("airflow_provider_flux.cli.actions.list_instances"),
                    args=(conn_id, everything, as_json),
                ),
                ActionCommand(
                    name="reap",
                    help="End MiniClusters that nobody uses any more",
                    description="End MiniClusters that did not start, whose agent does not answer, or that had no "
                    "client and no job for longer than run.orphanTimeout. You can run this at any time, e.g. hourly.",
                    func=lazy_load_command("airflow_provider_flux.cli.actions.reap_instances"),
                    args=(conn_id, everything, dry_run, as_json),
                ),
            ],
        )
    ]
