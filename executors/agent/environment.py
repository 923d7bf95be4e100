"""Environments of jobs: what a container hands on, what a request lays over it, names that a shell accepts. Pure."""

from __future__ import annotations

import os
import re
from typing import Dict, Iterable, List, Mapping, Optional

from .wire import EPOCH_VARIABLE

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


def bad_names(names: Iterable[str]) -> List[str]:
    """Those of ``names`` that no shell accepts."""
    return [name for name in names if not _NAME.match(name)]


def base_environment(environ: Mapping[str, str], without: Iterable[str]) -> Dict[str, str]:
    """What jobs inherit from the container that the agent runs in: its own environment less what Flux put there.

    ``without``: names that hold secrets, which have no business in a jobspec.
    """
    dropped = set(without) | {
        EPOCH_VARIABLE,
        "LUA_PATH",
        "LUA_CPATH",
        "JOB_COMPLETION_INDEX",
        "HOSTNAME",
        "PWD",
        "OLDPWD",
        "SHLVL",
    }
    kept = {}
    for name, value in environ.items():
        if name in dropped or name.startswith(("FLUX_", "FLUXOP_")):
            continue
        if name == "PYTHONPATH":
            value = os.pathsep.join(p for p in value.split(os.pathsep) if not re.search(r"/flux/python3\.\d+\Z", p))
            if not value:
                continue
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            continue  # JSON has no bytes that are not text
        kept[name] = value
    return kept


def merged(base: Mapping[str, str], given: Mapping[str, Optional[str]]) -> Dict[str, str]:
    """A job's environment: ``given`` over ``base``; None removes a variable."""
    both: Dict[str, Optional[str]] = dict(base)
    both.update(given)
    return {name: value for name, value in both.items() if value is not None}
