"""What a command line of Nextflow's asks for. Pure.

Nextflow's executor ``flux`` calls three commands, each in one form (docs/nextflow.md):

    flux submit --setattr=cwd=WORK --job-name="NAME" [options] [clusterOptions, split at blanks] /bin/bash .command.run
    flux jobs --suppress-header --format={id.f58} {status_abbrev} --since=-15m [--queue=Q] [--user=U]
    flux job cancel ID...

Anything else is for the real ``flux``. What `executors.flux_command.settings` puts in front of a job's name carries
what Nextflow itself does not pass on: seconds, memory and accelerators of the task.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from executors.flux_command.asked import Asked, Cancel, Jobs, Other, Refused, Submit
from executors.flux_command.options import Found, take

WORK = "--setattr=cwd="
NAME = '--job-name="'
SCRIPT = ".command.run"

_JOBS = ("--suppress-header", "--format={id.f58} {status_abbrev}", "--since=-15m")
_CARRIED = re.compile(r"fxo((?::(?:[tmg]\d+|i))*) (?=.)", re.DOTALL)


def read(argv: Sequence[str]) -> Asked:
    """``argv`` without the program's own name. Raises Refused."""
    match list(argv):
        case ["submit", *words]:
            return _submit(words)
        case ["jobs", *words]:
            return Jobs() if _is_nextflows(words) else Other()
        case ["job", "cancel", *ids] | ["cancel", *ids] if ids and not any(job_id.startswith("-") for job_id in ids):
            return Cancel(tuple(ids))
    return Other()


def _is_nextflows(words: Sequence[str]) -> bool:
    rest = words[len(_JOBS) :]
    return tuple(words[: len(_JOBS)]) == _JOBS and all(one.startswith(("--queue=", "--user=")) for one in rest)


def _submit(words: Sequence[str]) -> Asked:
    if len(words) < 2 or not words[0].startswith(WORK) or not words[1].startswith(NAME):
        return Other()
    name, carried = _name(words[1][len(NAME) :].removesuffix('"'))
    found = Found(Submit(name=" ".join(name.splitlines()), argv=()))  # a tag may have several
    found.carry(carried)
    try:
        return found.submit(_script(take(list(words[2:]), found)))
    except Refused as err:
        err.task = found.asked
        raise


def _script(rest: list[str]) -> tuple[str, ...]:
    """What follows the options. Raises Refused."""
    if len(rest) != 2 or rest[0] != "/bin/bash" or not rest[1].endswith(SCRIPT):
        begin = repr(rest[0]) if rest else "the end of the line"
        raise Refused(
            f"clusterOptions: {begin} is not an option, but stands before {SCRIPT!r}; Nextflow splits clusterOptions "
            "at every blank, even in quotes: write --name=value, without a blank in the value"
        )
    return tuple(rest)


def _name(text: str) -> tuple[str, dict[str, int]]:
    """A job's name, and what our settings have put in front of it."""
    match = _CARRIED.match(text)
    if match is None:
        return text, {}
    return text[match.end() :], {word[0]: int(word[1:] or 1) for word in match[1].split(":")[1:]}
