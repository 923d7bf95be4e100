"""The Python packages that jobs in pods need: copied from the environment that the tests run in."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

# What Snakemake's jobs and the examples import; and what those require.
WANTED = (
    *("snakemake", "snakemake-storage-plugin-fs", "snakemake-storage-plugin-s3", "matplotlib", "pysam", "pybwa"),
    *("psutil", "pyyaml", "tenacity", "urllib3", "websockets", "click", "pyzmq"),
)
# Itself: the tests' own tree may be newer than any image, and its requirements are those above.
OURS = "flux-operator-executors"


def why_not(minor: str) -> str | None:
    """Why this environment's packages don't fit a Python ``minor`` ("3.11"), or None."""
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    if here == minor:
        return None
    return f"the image's Python is {minor} and the tests run with {here}: no Snakemake in pods; use Python {minor}"


def distributions() -> list[Distribution]:
    """WANTED, as far as it is installed, and all that it requires, by name."""
    found: dict[str, Distribution] = {}
    todo = list(WANTED)
    while todo:
        name = canonicalize_name(todo.pop())
        if name in found or name == OURS:
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            continue
        todo += _requirements(found[name])
    return [found[name] for name in sorted(found)]


def _requirements(of: Distribution) -> Iterator[str]:
    for text in of.requires or []:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield requirement.name


def copy_to(packages: Path, scripts: Path) -> None:
    """Copies the distributions' files; their commands get the interpreter of the image.

    Bytecode too, as pip made it: a user of a pod cannot write any, and Snakemake would be compiled in each of its jobs.
    """
    for dist in distributions():
        for file in dist.files or []:
            source = Path(str(file.locate()))
            if not source.is_file():
                continue
            if file.parts[0] == "..":
                if file.parent.name == "bin":
                    _copy_script(source, scripts / source.name)
                continue
            target = packages / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)


def _copy_script(source: Path, target: Path) -> None:
    data = source.read_bytes()
    first, newline, rest = data.partition(b"\n")
    if first.startswith(b"#!") and b"python" in first:
        data = b"#!/usr/bin/python3" + newline + rest
    target.write_bytes(data)
    target.chmod(0o755)
