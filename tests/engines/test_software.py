"""Conda, Apptainer and environment modules around a command: the same under our shell step as under Snakemake alone.

The tools are stand-ins that tell what they were asked for: what is tested is the text that Snakemake puts around a
rule's command, and everything that belongs to it (variables that are removed, working directory, quotes).
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.engines.conftest import Run, run_snakemake

SNAKEFILE = r"""
envvars: "A_SECRET"
rule all:
    input: "conda.out", "image.out", "modules.out", "both.out"
rule conda:
    output: "conda.out"
    conda: "env"
    shell: "echo \"env=$CONDA_PREFIX it's ${{PYTHONPATH-unset}} ${{R_LIBS-unset}} $OMP_NUM_THREADS\" > {output}"
rule image:
    output: "image.out"
    container: "image.sif"
    benchmark: "image.bench"
    shell: "echo \"image=$INSIDE it's a 'quote' $PWD ${{CONDA_PREFIX-unset}}\" > {output}"
rule modules:
    output: "modules.out"
    envmodules: "gcc/12", "openmpi"
    shell: "echo \"modules=$LOADED\" > {output}"
rule both:
    output: "both.out"
    conda: "env"
    container: "image.sif"
    shell: "echo \"both=$CONDA_PREFIX $INSIDE\" > {output}"
"""

CONDA = """#!/bin/sh
case "$*" in
  "info --json") echo '{"conda_prefix": "@", "platform": "linux-64"}';;
  "--version") echo "conda 24.7.1";;
  "config --get channel_priority --json") echo '{"get": {"channel_priority": "strict"}}';;
  "env export"*) echo "name: env";;
  *) echo "conda stand-in: unexpected: $*" >&2; exit 1;;
esac
"""
ACTIVATE = 'export CONDA_PREFIX="$1"\n'
APPTAINER = """#!/bin/bash
[ "$1" = --version ] && { echo "apptainer version 1.3.0"; exit; }
echo "$@" >> "$ASKED"
while [ "$1" != exec ]; do shift; done
shift
while [ "${1#--}" != "$1" ]; do shift 2; done
export INSIDE="$(basename "$1")"; shift
exec "$@"
"""
MODULE = '() {  if [ "$1" = load ]; then shift; export LOADED="$*"; else unset LOADED; fi\n}'


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tools")
    for name, text in (
        ("conda", CONDA.replace("@", str(root))),
        ("activate", ACTIVATE),
        ("apptainer", APPTAINER),
    ):
        (root / "bin").mkdir(exist_ok=True)
        (root / "bin" / name).write_text(text)
        (root / "bin" / name).chmod(0o755)
    return root


def run(tools: Path, directory: Path, *arguments: str, engine: str, executor: str = "flux-operator") -> Run:
    directory.mkdir()
    (directory / "env" / "conda-meta").mkdir(parents=True)
    (directory / "image.sif").write_text("")
    env = {
        "PATH": f"{tools / 'bin'}:{os.environ['PATH']}",
        "ASKED": str(directory / "asked"),
        "PYTHONPATH": "/nowhere",
        "R_LIBS": "/nowhere",
        "BASH_FUNC_module%%": MODULE,
        "A_SECRET": "sesame",
    }
    return run_snakemake(
        directory, SNAKEFILE, "--sdm", "conda", "apptainer", "env-modules", *arguments,
        engine=engine, executor=executor, **env,
    )  # fmt: skip


OUTPUTS = ("conda.out", "image.out", "modules.out", "both.out")


@pytest.fixture(scope="module")
def expected(tools: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    alone = run(tools, tmp_path_factory.mktemp("alone") / "w", "--cores", "2", engine="embedded", executor="local")
    assert alone.returncode == 0, alone.output
    return {name: alone.read(name).replace(str(alone.directory), "@") for name in OUTPUTS}


def test_the_stand_ins_are_used(expected: dict[str, str]) -> None:
    # Else equal answers would prove nothing.
    assert expected["conda.out"] == "env=env it's unset unset 1\n"
    assert expected["image.out"].startswith("image=image.sif it's a 'quote' @")
    assert expected["modules.out"] == "modules=gcc/12 openmpi\n"


@pytest.mark.parametrize("step", ["shell", "script", "warm", "snakemake"])
def test_software_is_activated_as_snakemake_does(
    engine: str, step: str, tools: Path, tmp_path: Path, expected: dict[str, str]
) -> None:
    ours = run(tools, tmp_path / "w", "--flux-operator-job-step", step, engine=engine)
    assert ours.returncode == 0, ours.output
    assert {name: ours.read(name).replace(str(ours.directory), "@") for name in OUTPUTS} == expected
    taken = {row["rule"]: row["step"] for row in ours.efficiency()}
    assert taken == dict.fromkeys(("conda", "image", "modules", "both"), step)
    assert len(ours.read("image.bench").splitlines()) == 2


def test_a_missing_tool_is_said_once_and_clearly(engine: str, tmp_path: Path) -> None:
    ours = run_snakemake(tmp_path, SNAKEFILE, "--sdm", "apptainer", engine=engine, A_SECRET="x")
    assert ours.returncode == 1
    assert "apptainer or singularity command has to be available" in ours.output
