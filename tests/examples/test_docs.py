"""What the documents say holds: their snippets run, their tables are those of the program."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from executors import Outcome, load_config
from executors.agent.protocol.requests import OPS
from executors.cli.main import main as flux_minicluster
from executors.controller.main import main as flux_operator
from snakemake_executor_flux.settings import ExecutorSettings
from tests.engines.conftest import environment

ROOT = Path(__file__).parents[2]
PROGRAMS: dict[str, click.Group] = {"flux-minicluster": flux_minicluster, "flux-operator": flux_operator}
DOCS = sorted(
    [*ROOT.glob("*.md"), *(path for part in ("docs", "examples", "deploy") for path in (ROOT / part).rglob("*.md"))]
)


def indented(text: str, begin: str) -> str:
    """The first indented block whose first line begins so, without its indent."""
    lines = text.splitlines()
    first = next(index for index, line in enumerate(lines) if line.startswith("    " + begin))
    block = []
    for line in lines[first:]:
        if line and not line.startswith("    "):
            break
        block.append(line[4:])
    return "\n".join(block).rstrip() + "\n"


@pytest.mark.parametrize("engine", ["embedded", "flux"])
def test_the_python_example_runs(engine: str, need: Callable[[str], None], tmp_path: Path) -> None:
    if engine == "flux":
        need("flux")
    program = indented((ROOT / "docs" / "python.md").read_text(), "from executors import")
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment(engine),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "COMPLETED completed" in done.stdout and "failed on" in done.stdout
    assert done.stdout.splitlines()[-1] or done.stdout.splitlines()[-2]


def test_the_config_example_is_a_config(tmp_path: Path) -> None:
    text = indented((ROOT / "docs" / "install.md").read_text(), "apiVersion:")
    (tmp_path / "config.yaml").write_text(text)
    config = load_config(tmp_path / "config.yaml", environ={})
    assert config.run.idle_timeout == 300 and config.job_defaults.duration == 3600


def test_the_profile_example_runs_a_workflow(tmp_path: Path) -> None:
    profile = tmp_path / "profiles" / "default" / "config.yaml"
    profile.parent.mkdir(parents=True)
    profile.write_text(indented((ROOT / "docs" / "snakemake.md").read_text(), "executor: flux-operator"))
    (tmp_path / "run.yaml").write_text(
        "apiVersion: flux-operator-executors/v1\nkind: FluxRun\nrun: {provisioner: local, engine: embedded}\n"
    )
    (tmp_path / "Snakefile").write_text(
        "rule align:\n    output: 'out'\n    resources: tmpdir='/tmp'\n"
        "    shell: 'echo {threads} {resources.mem_mb} {resources.runtime} >{output}'\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "snakemake"],
        cwd=tmp_path,
        env=environment("embedded") | {"FLUX_OPERATOR_JOB_CORES": "2"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "flux-operator: run " in done.stderr
    assert (tmp_path / "out").read_text() == "2 2000 120\n"


def test_every_option_is_in_the_table_with_its_default_and_no_other_is() -> None:
    text = (ROOT / "docs" / "snakemake.md").read_text()
    said = set(re.findall(r"--flux-operator-([a-z-]+)", text.split("## Resources")[0]))
    there = {field.name.replace("_", "-") for field in dataclasses.fields(ExecutorSettings)}
    assert said == there
    for field in dataclasses.fields(ExecutorSettings):
        assert field.metadata["help"], field.name


def test_every_outcome_is_explained() -> None:
    rows = re.findall(r"(?m)^\| ([A-Z]+) \|", (ROOT / "docs" / "python.md").read_text())
    assert rows == [outcome.value for outcome in Outcome]


def commands(text: str) -> list[str]:
    """What a page shows as code: words in backticks and indented lines."""
    return re.findall(r"`([^`\n]+)`", text) + re.findall(r"(?m)^    (?:\$ )?(.*)$", text)


@pytest.mark.parametrize("program", PROGRAMS)
def test_commands_and_options_on_all_pages_are_those_of_the_program(program: str) -> None:
    context, checked = click.Context(PROGRAMS[program]), 0
    for page in DOCS:
        for code in commands(page.read_text()):
            for name, words in re.findall(rf"(?:^|[|;(\"] ?){program} ([a-z]+)\b(.*)", code):
                command = PROGRAMS[program].get_command(context, name)
                assert command is not None, f"{page}: {code}"
                there = {option for one in command.params for option in one.opts}
                # After -- come another program's words.
                said = re.findall(r" (--?[a-z][a-z-]*)", re.split(r" -- | \| ", words)[0])
                assert set(said) <= there, f"{page}: {code}"
                checked += 1
    assert checked > 3


def test_the_executors_options_and_the_targets_of_make_are_there() -> None:
    options = {f"--flux-operator-{field.name.replace('_', '-')}" for field in dataclasses.fields(ExecutorSettings)}
    targets = set(re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text()))
    for page in DOCS:
        text = page.read_text()
        assert set(re.findall(r"--flux-operator-[a-z-]+", text)) <= options, page
        assert set(re.findall(r"(?:`|^    )make ([a-z-]+)", text, re.MULTILINE)) <= targets | {"-j"}, page


def headings(page: Path) -> list[str]:
    """The headings of a page as links have them."""
    lines = re.findall(r"(?m)^#+ (.*)$", page.read_text())
    return [re.sub(r"[^\w -]", "", line.lower()).replace(" ", "-") for line in lines]


def test_links_inside_the_project_lead_somewhere() -> None:
    for page in DOCS:
        for target, _, part in (link.partition("#") for link in re.findall(r"\]\(([^)]+)\)", page.read_text())):
            if "://" not in target:
                there = page.parent / target if target else page
                assert there.exists(), f"{page}: {target}"
                assert not part or part in headings(there), f"{page}: {target}#{part}"


def test_the_wire_document_names_every_request() -> None:
    said = set(re.findall(r"(?m)^\| `([a-z]+)` \|", (ROOT / "docs" / "protocol.md").read_text()))
    assert said == set(OPS)
