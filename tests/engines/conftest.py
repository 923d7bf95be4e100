"""Runs real Snakemake as a user does: its command line, in a directory of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import prepared

LIMIT = 240.0


@dataclass
class Run:
    """One finished Snakemake."""

    directory: Path
    returncode: int
    output: str

    def read(self, name: str) -> str:
        return (self.directory / name).read_text()

    def efficiency(self) -> list[dict[str, str]]:
        """Rows of the efficiency table."""
        rows = []
        for table in self.directory.glob(".snakemake/flux_operator_logs/*/efficiency.tsv"):
            header, *lines = table.read_text().splitlines()
            rows += [dict(zip(header.split("\t"), line.split("\t"), strict=True)) for line in lines]
        return rows


def environment(engine: str, **extra: str) -> dict[str, str]:
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("FLUX_", "SNAKEMAKE_"))}
    environ.update(FLUX_OPERATOR_ENGINE=engine, FLUX_OPERATOR_ORPHAN_TIMEOUT="60", **extra)
    # Coverage of child processes and the like is not what these tests are about; a nested Python must start clean.
    environ.pop("PYTEST_CURRENT_TEST", None)
    return environ


def words(*arguments: str, executor: str = "flux-operator") -> list[str]:
    """Of Snakemake's command line, for Python."""
    if executor == "flux-operator" and not any(word in ("--jobs", "-j") for word in arguments):
        arguments = (*arguments, "--jobs", "100")
    return ["-m", "snakemake", "--executor", executor, *arguments]


@pytest.fixture(params=["embedded", "flux"], scope="session")
def engine(request: pytest.FixtureRequest, need: Callable[[str], None]) -> str:
    if request.param == "flux":
        need("flux")
    return str(request.param)


Snakemake = Callable[..., Run]


def run_snakemake(
    directory: Path, snakefile: str, *arguments: str, engine: str, executor: str = "flux-operator", **env: str
) -> Run:
    """As a fork of a process that has imported Snakemake."""
    directory.mkdir(parents=True, exist_ok=True)
    if snakefile:
        (directory / "Snakefile").write_text(snakefile)
    environ = environment(engine, **env)
    done = prepared.snakemake(environ).run(words(*arguments, executor=executor), directory, environ, LIMIT)
    return Run(directory, done.returncode, done.stdout)


def run_interpreter(directory: Path, *arguments: str, environ: dict[str, str], executor: str = "flux-operator") -> Run:
    """As a user's shell runs it: an interpreter is started."""
    done = subprocess.run(
        [sys.executable, *words(*arguments, executor=executor)],
        cwd=directory,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT,
    )
    return Run(directory, done.returncode, done.stdout)


@pytest.fixture
def snakemake(engine: str, tmp_path: Path) -> Snakemake:
    """``snakemake(snakefile, *arguments, **environment)`` in one temporary directory."""

    def run(snakefile: str, *arguments: str, executor: str = "flux-operator", **env: str) -> Run:
        return run_snakemake(tmp_path, snakefile, *arguments, engine=engine, executor=executor, **env)

    return run
