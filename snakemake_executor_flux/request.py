"""What a job asks of Flux, as a `JobRequest`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from executors import JobRequest
from snakemake_executor_flux.instance import CORES, INSIDE
from snakemake_executor_flux.places import RemotePaths
from snakemake_executor_flux.resources import RequestedResources, ResourceError
from snakemake_executor_flux.steps.base import StepCommand, changed_since


@dataclass(frozen=True)
class Target:
    """Where jobs run, as their requests need it."""

    engine: str
    run_id: str
    cwd: str
    places: RemotePaths
    #: The environment that jobs inherit; None: they run elsewhere, and inherit none.
    inherited: Mapping[str, str] | None


def make_request(
    job: Any, ask: RequestedResources, command: StepCommand, *, key: str, digest: str, log: Path, target: Target
) -> JobRequest:
    """Raises ResourceError for what the engine does not have."""
    secrets = {name: value for name, value in command.secret_env.items() if name not in command.env}
    attributes = {f"system.shell.options.{name}": value for name, value in ask.shell_options.items()}
    argv = command.argv
    if ask.nested and target.engine != "flux" and str(job.resources.get("mpi", "")).startswith("flux"):
        raise ResourceError(
            f"mpi={job.resources.get('mpi')!r}: the embedded engine has no Flux to start tasks with; install Flux, "
            'or give mpi="mpirun"'
        )
    since = changed_since(target.inherited) if target.inherited is not None else {}
    for name in secrets:
        since.pop(name, None)
    env: dict[str, str | None] = {**since, **command.env, INSIDE: target.run_id, CORES: str(ask.cores)}
    if ask.nested and target.engine == "flux":
        # One broker per node of the job, with all that the job holds there; as `flux batch` does.
        argv = ["flux", "start", *argv]
        attributes.update(
            {
                "system.shell.options.per-resource": {"type": "node"},
                "system.shell.options.mpi": "none",
                "system.shell.options.exit-timeout": "none",
            }
        )
        env[INSIDE] = env[CORES] = None  # what is attached to there has its cores to itself
    # Without shared files, the log comes by the stream when the job has ended.
    output = str(log) if target.places.files else None
    return JobRequest(
        argv=target.places.argv(argv),
        name=job.name,
        key=key,
        identity=digest,
        cwd=(command.cwd or target.cwd) if target.places.files else None,
        env=env,
        secret_env=secrets,
        nodes=ask.nodes,
        tasks=ask.slots,
        cores_per_task=ask.cores_per_slot,
        gpus_per_task=ask.gpus_per_slot or None,
        duration=ask.duration or None,
        queue=ask.queue,
        urgency=ask.urgency,
        constraint=ask.constraint,
        stdout=output,
        stderr=output,
        attributes=attributes,
        measure=not ask.nested,
    )
