"""What the documents say holds: their snippets run, their tables are those of the program."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from executors import Outcome, load_config
from executors.agent.server import Server
from snakemake_executor_flux.settings import ExecutorSettings
from tests.engines.conftest import environment

ROOT = Path(__file__).parents[2]
DOCS = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])


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


def test_links_inside_the_project_lead_somewhere() -> None:
    for page in DOCS:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_wire_document_names_every_request() -> None:
    there = {name[3:] for name in dir(Server) if name.startswith("op_")}
    said = set(re.findall(r"(?m)^\| `([a-z]+)` \|", (ROOT / "docs" / "protocol.md").read_text()))
    assert said == there
