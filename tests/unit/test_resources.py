"""Snakemake resources to Flux's terms, and the choice of a step."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakemake_executor_flux.resources import NodeShape, ResourceError, ask_of, constraint_of, options_of
from snakemake_executor_flux.steps.choice import Facts, choose

NODE = NodeShape(cores=8, memory=32 * 10**9)


def test_nothing_asked_is_one_core() -> None:
    ask = ask_of(1, {}, NODE, use_memory=True)
    assert (ask.nodes, ask.slots, ask.cores_per_slot, ask.gpus_per_slot, ask.duration, ask.nested) == (
        None, 1, 1, 0, 0.0, False,
    )  # fmt: skip


@pytest.mark.parametrize(("mem_mb", "cores"), [(1, 1), (4000, 1), (4001, 2), (16000, 4), (32000, 8)])
def test_memory_is_its_share_of_cores(mem_mb: int, cores: int) -> None:
    assert ask_of(1, {"mem_mb": mem_mb}, NODE, use_memory=True).cores == cores
    assert ask_of(1, {"mem_mb": mem_mb}, NODE, use_memory=False).cores == 1


@given(st.integers(1, 8), st.integers(1, 32000))
def test_a_node_is_never_overcommitted(threads: int, mem_mb: int) -> None:
    ask = ask_of(threads, {"mem_mb": mem_mb}, NODE, use_memory=True)
    assert ask.cores >= threads
    jobs_at_once = NODE.cores // ask.cores
    assert jobs_at_once * mem_mb * 1e6 <= NODE.memory  # type: ignore[operator]  # set above


def test_a_nested_instance_has_its_nodes_and_tasks() -> None:
    ask = ask_of(1, {"nodes": 2, "tasks": 8, "cpus_per_task": 2, "mpi": "flux run", "gpus": 4}, NODE, use_memory=True)
    assert (ask.nodes, ask.slots, ask.cores_per_slot, ask.gpus_per_slot, ask.nested) == (2, 8, 2, 1, True)


@pytest.mark.parametrize(
    ("text", "constraint"),
    [
        (None, None),
        ("", None),
        ("gpu", {"properties": ["gpu"]}),
        ("not gpu", {"not": [{"properties": ["gpu"]}]}),
        ("hosts:node[1-3] & fast", {"and": [{"hostlist": ["node[1-3]"]}, {"properties": ["fast"]}]}),
        ("rank:0", {"ranks": ["0"]}),
        ('{"ranks": ["0-1"]}', {"ranks": ["0-1"]}),
    ],
)
def test_constraints(text: str | None, constraint: Any) -> None:
    assert constraint_of(text) == constraint


@pytest.mark.parametrize("text", ["a b", "hosts:", "where:x", "{", "a &", "a | b"])
def test_a_bad_constraint_is_an_error_that_shows_it(text: str) -> None:
    with pytest.raises(ResourceError, match="flux_constraint="):
        constraint_of(text)


def test_options() -> None:
    assert options_of("cpu-affinity=off, verbose, x.y=2") == {"cpu-affinity": "off", "verbose": 1, "x.y": 2}
    assert options_of(None) == {}


def test_a_plain_shell_job_takes_the_shell_step_unless_told_otherwise() -> None:
    assert choose(Facts(), "auto").step == choose(Facts(), "shell").step == "shell"
    assert choose(Facts(), "snakemake").step == "snakemake"


@given(st.builds(Facts), st.sampled_from(["auto", "shell", "snakemake"]))
def test_whatever_speaks_against_the_shell_step_decides_and_is_named(facts: Facts, setting: str) -> None:
    choice = choose(facts, setting)
    against = not facts.plain or any(
        getattr(facts, name) for name in Facts.__dataclass_fields__ if name not in ("plain", "kind")
    )
    assert (choice.step == "shell") == (not against and setting != "snakemake")
    assert bool(choice.reasons) == (choice.step != "shell")
