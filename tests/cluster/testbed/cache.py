"""What is made once and kept: each thing a directory, made under a lock, and never seen half made."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.testbed.missing import Missing, need_commands

# Seconds. Longer than a bed that stays is of use, since it reads from here.
_KEPT = 30 * 24 * 3600


def cache_root() -> Path:
    """``FLUXOP_TEST_CACHE``, or ``flux-operator-executors/testbed`` in the user's cache directory."""
    chosen = os.environ.get("FLUXOP_TEST_CACHE")
    if chosen:
        return Path(chosen).absolute()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "flux-operator-executors" / "testbed"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds a lock against other processes, which the kernel gives back if this one dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def made_once(kind: str, version: str, make: Callable[[Path], None]) -> Path:
    """The directory of that version of a kind of thing, filled by ``make`` if it is not there.

    ``make`` gets another directory, which takes the name at its end: a build that was cut off leaves only what the next
    one throws away. Versions that nobody has used for a month go.
    """
    directory = cache_root() / f"{kind}-{version}"
    if not directory.is_dir():
        with locked(directory.with_name(f"{kind}.lock")):
            # Somebody else may have made it while we waited.
            if not directory.is_dir():
                part = directory.with_name(f"{kind}.part")
                shutil.rmtree(part, ignore_errors=True)
                part.mkdir()
                try:
                    make(part)
                except BaseException:
                    shutil.rmtree(part, ignore_errors=True)
                    raise
                _forget_unused(kind)
                part.rename(directory)
    os.utime(directory)
    return directory


def _forget_unused(kind: str) -> None:
    for old in cache_root().glob(f"{kind}-*"):
        if old.stat().st_mtime < time.time() - _KEPT:
            shutil.rmtree(old, ignore_errors=True)


def output_of(argv: list[str], *, what: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """What a command prints. Raises Missing with its last lines when it fails."""
    done = subprocess.run(
        argv,
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        last = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise Missing(f"{what} failed (exit code {done.returncode}):\n{last}")
    return done.stdout


def go_program(name: str, package: str, version: str) -> Path:
    """A program of a Go module, built once; ``package`` is its import path. Minutes the first time.

    Raises Missing when Go is absent, its proxy refuses the module, or the build fails.
    """

    def build(directory: Path) -> None:
        need_commands("go")
        output_of(
            ["go", "install", "-trimpath", "-ldflags", "-s -w", f"{package}@v{version}"],
            what=f"building {name} {version} with Go",
            cwd=directory,
            env={"CGO_ENABLED": "0", "GOWORK": "off", "GOBIN": str(directory)},
        )

    return made_once(name, version, build) / package.rpartition("/")[2]
