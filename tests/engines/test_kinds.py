"""Kinds of rules and jobs that other remote executors run: what they make, and which step they take."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engines.conftest import Snakemake

SNAKEFILE = r"""
localrules: here

rule all:
    input: "parts.txt", "piped.txt", "served.txt", "here.txt", "run.txt", "shadowed.txt", "handed.txt", "g.txt"

checkpoint split:
    output: directory("parts")
    shell: "mkdir {output}; for i in 1 2 3; do echo $i > {output}/$i.txt; done"
rule double:
    input: "parts/{i}.txt"
    output: "doubled/{i}.txt"
    shell: "echo $((2 * $(cat {input}))) > {output}"
def doubled(wildcards):
    parts = checkpoints.split.get().output[0]
    return expand("doubled/{i}.txt", i=sorted(glob_wildcards(parts + "/{i}.txt").i))
rule gather:
    input: doubled
    output: "parts.txt"
    shell: "cat {input} > {output}"

rule feed:
    output: pipe("fed")
    shell: "seq 1 5 > {output}"
rule eat:
    input: "fed"
    output: "piped.txt"
    shell: "sort -r {input} > {output}"

rule serve:
    output: service("there.socket")
    shell: "trap 'exit 0' TERM; touch {output}; while :; do sleep 0.1; done"
rule ask:
    input: "there.socket"
    output: "served.txt"
    shell: "test -e {input}; echo served > {output}"

rule here:
    output: "here.txt"
    shell: "echo here > {output}"
rule run:
    output: "run.txt"
    run:
        with open(output[0], "w") as out:
            out.write("run\n")
rule shadowed:
    output: "shadowed.txt"
    shadow: "minimal"
    shell: "touch junk; echo shadowed > {output}"
rule handed:
    output: "handed.txt"
    handover: True
    shell: "echo handed > {output}"

rule first:
    output: temp("g.1")
    group: "g"
    shell: "echo one > {output}"
rule second:
    input: "g.1"
    output: "g.txt"
    group: "g"
    shell: "cat {input} > {output}; echo two >> {output}"
"""

MADE = {
    "parts.txt": "2\n4\n6\n",
    "piped.txt": "5\n4\n3\n2\n1\n",
    "served.txt": "served\n",
    "here.txt": "here\n",
    "run.txt": "run\n",
    "shadowed.txt": "shadowed\n",
    "handed.txt": "handed\n",
    "g.txt": "one\ntwo\n",
}


def test_all_kinds_of_rules_run(snakemake: Snakemake) -> None:
    run = snakemake(SNAKEFILE, "--verbose", "--cores", "2")  # handover needs a number of cores, as anywhere
    assert run.returncode == 0, run.output
    assert {name: run.read(name) for name in MADE} == MADE
    assert not (run.directory / "g.1").exists() and not (run.directory / "junk").exists()
    taken = {row["rule"]: row["step"] for row in run.efficiency()}
    assert not {"here", "handed"} & set(taken)  # local, both of them
    assert taken["split"] == taken["double"] == taken["gather"] == "shell"
    assert taken["run"] == taken["shadowed"] == "warm"
    for reason in ("is a run rule", "shadow directory", "a group of jobs"):
        assert reason in run.output


@pytest.mark.parametrize("executor", ["local", "flux-operator"])
def test_keep_going_and_without(snakemake: Snakemake, executor: str) -> None:
    text = """
rule all:
    input: "a", "b2"
rule a:
    output: "a"
    shell: "exit 1"
rule b1:
    output: "b1"
    shell: "touch {output}"
rule b2:
    input: "b1"
    output: "b2"
    shell: "touch {output}"
"""
    arguments = ["--cores", "2"] if executor == "local" else []
    run = snakemake(text, "--keep-going", *arguments, executor=executor)
    assert run.returncode == 1
    assert (run.directory / "b2").exists() and not (run.directory / "a").exists()


FORKED = """
import sys
def forked():
    return sys.modules["__main__"].__spec__.name
rule all:
    input: "alone", "second"
rule alone:
    output: "alone"
    run: open(output[0], "w").write(forked())
rule first:
    output: "first"
    group: "g"
    run: open(output[0], "w").write(forked())
rule second:
    input: "first"
    output: "second"
    group: "g"
    run: open(output[0], "w").write(forked())
"""


def test_run_rules_are_forks_of_a_warm_server_and_what_a_group_starts_in_turn_is_too(snakemake: Snakemake) -> None:
    run = snakemake(FORKED, "--flux-operator-job-step", "warm")
    assert run.returncode == 0, run.output
    assert [run.read(name) for name in ("alone", "first", "second")] == ["snakemake_executor_flux.warm.server"] * 3
    run = snakemake(FORKED, "--flux-operator-job-step", "snakemake", "--forceall")
    assert [run.read(name) for name in ("alone", "first", "second")] == ["snakemake_executor_flux.steps.nested"] * 3


def test_without_shared_files_a_job_is_forked_from_a_warm_server_too(snakemake: Snakemake, tmp_path: Path) -> None:
    """There the interpreter is called by its name only, which is the name of a function of the job's shell."""
    pytest.importorskip("snakemake_storage_plugin_fs")
    (tmp_path / "stored").mkdir()
    run = snakemake(
        'rule one:\n    output: "out.txt"\n    shell: "echo done > {output}"\n',
        *("--verbose", "--shared-fs-usage", "none"),
        *("--default-storage-provider", "fs", "--default-storage-prefix", str(tmp_path / "stored")),
    )
    assert run.returncode == 0, run.output
    assert "job 0 (one) takes the warm step" in run.output
    assert (tmp_path / "stored" / "out.txt").read_text() == "done\n"
