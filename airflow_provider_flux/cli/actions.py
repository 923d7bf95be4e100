"""What ``airflow flux list`` and ``reap`` do."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from typing import Any

from airflow_provider_flux.hooks.flux import FluxHook
from airflow_provider_flux.names import deployment_id


def _clearly(action: Callable[[Any], None]) -> Callable[[Any], None]:
    """One line for errors that the user can fix."""

    def run(args: Any) -> None:
        from airflow.providers.common.compat.sdk import AirflowNotFoundException

        from executors import ExecutorsError

        try:
            action(args)
        except (ExecutorsError, AirflowNotFoundException) as err:
            raise SystemExit(f"airflow flux: {err}") from None

    return run


@_clearly
def list_instances(args: Any) -> None:
    from executors.instances import instances

    hook = FluxHook(args.conn_id)
    found = [one for one in instances(hook.run_config(), hook.environment()) if args.all or _ours(one.name)]
    if args.json:
        print(json.dumps([dataclasses.asdict(one) for one in found], indent=2))
        return
    for one in found:
        place = f"{one.namespace}/" if one.namespace else ""
        print(f"{place}{one.name}\t{one.provisioner}\t{one.state}{f': {one.reason}' if one.reason else ''}")
    if not found:
        print(f"no MiniClusters of this Airflow (deployment {deployment_id()})", file=sys.stderr)


@_clearly
def reap_instances(args: Any) -> None:
    from executors.instances import reap

    hook = FluxHook(args.conn_id)
    wanted = (lambda _name: True) if args.all else _ours
    decided = list(reap(hook.run_config(), hook.environment(), dry_run=args.dry_run, wanted=wanted))
    if args.json:
        print(
            json.dumps(
                [{"name": one.instance.name, "ended": one.ended, "reason": one.reason} for one in decided], indent=2
            )
        )
        return
    for one in decided:
        done = ("would be ended" if args.dry_run else "ended") if one.ended else "left"
        print(f"{one.instance.name}\t{done}: {one.reason}")


def _ours(name: str) -> bool:
    return name.startswith(f"airflow-{deployment_id()}-")
