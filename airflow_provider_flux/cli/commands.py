"""What ``airflow flux`` offers. Read by every ``airflow`` command; what the commands do is imported when they run."""

from __future__ import annotations

from typing import Any


def get_commands() -> list[Any]:
    """For the key ``cli`` of the provider info."""
    from airflow.cli.cli_config import ActionCommand, Arg, GroupCommand, lazy_load_command

    conn_id = Arg(("--conn-id",), help="Connection of type flux (default: flux_default)", default="flux_default")
    everything = Arg(
        ("--all",), help="Also what is not of this Airflow (see [flux] deployment_id)", action="store_true"
    )  # fmt: skip
    as_json = Arg(("--json",), help="Print JSON", action="store_true")
    dry_run = Arg(("--dry-run",), help="Say what would be ended, and end nothing", action="store_true")
    return [
        GroupCommand(
            name="flux",
            help="MiniClusters of DAG runs",
            subcommands=[
                ActionCommand(
                    name="list",
                    help="List the MiniClusters that DAG runs have",
                    func=lazy_load_command("airflow_provider_flux.cli.actions.list_instances"),
                    args=(conn_id, everything, as_json),
                ),
                ActionCommand(
                    name="reap",
                    help="End those that nobody uses any more",
                    description="Ends MiniClusters whose agent does not answer, that did not start, or that had "
                    "neither client nor job for longer than run.orphanTimeout. Safe at any time, for instance hourly.",
                    func=lazy_load_command("airflow_provider_flux.cli.actions.reap_instances"),
                    args=(conn_id, everything, dry_run, as_json),
                ),
            ],
        )
    ]
