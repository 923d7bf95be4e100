"""Entry point of the nested Snakemake of a job: ``python -m snakemake_executor_flux.steps.nested -m snakemake ARGS``.

Snakemake passes ``--retries 0`` to a nested process, since the main one retries; but a rule's own ``retries:``
directive is stronger (rules.py, restart_times), so the nested process would retry by itself: unseen by the main one,
with its own count of attempts, and squared when it fails for good. Here a job is tried once.
"""

from __future__ import annotations

import sys


def main(argv: list[str]) -> None:
    from snakemake import cli
    from snakemake.rules import Rule

    def none(_rule: Rule) -> int:
        return 0

    def ignored(_rule: Rule, _value: object) -> None:
        pass

    Rule.restart_times = property(none, ignored)
    if argv[:2] == ["-m", "snakemake"]:
        argv = argv[2:]
    sys.argv[:] = ["snakemake", *argv]
    cli.main(argv)


if __name__ == "__main__":
    main(sys.argv[1:])
