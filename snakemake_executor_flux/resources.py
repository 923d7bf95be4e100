"""Snakemake resources -> what a Flux job asks for. Pure; docs/snakemake.md has the same as a table.

=================  ==========================================================================================
threads            cores of the job (per task where ``tasks`` is given and ``cpus_per_task`` is not)
nodes              nodes of the job
tasks              tasks that the rule's command starts itself (with ``mpi``, or by ``flux run -n``)
cpus_per_task      cores per task
gpu, gpus          GPUs of the job
gres               ``gpu:N`` or ``gpu:MODEL:N``, as for Slurm: GPUs
mem_mb             cores, by the share of a node's memory (see ``memory_cores``)
mem_mb_per_cpu     the same, for each core that threads, tasks and cpus_per_task ask for
runtime            time limit; Snakemake counts minutes, Flux seconds
mpi                the rule's command runs inside a nested Flux instance over the job's nodes
flux_queue         queue
flux_urgency       urgency, 0..31
flux_constraint    RFC 31 constraint: JSON, or terms joined by ``&`` (``gpu & hosts:node[1-3] & not debug``)
flux_options       Flux shell options as ``name=value, name``, as in ``flux submit -o``
=================  ==========================================================================================
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: Resources of other executors that have no effect here, and what to write instead.
FOREIGN: Mapping[str, str] = {
    name: instead
    for instead, names in {
        "flux_queue, or --flux-operator-queue": "slurm_partition partition lsf_queue pbs_queue sge_queue",
        "--flux-operator-bank": "slurm_account account lsf_project",
        "flux_constraint": (
            "constraint slurm_constraint gpu_model gpu_manufacturer machine_type nodelist slurm_nodelist exclude"
        ),
        "flux_options, flux_queue, flux_constraint": "slurm_extra lsf_extra pbs_extra sge_extra",
        "flux_urgency, or flux_queue": "qos slurm_qos slurm_priority",
        "retries, or --retries": "slurm_requeue requeue",
        "tasks": "ntasks slurm_ntasks ntasks_per_node tasks_per_node tasks_per_gpu ntasks_per_gpu",
        "cpus_per_task": "cpus_per_gpu slurm_cpus_per_task",
        "mem_mb, or mem_mb_per_cpu": "mem_mb_per_gpu mem_per_gpu mem_per_cpu",
        "runtime": "walltime time_min slurm_time",
        "--flux-operator-config": "clusters reservation slurm_reservation",
    }.items()
    for name in names.split()
}
_OURS = ("flux_queue", "flux_urgency", "flux_constraint", "flux_options")


class ResourceError(ValueError):
    """A resource that cannot be understood: names the resource, its value and the cure."""


@dataclass(frozen=True)
class NodeShape:
    """The largest node that a job can get. ``memory`` in bytes, None where it is not known."""

    cores: int
    memory: int | None


@dataclass(frozen=True)
class RequestedResources:
    """What a job asks for, in Flux's terms. ``duration`` in seconds, 0: no limit of its own."""

    nodes: int | None
    #: Slots (tasks) of the allocation; the rule's command itself is started once.
    slots: int
    cores_per_slot: int
    gpus_per_slot: int
    duration: float
    #: The command runs as the initial program of a nested instance over these nodes.
    nested: bool
    queue: str | None = None
    urgency: int | None = None
    constraint: Mapping[str, Any] | None = None
    shell_options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def cores(self) -> int:
        return self.slots * self.cores_per_slot


def parse_resources(
    threads: int, resources: Mapping[str, Any], shape: NodeShape, *, use_memory: bool
) -> RequestedResources:
    """Translate. Raises ResourceError."""
    nodes = _count(resources, "nodes", 1)
    tasks = _count(resources, "tasks", 1)
    cpus = _count(resources, "cpus_per_task", 1)
    gpus = max(_count(resources, "gpu", 0) or 0, _count(resources, "gpus", 0) or 0, parse_gpus(resources.get("gres")))
    mpi = resources.get("mpi")
    nested = bool(mpi) or (nodes or 1) > 1
    slots = tasks or nodes or 1
    if nodes is not None and slots < nodes:
        raise ResourceError(f"nodes={nodes} with tasks={slots}: at least one task per node is needed; raise tasks")
    cores = cpus if cpus is not None else (math.ceil(max(1, threads) / slots) if tasks is None else max(1, threads))
    if use_memory:
        needed = [memory_cores("mem_mb", resources.get("mem_mb"), shape, nodes or 1)]
        per_cpu = _count(resources, "mem_mb_per_cpu", 0)
        if per_cpu:
            needed.append(memory_cores("mem_mb_per_cpu", per_cpu, shape, nodes or 1, times=slots * cores))
        cores = max(cores, math.ceil(max(needed) / slots))
    if not nested:
        # One process gets it all: its cores must lie on one node, which one slot says.
        slots, cores = 1, slots * cores
    return RequestedResources(
        nodes=(nodes or 1) if nested else nodes,
        slots=slots,
        cores_per_slot=cores,
        gpus_per_slot=math.ceil(gpus / slots),
        duration=60.0 * _number(resources, "runtime"),
        nested=nested,
        queue=_text(resources, "flux_queue"),
        urgency=_urgency(resources),
        constraint=parse_constraint(resources.get("flux_constraint")),
        shell_options=parse_options(resources.get("flux_options")),
    )


def memory_cores(name: str, value: object, shape: NodeShape, nodes: int, times: int = 1) -> int:
    """Cores that stand for a size in 10^6 bytes, ``times`` so much for the whole job: its share of a node's memory,
    rounded up. Raises ResourceError when no node has that much."""
    if value is None or isinstance(value, str) or shape.memory is None:
        return 0  # a string is Snakemake's "to be determined"
    needed = float(value) * times * 1e6 / nodes  # type: ignore[arg-type]  # Snakemake's sizes are numbers by now
    if needed > shape.memory:
        cores = f" for each of {times} cores" if times > 1 else ""
        raise ResourceError(
            f"{name}={value}: the largest node has {shape.memory // 10**6} MB{cores}; lower {name} (--set-resources, "
            "or --default-resources where the rule does not set it), or use --flux-operator-memory ignore"
        )
    return nodes * min(shape.cores, math.ceil(needed / (shape.memory / shape.cores)))


def parse_gpus(gres: object) -> int:
    """GPUs of Slurm's ``gres``: ``gpu``, ``gpu:2``, ``gpu:MODEL:2``. Raises ResourceError."""
    if gres is None or gres == "":
        return 0
    total = 0
    for part in str(gres).split(","):
        name, *rest = part.strip().removeprefix("gres/").split(":")
        count = rest[-1] if rest and rest[-1].isdigit() else "1"
        if name != "gpu" or len(rest) > 2 or (len(rest) == 2 and not rest[-1].isdigit()):
            raise ResourceError(
                f'gres={gres!r}: {part.strip()!r} is not "gpu:N"; write gpu=N, and flux_constraint for a model'
            )
        total += int(count)
    return total


def ignored(resources: Mapping[str, Any]) -> dict[str, str]:
    """Resources that mean something to other executors and nothing here -> what to write instead."""
    found = {name: FOREIGN[name] for name, value in resources.items() if name in FOREIGN and value not in (None, "")}
    for name in resources.keys():  # noqa: SIM118  # Snakemake's class, whose iterator gives values
        if name.startswith("flux_") and name not in _OURS:
            found[name] = ", ".join(_OURS)
    model = str(resources.get("gres") or "").split(":")
    if len(model) == 3:
        found["the model in gres"] = FOREIGN["gpu_model"]
    return found


def parse_constraint(value: object) -> Mapping[str, Any] | None:
    """An RFC 31 constraint object from JSON or from terms joined by ``&``. Raises ResourceError."""
    if value is None or value == "":
        return None
    text = str(value).strip()
    if text.startswith("{"):
        try:
            constraint = json.loads(text)
        except ValueError as err:
            raise ResourceError(f"flux_constraint={text!r} is not JSON: {err}") from None
        return dict(constraint)
    terms = [_term(part.strip(), text) for part in text.split("&")]
    return terms[0] if len(terms) == 1 else {"and": terms}


def _term(part: str, whole: str) -> dict[str, Any]:
    if part.startswith("not "):
        return {"not": [_term(part[4:].strip(), whole)]}
    operator, colon, operand = part.partition(":")
    if not part or (colon and not operand) or any(char in part for char in " |()"):
        raise ResourceError(
            f"flux_constraint={whole!r}: {part!r} is not a term; write a property, hosts:LIST or ranks:IDS, with 'not' "
            "before it to negate it and '&' between terms, or an RFC 31 object as JSON"
        )
    if not colon:
        return {"properties": [part]}
    names = {"hosts": "hostlist", "host": "hostlist", "hostlist": "hostlist", "rank": "ranks", "ranks": "ranks"}
    if operator not in names:
        raise ResourceError(f"flux_constraint={whole!r}: {operator!r} is not known; write hosts: or ranks:")
    return {names[operator]: [operand]}


def parse_options(value: object) -> Mapping[str, Any]:
    """``name=value, name`` -> {name: value or 1}; values that look like JSON are JSON. Raises ResourceError."""
    options: dict[str, Any] = {}
    for part in str(value or "").split(","):
        name, equals, text = (piece.strip() for piece in part.partition("="))
        if not name and not equals:
            continue
        if not name or any(not piece.isidentifier() for piece in name.replace("-", "_").split(".")):
            raise ResourceError(f"flux_options={value!r}: {part.strip()!r} is not name or name=value")
        try:
            options[name] = json.loads(text) if equals else 1
        except ValueError:
            options[name] = text
    return options


def _count(resources: Mapping[str, Any], name: str, low: int) -> int | None:
    value = resources.get(name)
    if value is None:
        return None
    if isinstance(value, str) and value.isdigit():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise ResourceError(f"{name}={value!r} is not a whole number >= {low}")
    return value


def _number(resources: Mapping[str, Any], name: str) -> float:
    value = resources.get(name)
    if value is None:
        return 0.0
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number) or number < 0:
        raise ResourceError(f"{name}={value!r} is not a number of minutes >= 0")
    return number


def _text(resources: Mapping[str, Any], name: str) -> str | None:
    value = resources.get(name)
    return str(value) if value else None


def _urgency(resources: Mapping[str, Any]) -> int | None:
    urgency = _count(resources, "flux_urgency", 0)
    if urgency is not None and urgency > 31:
        raise ResourceError(f"flux_urgency={urgency} is not a whole number from 0 to 31")
    return urgency
