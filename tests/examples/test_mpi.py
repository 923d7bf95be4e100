"""The MPI example: a rule that starts its own tasks by ``flux run`` in a nested instance."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.engines.conftest import run_snakemake

SNAKEFILE = Path(__file__).parents[2] / "examples" / "snakemake" / "mpi" / "Snakefile"


def test_the_ranks_of_a_parallel_rule_all_run(tmp_path: Path, need: Callable[[str], None]) -> None:
    need("flux")
    run = run_snakemake(tmp_path, "", "--snakefile", str(SNAKEFILE), engine="flux")
    assert run.returncode == 0, run.output
    assert run.read("results/ranks.txt") == "rank 0 of 2\nrank 1 of 2\n"
