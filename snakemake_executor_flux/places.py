"""What of this machine the jobs find where they run: working directory, interpreter, log files."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

#: A job without shared files begins in a directory of its own, which Flux removes with the job.
_IN_SCRATCH = ('cd "$FLUX_JOB_TMPDIR" && exec "$@"', "sh")


@dataclass(frozen=True)
class RemotePaths:
    """``files``: the working directory is there too. ``python``: the interpreter for a nested Snakemake, as the jobs
    see it; ``package``: this package is importable by it."""

    files: bool
    python: str
    package: bool

    def argv(self, argv: list[str]) -> list[str]:
        return argv if self.files else ["/bin/sh", "-c", *_IN_SCRATCH, *argv]


def _by_pythonpath() -> bool:
    """Whether this package is only found because of a variable that jobs elsewhere do not inherit."""
    here = str(Path(__file__).resolve().parents[1])
    return any(str(Path(one).resolve()) == here for one in os.environ.get("PYTHONPATH", "").split(os.pathsep) if one)


class NotShared(Exception):
    """Something that is said to be shared is not; the text has the cure."""


def _check_writable(unwritable: Callable[[Sequence[str]], list[str]], cwd: str, logs: str) -> None:
    for what, directory in (("working", cwd), ("log", logs)):
        for problem in unwritable([directory] if directory else []):
            owner = os.stat(directory)
            raise NotShared(
                f"the jobs' {what} directory: {problem}; run the pods as its owner (minicluster.pod.securityContext: "
                f"{{runAsUser: {owner.st_uid}, runAsGroup: {owner.st_gid}}}), or let that user write there"
            )


def find_places(
    kinds: Callable[[Sequence[str]], list[str | None]],
    cwd: str,
    *,
    remote: bool,
    files_shared: bool,
    software_shared: bool,
    unwritable: Callable[[Sequence[str]], list[str]] = lambda _: [],
    logs: str = "",
) -> RemotePaths:
    """``kinds`` tells what paths are on the instance's lead node, ``unwritable`` what is wrong with directories there
    that jobs cannot write to; ``logs`` is the jobs' log directory. Raises NotShared.
    """
    if not remote:
        # Debian and its kin have no program of the name python.
        named = "python" if shutil.which("python") else "python3"
        return RemotePaths(files=True, python=sys.executable if software_shared else named, package=software_shared)
    directory, interpreter = kinds([cwd, sys.executable])
    if files_shared and directory != "directory":
        raise NotShared(
            f"the working directory {cwd} is not in the pods; mount the volume that holds it there "
            "(minicluster.containers[0].volumes), or share no files: --shared-fs-usage none, with a storage provider "
            "(--default-storage-provider) that the pods can reach"
        )
    if files_shared:
        if logs and kinds([logs]) != ["directory"]:
            raise NotShared(
                f"the jobs' log directory {logs} is not in the pods; give one in the working directory "
                "(--flux-operator-logdir), or mount the volume that holds it"
            )
        _check_writable(unwritable, cwd, logs)
    if software_shared and interpreter == "file" and not _by_pythonpath():
        return RemotePaths(files=files_shared, python=sys.executable, package=True)
    # Debian and its kin have no program of the name python.
    return RemotePaths(files=files_shared, python="python3", package=False)
