"""The first lines of a table, for people."""

from __future__ import annotations

import csv
from pathlib import Path

SHOWN = 8


def show_variants(path: Path) -> None:
    with path.open(newline="") as table:
        rows = list(csv.reader(table, delimiter="\t"))
    shown = rows[: SHOWN + 1]
    widths = [max(len(row[column]) for row in shown) for column in range(len(shown[0]))]
    print()
    for row in shown:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print(f"... {len(rows) - 1} variants in all")
