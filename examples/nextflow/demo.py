"""`make demo-nextflow`: variant calling by a Nextflow whose tasks are Flux jobs; its table and its picture."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))  # this is a script that shares modules with others

from examples.tables import show_variants  # noqa: E402

OUTPUT = Path("demo-output") / "nextflow"
#: Of one alignment.
THREADS = 2
HOW_TO_GET_ONE = """\
demo-nextflow: there is no `nextflow` command on PATH. With Java 17 or newer, as https://nextflow.io says:
    curl -s https://get.nextflow.io | bash
then put the `nextflow` that it makes into a directory on PATH, or name it: make demo-nextflow NEXTFLOW=./nextflow\
"""


def main() -> int:
    nextflow = shutil.which(os.environ.get("NEXTFLOW") or "nextflow")
    if nextflow is None:
        print(HOW_TO_GET_ONE, file=sys.stderr)
        return 1
    if missing := [module for module in ("matplotlib", "pybwa", "pysam") if find_spec(module) is None]:
        print(f"demo-nextflow: {', '.join(missing)} not installed; pip install '.[examples]'", file=sys.stderr)
        return 1
    shutil.rmtree(OUTPUT, ignore_errors=True)
    OUTPUT.mkdir(parents=True)
    command = ["flux-minicluster", "nextflow", "--", os.path.abspath(nextflow), "run", str(HERE / "variant-calling")]
    command += ["--python", sys.executable, "--threads", str(min(THREADS, os.cpu_count() or 1))]
    command += ["-ansi-log", "false"]
    print(f"$ {shlex.join(command)}", flush=True)
    program = [sys.executable, "-c", "from executors.cli.main import main; main(prog_name='flux-minicluster')"]
    environ = {**os.environ, "PYTHONPATH": str(HERE.parents[1])}
    code = subprocess.run([*program, *command[1:]], cwd=OUTPUT, env=environ, check=False).returncode
    if code:
        return code
    show_variants(OUTPUT / "results" / "variants.tsv")
    print(f"\nTable:   {OUTPUT / 'results' / 'variants.tsv'}")
    print(f"Picture: {OUTPUT / 'results' / 'variants.png'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
