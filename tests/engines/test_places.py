"""Where jobs begin, what they import, what they are called: as with Snakemake's local executor, or as it would be if
its own command line lost nothing. On the embedded engine: all of it is decided before a job reaches an engine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.engines.conftest import LIMIT, Run, environment, run_snakemake

#: Names that Python, Snakemake, their libraries and this package import.
THEIRS = (
    "platform", "queue", "csv", "yaml", "random", "select", "zipfile", "tenacity", "zmq", "executors",
    "snakemake_executor_flux",
)  # fmt: skip

MODULE = """
rule first:
    output: "first_{a}.txt"
    group: "pair"
    run:
        open(output[0], "w").write(wildcards.a)
rule second:
    input: "first_{a}.txt"
    output: "second_{a}.txt"
    group: "pair"
    shell: "cat {input:q} > {output:q}"
"""

PLACES = r"""
import beside
configfile: "config.yaml"
workdir: "results"
module other:
    snakefile: "sub/other.smk"
rule all:
    input: "second_a,b 'c'.txt", "named.txt", "shadow,1.txt", "benched.txt", "script.txt", "plain.txt"
use rule * from other as other_*
rule:
    name: "it's a \"name\": with, $HOME"
    output: "named.txt"
    run:
        open(output[0], "w").write("|".join([config["greeting"], beside.VALUE, os.getcwd(), config["regex"]]))
rule shadowed:
    output: "shadow,{n}.txt"
    shadow: "minimal"
    shell: "echo {wildcards.n} > {output:q}"
rule benched:
    output: "benched.txt"
    benchmark: "benched.tsv"
    shell: "pwd > {output}"
rule scripted:
    output: "script.txt"
    script: "sub/script.py"
rule plain:
    output: "plain.txt"
    shell: "pwd > {output}"
"""


def test_jobs_begin_where_snakemake_began_and_import_what_it_imported(tmp_path: Path) -> None:
    for name in THEIRS:
        (tmp_path / f"{name}.py").write_text("raise SystemExit('not what was meant: ' + __name__)\n")
    (tmp_path / "beside.py").write_text("VALUE = 'beside'\n")
    (tmp_path / "config.yaml").write_text("greeting: hello\n")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "other.smk").write_text(MODULE)
    (tmp_path / "sub" / "script.py").write_text(
        "import os, platform\nopen(snakemake.output[0], 'w').write(os.getcwd() + platform.node()[:0])\n"
    )
    regex = r"""regex=\d+, "it's" $HOME"""
    (tmp_path / "Snakefile").write_text(PLACES)
    # As a user types it: `python -m snakemake` would import those files in the main process, too.
    program = str(Path(sys.executable).parent / "snakemake")
    done = subprocess.run(
        [program, "--executor", "flux-operator", "--jobs", "4", "--keep-going", "--config", regex],
        cwd=tmp_path, env=environment("embedded"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=LIMIT, check=False,
    )  # fmt: skip
    run = Run(tmp_path, done.returncode, done.stdout)
    assert run.returncode == 0, run.output
    results = tmp_path / "results"
    assert run.read("results/second_a,b 'c'.txt") == "a,b 'c'"
    assert run.read("results/named.txt") == f"hello|beside|{results}|{regex.removeprefix('regex=')}"
    assert run.read("results/shadow,1.txt") == "1\n"
    assert run.read("results/benched.txt") == run.read("results/plain.txt") == f"{results}\n"
    assert run.read("results/script.txt") == str(results)
    assert not (results / "results").exists()


def test_paths_of_options_do_not_move_with_the_directory(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "run.yaml").write_text(
        "apiVersion: flux-operator-executors/v1\nkind: FluxRun\njobDefaults: {duration: 60}\n"
    )
    text = """
rule all:
    input: "shell.txt", "run.txt"
rule one:
    output: "shell.txt"
    shell: "pwd > {output}; echo noise"
rule two:
    output: "run.txt"
    run: open(output[0], "w").write(os.getcwd())
"""
    run = run_snakemake(
        tmp_path, text, "--directory", "other", "--flux-operator-config", "run.yaml", "--flux-operator-logdir", "logs",
        "--verbose", engine="embedded",
    )  # fmt: skip
    assert run.returncode == 0, run.output
    assert run.read("other/shell.txt").strip() == run.read("other/run.txt") == str(tmp_path / "other")
    assert "jobDefaults.duration = 60.0 (file " in run.output
    assert list((tmp_path / "logs" / "one").iterdir()) and not (tmp_path / "other" / "logs").exists()


NOTHING = """
onstart:
    assert config.get("start") != "bad"
rule all:
    input: "local.txt", config.get("more", [])
localrules: here
rule here:
    output: "local.txt"
    shell: "touch {output}"
rule there:
    output: "there.txt"
    shell: "touch {output}"
"""


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ([], 0),  # local rules only
        (["local.txt"], 0),
        (["-n", "--config", "more=there.txt"], 0),
        (["--touch", "--config", "more=there.txt"], 0),
        (["--config", "more=there.txt", "start=bad"], 1),
    ],
    ids=["local", "nothing", "dry", "touch", "onstart"],
)
def test_what_needs_no_instance_makes_none(tmp_path: Path, arguments: list[str], code: int) -> None:
    if arguments:
        (tmp_path / "local.txt").touch()
    if "--touch" in arguments:
        (tmp_path / "there.txt").touch()
    run = run_snakemake(tmp_path, NOTHING, *arguments, engine="embedded")
    assert run.returncode == code, run.output
    assert "provisioner:" not in run.output
    assert not (tmp_path / ".snakemake" / "flux_operator_run.json").exists()
    assert not (tmp_path / ".snakemake" / "flux_operator_logs").exists()


FROM_PYTHON = """
from pathlib import Path
from snakemake.api import SnakemakeApi
from snakemake.settings.types import OutputSettings, ResourceSettings
with SnakemakeApi(OutputSettings()) as api:
    workflow = api.workflow(resource_settings=ResourceSettings(nodes=2), snakefile=Path("Snakefile"))
    workflow.dag().execute_workflow(executor="flux-operator")
"""


def test_python_needs_no_settings(tmp_path: Path) -> None:
    (tmp_path / "Snakefile").write_text('rule a:\n    output: "a"\n    shell: "touch {output}"\n')
    done = subprocess.run(
        [sys.executable, "-c", FROM_PYTHON], cwd=tmp_path, env=environment("embedded"), capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a").exists()


def test_the_help_shows_choices(tmp_path: Path) -> None:
    run = run_snakemake(tmp_path, "", "--help", engine="embedded")
    assert "--flux-operator-job-step {auto,shell,script,warm,snakemake}" in run.output


INSIDE = """
rule outer:
    output: "{n}.txt"
    shell: "SNAKEMAKE -s inner.smk --directory in_{wildcards.n} --executor flux-operator --jobs 2 && "
        "cp in_{wildcards.n}/x.txt {output}"
"""
INNER = """
rule inner:
    output: "x.txt"
    threads: 100
    shell: "echo {threads} > {output}"
"""


def test_a_snakemake_in_a_job_has_the_cores_of_that_job(engine: str, tmp_path: Path) -> None:
    """It would attach to the instance that FLUX_URI names, and wait for the cores that it holds itself."""
    (tmp_path / "inner.smk").write_text(INNER)
    text = INSIDE.replace("SNAKEMAKE", f"{sys.executable} -m snakemake")
    run = run_snakemake(tmp_path, text, "1.txt", "2.txt", engine=engine)
    assert run.returncode == 0, run.output
    assert run.read("1.txt") == run.read("2.txt") == "1\n"
