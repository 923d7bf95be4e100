"""The variant-calling example, and how its result is read."""

from __future__ import annotations

import csv
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "snakemake" / "variant-calling"


def variants(path: Path) -> list[tuple[str, ...]]:
    with path.open(newline="") as table:
        rows = csv.DictReader(table, delimiter="\t")
        names = ("chrom", "pos", "ref", "alt", "a_genotype", "b_genotype", "c_genotype")
        return [tuple(row[name] for name in names) for row in rows]
