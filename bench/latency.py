"""Runs 1,000 trivial rules in this process and prints, for each job, report time less finish time in seconds.

Arguments: a directory in which to make the working directory (default: the temporary one), and Snakemake options.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

from snakemake import cli

from bench.common import TRIVIAL
from executors import JobResult
from snakemake_executor_flux.efficiency import Asked, Efficiency

delays: list[float] = []


def main() -> int:
    add = Efficiency.add

    def timed(self: Efficiency, asked: Asked, job_id: str | None, result: JobResult) -> None:
        # The last thing before Snakemake is told.
        add(self, asked, job_id, result)
        delays.append(time.time() - (result.times.finish or 0.0))

    Efficiency.add = timed  # type: ignore[method-assign]
    place, options = sys.argv[1] if sys.argv[1:] else None, sys.argv[2:]
    with tempfile.TemporaryDirectory(prefix="bench-", dir=place) as directory:
        if options:
            os.chmod(directory, 0o777)  # for the user of the pods
        os.chdir(directory)
        Path("Snakefile").write_text(TRIVIAL)
        arguments = ["--executor", "flux-operator", "--jobs", "1000", "--quiet", "all", "--config", "num=1000"]
        arguments += ["--max-jobs-per-timespan", "100000/1s", *options]
        try:
            cli.main(arguments)
        except SystemExit as end:
            if end.code:
                raise
        os.chdir("/")
    print(*(f"{delay:.6f}" for delay in delays))
    return 0


if __name__ == "__main__":
    sys.exit(main())
