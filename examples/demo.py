"""`make demo`: variant calling through ``snakemake --executor flux-operator``, its result as a table and a picture."""

from __future__ import annotations

import csv
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
OUTPUT = Path("demo-output")
SHOWN = 8
SHOWN_OF_LOG = 40


def main() -> int:
    shutil.rmtree(OUTPUT, ignore_errors=True)
    OUTPUT.mkdir()
    snakefile = HERE / "snakemake" / "variant-calling" / "Snakefile"
    command = ["snakemake", "--executor", "flux-operator", "--jobs", "8", "--quiet", "rules", "host", "--nocolor"]
    command += ["--snakefile", str(snakefile.relative_to(Path.cwd()) if _below_cwd(snakefile) else snakefile)]
    command += ["--directory", str(OUTPUT)]
    print(f"$ {shlex.join(command)}", flush=True)
    code = subprocess.run([sys.executable, "-m", *command], check=False).returncode
    if code:
        # --quiet rules hides what Snakemake says of a failed job, too.
        print(f"\nThe workflow failed (exit code {code}). The end of its log:")
        for path in sorted((OUTPUT / ".snakemake" / "log").glob("*.log"))[-1:]:
            print("\n".join(path.read_text().splitlines()[-SHOWN_OF_LOG:]))
        return code
    show_table(OUTPUT / "results" / "variants.tsv")
    print(f"\nTable:   {OUTPUT / 'results' / 'variants.tsv'}")
    print(f"Picture: {OUTPUT / 'results' / 'variants.png'}")
    return 0


def _below_cwd(path: Path) -> bool:
    return Path.cwd() in path.parents


def show_table(path: Path) -> None:
    with path.open(newline="") as table:
        rows = list(csv.reader(table, delimiter="\t"))
    shown = rows[: SHOWN + 1]
    widths = [max(len(row[column]) for row in shown) for column in range(len(shown[0]))]
    print()
    for row in shown:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print(f"... {len(rows) - 1} variants in all")


if __name__ == "__main__":
    sys.exit(main())
