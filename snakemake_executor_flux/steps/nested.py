"""Entry point of a job's nested Snakemake: ``python -P -m snakemake_executor_flux.steps.nested -m snakemake ARGS``.

A warm server (``warm/server.py``) calls `main` in a process that it has forked, with the words that start the next one.

Where this package is not installed its text is the program (``python3 -c``), so it imports nothing of this package. It
differs from ``python -m snakemake`` in this:

- The working directory is not on `sys.path`: ``platform.py`` there would be imported instead of Python's own. What
  Snakemake puts on it, the directories of Snakefiles, is; so is the directory that comes with ``--first-on-path``,
  where the user of ``python -m snakemake`` imports from.
- A job is tried once. Snakemake passes ``--retries 0`` to a nested process, since the main one retries; but a rule's
  own ``retries:`` directive is stronger (rules.py, restart_times), so the nested process would retry by itself: unseen
  by the main one, with its own count of attempts, and squared when it fails for good.
- ``--target-jobs`` holds JSON, ``[rule, wildcards]`` for each job. Snakemake's own form ``rule:name=value,...`` loses
  commas, quotes and whatever else means something in it (target_jobs.py).
- Jobs that it spawns in turn (``run:`` in a group) are started in the same way, with their arguments quoted for a
  shell; Snakemake quotes them by Python's rules.
"""

from __future__ import annotations

import json
import shlex
import sys
from typing import Any

PATH = "--first-on-path"


def encode_target_jobs(specs: Any) -> list[str]:
    """One argument per job."""
    return [json.dumps([spec.rulename, dict(spec.wildcards_dict)]) for spec in specs]


def decode_target_jobs(arguments: list[str] | None) -> Any:
    """What `encode_target_jobs` made, as Snakemake's parser of the option answers."""
    from snakemake_interface_executor_plugins.utils import TargetSpec

    return None if arguments is None else [TargetSpec(*json.loads(argument)) for argument in arguments]


def format_value(value: Any, quote: bool = False, base64_encode: bool = False) -> str:
    """In place of Snakemake's ``format_cli_value``, which quotes a string by ``repr``."""
    from snakemake_interface_common.settings import SettingsEnumBase
    from snakemake_interface_executor_plugins.utils import encode_as_base64

    if isinstance(value, SettingsEnumBase):
        return shlex.quote(str(value.item_to_choice()))
    return str(encode_as_base64(str(value))) if base64_encode else shlex.quote(str(value))


def _program(first: list[str]) -> str:
    """The words of this very program, for the processes that it starts."""
    if __spec__ is not None:
        return shlex.join([sys.executable, "-P", "-m", __spec__.name, *first])
    return f"{shlex.quote(sys.executable)} -c {shlex.quote(sys.orig_argv[sys.orig_argv.index('-c') + 1])}"


def main(argv: list[str], program: str = "") -> None:
    """``program``: what starts such a process; "": as this one was started."""
    first = argv[:2] if argv[:1] == [PATH] else []
    argv = argv[len(first) :]
    sys.path[:0] = first[1:]
    if __spec__ is None:
        sys.path[:] = [place for place in sys.path if place]  # `-c` puts the working directory there
    from snakemake import cli
    from snakemake.executors import local
    from snakemake.rules import Rule
    from snakemake_interface_executor_plugins import utils
    from snakemake_interface_executor_plugins.executors import real

    again = f"{program} {shlex.join(first)}" if program else _program(first)

    def none(_rule: Rule) -> int:
        return 0

    def ignored(_rule: Rule, _value: object) -> None:
        pass

    Rule.restart_times = property(none, ignored)
    cli.parse_target_jobs_cli_args = decode_target_jobs
    real.encode_target_jobs_cli_args = encode_target_jobs
    utils.format_cli_value = format_value
    local.Executor.get_python_executable = lambda _executor: again
    if argv[:2] == ["-m", "snakemake"]:
        argv = argv[2:]
    sys.argv[:] = ["snakemake", *argv]
    cli.main(argv)


if __name__ == "__main__":
    main(sys.argv[1:])
