"""Snakemake resources to Flux's terms, and the choice of a step."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakemake_executor_flux.resources import (
    NodeShape,
    ResourceError,
    ignored,
    parse_constraint,
    parse_options,
    parse_resources,
)
from snakemake_executor_flux.steps.choice import JobTraits, choose_step

NODE = NodeShape(cores=8, memory=32 * 10**9)


def test_nothing_asked_is_one_core() -> None:
    ask = parse_resources(1, {}, NODE, use_memory=True)
    assert (ask.nodes, ask.slots, ask.cores_per_slot, ask.gpus_per_slot, ask.duration, ask.nested) == (
        None, 1, 1, 0, 0.0, False,
    )  # fmt: skip


@pytest.mark.parametrize(("mem_mb", "cores"), [(1, 1), (4000, 1), (4001, 2), (16000, 4), (32000, 8)])
def test_memory_is_its_share_of_cores(mem_mb: int, cores: int) -> None:
    assert parse_resources(1, {"mem_mb": mem_mb}, NODE, use_memory=True).cores == cores
    assert parse_resources(1, {"mem_mb": mem_mb}, NODE, use_memory=False).cores == 1


@given(st.integers(1, 8), st.integers(1, 32000))
def test_a_node_is_never_overcommitted(threads: int, mem_mb: int) -> None:
    ask = parse_resources(threads, {"mem_mb": mem_mb}, NODE, use_memory=True)
    assert ask.cores >= threads
    jobs_at_once = NODE.cores // ask.cores
    assert jobs_at_once * mem_mb * 1e6 <= NODE.memory  # type: ignore[operator]  # set above


def test_a_nested_instance_has_its_nodes_and_tasks() -> None:
    ask = parse_resources(
        1, {"nodes": 2, "tasks": 8, "cpus_per_task": 2, "mpi": "flux run", "gpus": 4}, NODE, use_memory=True
    )
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
    assert parse_constraint(text) == constraint


@pytest.mark.parametrize("text", ["a b", "hosts:", "where:x", "{", "a &", "a | b"])
def test_a_bad_constraint_is_an_error_that_shows_it(text: str) -> None:
    with pytest.raises(ResourceError, match="flux_constraint="):
        parse_constraint(text)


def test_options() -> None:
    assert parse_options("cpu-affinity=off, verbose, x.y=2") == {"cpu-affinity": "off", "verbose": 1, "x.y": 2}
    assert parse_options(None) == {}


def test_a_plain_shell_job_takes_the_shell_step_unless_told_otherwise() -> None:
    assert choose_step(JobTraits(), "auto").step == choose_step(JobTraits(), "shell").step == "shell"
    assert choose_step(JobTraits(), "snakemake").step == "snakemake"
    assert choose_step(JobTraits(), "warm").step == choose_step(JobTraits(group=True), "auto").step == "warm"


_KINDS = ["shell", "script", "wrapper", "run", "notebook", "cwl"]
_FACTS = st.builds(
    JobTraits,
    kind=st.sampled_from(_KINDS),
    **{name: st.booleans() for name in JobTraits.__dataclass_fields__ if name != "kind"},
)


@given(_FACTS, st.sampled_from(["auto", "shell", "script", "warm", "snakemake"]), st.sampled_from(["", "it is away"]))
def test_whatever_speaks_against_a_faster_step_decides_and_is_named(
    facts: JobTraits, setting: str, no_server: str
) -> None:
    choice = choose_step(facts, setting, no_server)
    whole = any(getattr(facts, name) for name in JobTraits.__dataclass_fields__ if name not in ("no_package", "kind"))
    shell = not whole and facts.kind == "shell" and setting in ("auto", "shell")
    script = not whole and (facts.kind == "shell" or (facts.kind in ("script", "wrapper") and not facts.no_package))
    slower = "snakemake" if no_server or setting == "snakemake" else "warm"
    expected = "shell" if shell else "script" if script and setting not in ("warm", "snakemake") else slower
    assert choice.step == expected
    steps = ["shell", "script", "warm", "snakemake"]
    faster = steps[: steps.index(choice.step)]
    assert list(choice.against) == faster and all(choice.against.values())
    assert all(f"not {step}: " in choice.why for step in faster)


def test_a_reason_that_holds_for_both_steps_is_said_once() -> None:
    assert choose_step(JobTraits(group=True), "auto").why == ", not shell: it is a group of jobs; not script: likewise"
    assert choose_step(JobTraits(kind="script"), "auto").why == ", not shell: its rule is a script rule"


@pytest.mark.parametrize(
    ("gres", "gpus"),
    [("gpu:2", 2), ("gpu", 1), ("gpu:a100:3", 3), ("gres/gpu:1", 1), ("gpu:a100", 1), (None, 0), ("", 0)],
)
def test_gres_is_gpus(gres: str | None, gpus: int) -> None:
    assert parse_resources(1, {"gres": gres}, NODE, use_memory=True).gpus_per_slot == gpus


@pytest.mark.parametrize("gres", ["fpga:1", "gpu:a:b:c", "gpu:a100:many", "1"])
def test_a_gres_that_is_no_gpu_is_an_error_that_shows_it(gres: str) -> None:
    with pytest.raises(ResourceError, match="gres="):
        parse_resources(1, {"gres": gres}, NODE, use_memory=True)


def test_memory_per_core_counts_for_each_core() -> None:
    assert parse_resources(2, {"mem_mb_per_cpu": 8000}, NODE, use_memory=True).cores == 4
    assert parse_resources(2, {"mem_mb_per_cpu": 8000}, NODE, use_memory=False).cores == 2
    with pytest.raises(ResourceError, match="mem_mb_per_cpu=20000: the largest node has 32000 MB for each of 2 cores"):
        parse_resources(2, {"mem_mb_per_cpu": 20000}, NODE, use_memory=True)


def test_what_only_other_executors_know_is_named_with_what_to_write_instead() -> None:
    found = ignored({"slurm_account": "me", "constraint": "gpu", "flux_que": "x", "mem_mb": 1, "mine": 3, "qos": ""})
    assert found == {
        "slurm_account": "--flux-operator-bank",
        "constraint": "flux_constraint",
        "flux_que": "flux_queue, flux_urgency, flux_constraint, flux_options",
    }
