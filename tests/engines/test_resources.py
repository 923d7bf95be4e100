"""Each resource of a rule, one by one, as the job itself sees it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.engines.conftest import Run, Snakemake, run_snakemake

RULE = """
rule one:
    output: "out.txt"
    threads: {threads}
    resources: {resources}
    shell: '''{command}'''
"""
CORES = len(os.sched_getaffinity(0))
MEMORY = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e6
#: What Flux (or the embedded engine) gave to the job, from inside it.
SEES = "flux job info --original $FLUX_JOB_ID jobspec > {output}"


def one(snakemake: Snakemake, resources: str, command: str, *arguments: str, threads: int = 1) -> Run:
    return snakemake(RULE.format(threads=threads, resources=resources or "x=1", command=command), *arguments)


#: Rules whose jobspecs are looked at, all in one run: threads, resources and more.
ASKED = {
    "threads": (2, "x=1", ""),
    "runtime": (1, "runtime=3", ""),
    "tasks": (1, "tasks=2, cpus_per_task=1", ""),
    "memory": (1, f"mem_mb={int(MEMORY / CORES * 1.5)}", ""),
    "options": (1, 'flux_options="cpu-affinity=off,verbose=2"', ""),
    "storage": (1, "x=1", 'test -z "${{SNAKEMAKE_STORAGE_S3_REGION:-}}"; '),
}


@pytest.fixture(scope="module")
def jobspecs(need: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The jobspec of each of them, as its job sees it."""
    need("flux")
    rules = [
        f"""
rule {name}:
    output: "{name}.txt"
    threads: {threads}
    resources: {resources}
    shell: '''{before}{SEES}'''
"""
        for name, (threads, resources, before) in ASKED.items()
    ]
    outputs = ", ".join(f'"{name}.txt"' for name in ASKED)
    text = f"rule all:\n    input: {outputs}\n" + "".join(rules)
    run = run_snakemake(tmp_path_factory.mktemp("jobspecs"), text, "--cores", "2", engine="flux")
    assert run.returncode == 0, run.output
    return {name: json.loads(run.read(f"{name}.txt")) for name in ASKED}


def jobspec(tmp_path: Path, need: Callable[[str], None], resources: str, *arguments: str) -> dict[str, Any]:
    """Of one rule, in a run of its own, which arguments are for."""
    need("flux")
    text = RULE.format(threads=1, resources=resources, command=SEES)
    run = run_snakemake(tmp_path, text, *arguments, engine="flux")
    assert run.returncode == 0, run.output
    found: dict[str, Any] = json.loads(run.read("out.txt"))
    return found


def slot(spec: dict[str, Any]) -> dict[str, int]:
    [top] = spec["resources"]
    inner = top["with"][0] if top["type"] == "node" else top
    return {"slots": inner["count"], **{part["type"]: part["count"] for part in inner["with"]}}


def test_threads_are_cores(jobspecs: dict[str, Any]) -> None:
    assert slot(jobspecs["threads"]) == {"slots": 1, "core": 2}


def test_threads_are_limited_to_what_a_node_has(snakemake: Snakemake) -> None:
    run = one(snakemake, "", "echo {threads} > {output}", threads=10_000)
    assert run.returncode == 0, run.output
    assert int(run.read("out.txt")) == CORES


def test_runtime_is_minutes_in_snakemake_and_seconds_in_flux(jobspecs: dict[str, Any]) -> None:
    assert jobspecs["runtime"]["attributes"]["system"]["duration"] == 180.0


def test_a_job_over_its_time_limit_is_ended_and_says_so(snakemake: Snakemake, tmp_path: Path) -> None:
    # A limit in seconds, from the config: Snakemake rounds runtime to whole minutes.
    config = tmp_path / "run.yaml"
    config.write_text("apiVersion: flux-operator-executors/v1\nkind: FluxRun\njobDefaults: {duration: 1}\n")
    run = one(snakemake, "", "sleep 600; touch {output}", "--flux-operator-config", str(config))
    assert run.returncode == 1
    assert "was ended" in run.output and "at its time limit" in run.output
    assert run.efficiency()[0]["outcome"] == "TIMEOUT"


def test_tasks_and_cpus_per_task_multiply(jobspecs: dict[str, Any]) -> None:
    # One command, no launcher: one slot on one node holds it all.
    assert slot(jobspecs["tasks"]) == {"slots": 1, "core": 2}


def test_nodes_ask_for_nodes_and_a_nested_instance(tmp_path: Path, need: Callable[[str], None]) -> None:
    need("flux")
    config = tmp_path / "two.yaml"
    config.write_text("apiVersion: flux-operator-executors/v1\nkind: FluxRun\nrun: {brokers: 2}\n")
    text = RULE.format(
        threads=1, resources="nodes=2, tasks=2", command="flux getattr size > {output}; flux run -N2 -n2 true"
    )
    run = run_snakemake(tmp_path, text, "--flux-operator-config", str(config), engine="flux")
    assert run.returncode == 0, run.output
    assert run.read("out.txt") == "2\n"


def test_mpi_runs_in_a_nested_instance_over_the_jobs_cores(tmp_path: Path, need: Callable[[str], None]) -> None:
    need("flux")
    command = (
        "{resources.mpi} -n {resources.tasks} echo hello > {output}; flux resource list -no '{{ncores}}' >> {output}"
    )
    run = run_snakemake(
        tmp_path, RULE.format(threads=1, resources='tasks=2, mpi="flux run"', command=command), engine="flux"
    )
    assert run.returncode == 0, run.output
    assert run.read("out.txt").split()[:3] == ["hello", "hello", "2"]


#: Rules that are refused, all in one run, by their resources.
REFUSED = {
    "gpu": "gpu=1",
    "gpus": "gpus=1",
    "memory": "mem_mb=100000000",
    "queue": 'flux_queue="nowhere"',
    "elsewhere": 'flux_constraint="hosts:elsewhere"',
}


@pytest.fixture(scope="module")
def refused(engine: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What is said of each of them."""
    outputs = ", ".join(f'"{name}"' for name in REFUSED)
    text = f"rule all:\n    input: {outputs}\n"
    for name, resources in REFUSED.items():
        text += f'rule {name}:\n    output: "{name}"\n    resources: {resources}\n    shell: "touch {{output}}"\n'
    run = run_snakemake(tmp_path_factory.mktemp("refused"), text, "--keep-going", engine=engine)
    assert run.returncode == 1
    assert not any((run.directory / name).exists() for name in REFUSED)
    said = dict(re.findall(r"Error in rule (\w+):\n((?: .*\n)+)", run.output))
    # Nothing of it is said a second time elsewhere.
    assert run.output.count("unsatisfiable") == sum(one.count("unsatisfiable") for one in said.values())
    return said


@pytest.mark.parametrize("name", ["gpu", "gpus"])
def test_gpus_that_nobody_has_are_refused_in_one_clear_message(refused: dict[str, str], name: str) -> None:
    assert refused[name].count("unsatisfiable") == 1


def test_memory_counts_as_cores(jobspecs: dict[str, Any]) -> None:
    assert slot(jobspecs["memory"])["core"] == 2


def test_memory_can_be_ignored(tmp_path: Path, need: Callable[[str], None]) -> None:
    assert slot(jobspec(tmp_path, need, "mem_mb=10000000", "--flux-operator-memory", "ignore"))["core"] == 1


def test_more_memory_than_a_node_has_is_refused_with_the_cure(refused: dict[str, str]) -> None:
    assert "mem_mb=100000000: the largest node has" in refused["memory"]
    assert "--flux-operator-memory ignore" in refused["memory"]


def test_a_queue_that_does_not_exist_is_refused(refused: dict[str, str]) -> None:
    assert "message: The job was refused" in refused["queue"] and "nowhere" in refused["queue"]


def test_urgency_is_passed_on(tmp_path: Path, need: Callable[[str], None]) -> None:
    need("flux")
    text = RULE.format(
        threads=1, resources="flux_urgency=20", command="flux jobs -no '{{urgency}}' $FLUX_JOB_ID > {output}"
    )
    run = run_snakemake(tmp_path, text, engine="flux")
    assert run.returncode == 0, run.output
    assert run.read("out.txt") == "20\n"


def test_a_constraint_that_this_node_meets_lets_the_job_run(snakemake: Snakemake) -> None:
    run = one(snakemake, f'flux_constraint="hosts:{os.uname().nodename} & not nothing"', "touch {output}")
    assert run.returncode == 0, run.output


def test_a_constraint_that_no_node_meets_is_refused(refused: dict[str, str]) -> None:
    assert "was refused" in refused["elsewhere"]


def test_flux_options_are_shell_options(jobspecs: dict[str, Any]) -> None:
    options = jobspecs["options"]["attributes"]["system"]["shell"]["options"]
    assert (options["cpu-affinity"], options["verbose"]) == ("off", 2)


WRONG = {
    "nodes=0": "nodes=0 is not a whole number >= 1",
    "nodes=2, tasks=1": "at least one task per node",
    "flux_urgency=99": "flux_urgency=99 is not a whole number from 0 to 31",
    'flux_constraint="a | b"': "flux_constraint=",
    'flux_options="=x"': "is not name or name=value",
    "runtime=-1": "is not a number of minutes >= 0",
}


def test_a_resource_that_makes_no_sense_is_named_with_its_value(snakemake: Snakemake) -> None:
    inputs = ", ".join(f'"{number}"' for number in range(len(WRONG)))
    text = f"rule all:\n    input: {inputs}\n"
    for number, resources in enumerate(WRONG):
        text += (
            f'rule wrong{number}:\n    output: "{number}"\n    resources: {resources}\n    shell: "touch {{output}}"\n'
        )
    run = snakemake(text, "--keep-going")
    assert run.returncode == 1
    for number, words in enumerate(WRONG.values()):
        said_of = rf"Error in rule wrong{number}:\n +message: The job could not be submitted: (.*)"
        [said] = re.findall(said_of, run.output)
        assert words in said
        assert not (run.directory / str(number)).exists()


def test_the_environment_of_a_job_is_in_its_jobspec_without_declared_secrets(
    tmp_path: Path, need: Callable[[str], None]
) -> None:
    need("flux")
    text = 'envvars: "MY_TOKEN"\n' + RULE.format(
        threads=1, resources="x=1", command="test ${{#MY_TOKEN}} -eq 15; " + SEES
    )
    run = run_snakemake(tmp_path, text, engine="flux", MY_TOKEN="swordfish-value")
    assert run.returncode == 0, run.output
    assert "swordfish" not in run.read("out.txt")
    assert json.loads(run.read("out.txt"))["attributes"]["system"]["environment"]["PATH"]


def test_settings_of_storage_plugins_are_not_given_to_a_plain_command(jobspecs: dict[str, Any]) -> None:
    """Each would cost the job a secret environment, and plugins have settings by default."""
    pytest.importorskip("snakemake_storage_plugin_s3")
    assert "secret" not in jobspecs["storage"]["attributes"]["user"]["fxo"]


GROUPS = """
rule all:
    input: expand("{i}.txt", i=range(40))
rule member:
    output: touch("{i}.txt")
    group: "many"
    resources: %s
    shell: "true"
"""


def test_a_group_asks_for_no_more_than_the_largest_node(tmp_path: Path) -> None:
    # Forty cores, by Snakemake's sum over the group; no machine of these tests has them.
    run = run_snakemake(tmp_path, GROUPS % "x=1", "--group-components", "many=40", engine="embedded")
    assert run.returncode == 0, run.output
    assert [row["cores"] for row in run.efficiency()] == [str(min(40, CORES))]


@pytest.mark.parametrize(
    ("resources", "words"),
    [("mem_mb=1000000000", "mem_mb=1000000000: the largest node has"), ('gres="fpga:1"', "gres='fpga:1'")],
)
def test_a_group_that_cannot_be_says_why(tmp_path: Path, resources: str, words: str) -> None:
    run = run_snakemake(tmp_path, GROUPS % resources, "0.txt", "--group-components", "many=40", engine="embedded")
    assert run.returncode == 1
    assert "Error in group many: The job could not be submitted: " + words in run.output


def test_a_group_that_fails_says_why(tmp_path: Path) -> None:
    text = GROUPS.replace('"true"', '"echo the reason >&2; exit 7"') % "x=1"
    run = run_snakemake(tmp_path, text, "0.txt", engine="embedded")
    assert run.returncode == 1
    assert f"Error in group many: The job failed on {os.uname().nodename} with exit code 1." in run.output
    assert "    the reason" in run.output and "Last lines of " in run.output


def test_pipes_wider_than_any_node_are_refused_in_snakemakes_words(tmp_path: Path) -> None:
    text = f"""
rule all:
    input: "out"
rule feed:
    output: pipe("fed")
    threads: {CORES}
    shell: "seq 1 5 > {{output}}"
rule eat:
    input: "fed"
    output: "out"
    threads: {CORES}
    shell: "cat {{input}} > {{output}}"
"""
    run = run_snakemake(tmp_path, text, engine="embedded")
    assert run.returncode == 1
    assert "Error grouping resources in group" in run.output and f"_cores: {2 * CORES}/{CORES}" in run.output


def test_resources_of_other_executors_are_named_once(snakemake: Snakemake) -> None:
    text = """
rule all:
    input: "1", "2"
rule one:
    output: touch("{n}")
    resources: slurm_account="me", constraint="fast", gres="", mine=3
    shell: "true"
"""
    run = snakemake(text)
    assert run.returncode == 0, run.output
    assert run.output.count("slurm_account (one) has no effect here; see --flux-operator-bank") == 1
    assert run.output.count("constraint (one) has no effect here; see flux_constraint") == 1
    assert "mine (one)" not in run.output and "gres (one)" not in run.output


def test_a_group_may_size_its_jobs_by_files_that_it_makes_itself(tmp_path: Path) -> None:
    text = """
rule all:
    input: "b"
rule a:
    output: temp("a")
    group: "g"
    shell: "echo 1 > {output}"
rule b:
    input: "a"
    output: "b"
    group: "g"
    resources: mem_mb=lambda wildcards, input: max(1, input.size_mb)
    shell: "cp {input} {output}"
"""
    run = run_snakemake(tmp_path, text, engine="embedded")
    assert run.returncode == 0, run.output


@pytest.mark.parametrize("step", ["shell", "script", "warm", "snakemake"])
def test_what_a_workflow_sets_later_reaches_later_jobs(tmp_path: Path, step: str) -> None:
    text = """
import os
envvars: "LATER_SECRET"
rule all:
    input: "second"
rule first:
    output: "first"
    shell: "touch {output}"
def later(wildcards, input):
    if os.path.exists("first"):
        os.environ["LATER"] = "set"
        os.environ["LATER_SECRET"] = "changed"
        os.environ.pop("GONE", None)
    return 1
rule second:
    input: "first"
    output: "second"
    params: later=later
    shell: "echo $LATER ${{GONE:-gone}} $LATER_SECRET > {output}"
"""
    run = run_snakemake(
        tmp_path, text, "--flux-operator-job-step", step, engine="embedded", GONE="there", LATER_SECRET="first"
    )
    assert run.returncode == 0, run.output
    assert run.read("second") == "set gone changed\n"
