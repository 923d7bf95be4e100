"""The pipeline for Nextflow finds the variants that Snakemake's does; a demo without Nextflow says how to get one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.examples.variants import EXAMPLE, variants
from tests.nextflow.conftest import real_nextflow, runtime
from tests.nextflow.runs import environment

__all__ = ["runtime"]

ROOT = Path(__file__).parents[2]


def demo(directory: Path, runtime: Path, engine: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "examples" / "nextflow" / "demo.py")],
        cwd=directory, env={**environment(engine, runtime), **environ}, capture_output=True, text=True, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.mark.parametrize("engine", ["embedded", "flux"])
def test_variants_are_found(engine: str, tmp_path: Path, runtime: Path) -> None:
    done = demo(tmp_path, runtime, engine, NEXTFLOW=real_nextflow())
    assert done.returncode == 0, done.stdout + done.stderr
    results = tmp_path / "demo-output" / "nextflow" / "results"
    assert variants(results / "variants.tsv") == variants(EXAMPLE / "expected" / "variants.tsv")
    assert (results / "variants.png").read_bytes().startswith(b"\x89PNG")
    assert "84 variants in all" in done.stdout and "13 tasks" in done.stderr
    assert not list(runtime.glob("fluxop-nf-*"))


def test_without_nextflow_the_demo_says_how_to_get_one(tmp_path: Path, runtime: Path) -> None:
    done = demo(tmp_path, runtime, "embedded", NEXTFLOW=os.path.join(tmp_path, "none"))
    assert done.returncode == 1 and "get.nextflow.io" in done.stderr
