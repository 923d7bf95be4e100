"""`make demo`: variant calling through ``snakemake --executor flux-operator``, its result as a table and a picture."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))  # this is a script that shares modules with others

from examples.tables import show_variants  # noqa: E402

OUTPUT = Path("demo-output")
SHOWN_OF_LOG = 40


def main() -> int:
    OUTPUT.mkdir(exist_ok=True)
    for old in OUTPUT.iterdir():
        if old.name != "airflow":  # of `make demo-airflow`, which may be running
            shutil.rmtree(old) if old.is_dir() else old.unlink()
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
    show_variants(OUTPUT / "results" / "variants.tsv")
    print(f"\nTable:   {OUTPUT / 'results' / 'variants.tsv'}")
    print(f"Picture: {OUTPUT / 'results' / 'variants.png'}")
    return 0


def _below_cwd(path: Path) -> bool:
    return Path.cwd() in path.parents


if __name__ == "__main__":
    sys.exit(main())
