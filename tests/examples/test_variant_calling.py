"""The variant-calling example finds the variants that it should, on every engine and in Snakemake's own executor."""

from __future__ import annotations

from pathlib import Path

import pysam

from tests.engines.conftest import engine, run_snakemake
from tests.examples.variants import EXAMPLE, variants

__all__ = ["engine"]


def check(directory: Path) -> None:
    found = variants(directory / "results" / "variants.tsv")
    expected = variants(EXAMPLE / "expected" / "variants.tsv")
    assert len(expected) == 84
    assert found == expected
    # A change that the reads were simulated with, as the alignment shows it.
    with pysam.AlignmentFile(str(directory / "results/aligned/a.bam")) as bam:
        bases = {
            read.alignment.query_sequence[read.query_position]
            for column in bam.pileup("NC_001416.1", 1103, 1104, truncate=True, ignore_orphans=False)
            for read in column.pileups
            if read.query_position is not None
        }
    assert "A" in bases
    assert ("NC_001416.1", "1104", "C", "A", "1", "1", "1") in found
    assert not list(directory.glob("results/aligned/*.unsorted.bam")), "temporary files are gone"
    picture = (directory / "results" / "variants.png").read_bytes()
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = (int.from_bytes(picture[start : start + 4], "big") for start in (16, 20))
    assert width > 1000 and height > 500 and len(picture) > 30_000


def test_variants_are_found(engine: str, tmp_path: Path) -> None:
    run = run_snakemake(tmp_path, "", "--snakefile", str(EXAMPLE / "Snakefile"), engine=engine)
    assert run.returncode == 0, run.output
    check(tmp_path)
    steps = {row["rule"]: row["step"] for row in run.efficiency()}
    assert steps == {
        "index": "shell", "align": "shell", "sort": "shell", "call": "shell", "merge": "shell", "table": "shell",
        "plot": "script",
    }  # fmt: skip
    assert (tmp_path / "benchmarks/align/a.tsv").read_text().startswith("s\th:m:s\tmax_rss")


def test_the_local_executor_finds_the_same(tmp_path: Path) -> None:
    run = run_snakemake(
        tmp_path, "", "--snakefile", str(EXAMPLE / "Snakefile"), "--cores", "2", engine="", executor="local"
    )
    assert run.returncode == 0, run.output
    check(tmp_path)


def test_a_missing_input_is_named(tmp_path: Path) -> None:
    run = run_snakemake(
        tmp_path, "", "--snakefile", str(EXAMPLE / "Snakefile"), "--config", "reference=data/nowhere.fa.gz",
        engine="embedded",
    )  # fmt: skip
    assert run.returncode != 0
    assert "nowhere.fa.gz" in run.output
