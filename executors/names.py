"""Run ids, the deterministic object names that follow from them, and where instances on a machine are found. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from executors.errors import RunNameError

#: The environment variable that names the directory for instances on this machine (`executors.provision.local.rundir`).
#: All who look for an instance must agree on it, so an adapter that filters an environment keeps it.
PLACE_VARIABLE = "FLUX_OPERATOR_RUNTIME_DIR"
_HASH_DIGITS = 10
#: Room for what is derived from a name: ``-`` and a pod index of up to 5 digits, ``-`` and 5 random characters, in a
#: DNS label of 63.
DEFAULT_BUDGET = 63 - 6 - 6 - 8


@dataclass(frozen=True)
class RunId:
    """One run of one workflow engine, in the engine's own words."""

    engine: str
    id: str


def run_name(run: RunId, budget: int = DEFAULT_BUDGET) -> str:
    """A name for the run's objects: a readable slug, a dash, 10 hex digits.

    Guarantees: a DNS-1123 label of at most ``budget`` characters (at least 12 are needed) that begins with a letter;
    the same for the same run always; different for different runs as far as 40 bits of SHA-256 tell them apart, also
    where their slugs are the same. Raises RunNameError for an empty engine or id.
    """
    if not run.engine or not run.id:
        raise RunNameError(f"run {run!r}: engine and id must not be empty")
    if budget < _HASH_DIGITS + 2:
        raise RunNameError(f"budget {budget} is too small for a name; at least {_HASH_DIGITS + 2} are needed")
    text = f"{run.engine}\0{run.id}".encode("utf-8", "surrogateescape")
    import hashlib  # see executors.job

    digest = hashlib.sha256(text).hexdigest()[:_HASH_DIGITS]
    slug = re.sub(r"[^a-z0-9]+", "-", f"{run.engine}-{run.id}".lower()).strip("-")
    if not slug or not slug[0].isalpha():
        slug = f"r-{slug}" if slug else "r"
    return f"{slug[: budget - _HASH_DIGITS - 1].rstrip('-')}-{digest}"
