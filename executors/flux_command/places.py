"""The private directory of a session on this machine, and what is put into it: the command, its modules, settings.

bin/flux, bin/nextflow    first on Nextflow's PATH
task-bin/flux             first on the PATH of tasks (`inner`)
lib/                      what the command runs and imports, compiled
sock, lock, table         the session's socket; the lock that it holds while it lives; its tasks
session.json, flux.config what it was started with; Nextflow's configuration
flux/                     Flux's configuration, of an instance that is made here
"""

from __future__ import annotations

import compileall
import contextlib
import fcntl
import json
import os
import shlex
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from executors import ExecutorsError
from executors.flux_command import fast, ingest, inner
from executors.flux_command import settings as nextflow_settings
from executors.flux_command.environment import without_directories
from executors.locks import is_locked
from executors.names import PLACE_VARIABLE

#: Seconds after which what a killed session has left is removed by the next one: its Nextflow may still ask.
_KEPT = 86400.0
_PREFIX = "fluxop-nf"
_HERE = Path(__file__).parent
#: What the command imports.
_MODULES = ("__init__", "client", "burial", "ending", "records")
#: Of execve(2), less "#!" and the line feed.
_SHEBANG = 250


class SessionDirectory:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.bin = path / "bin"
        self.task_bin = path / "task-bin"
        self.config = path / "flux.config"
        self.socket = path / "sock"
        self.lock = path / "lock"
        self.table = path / "table"
        self.settings = path / "session.json"
        self.groups = path / "groups"
        self.flux_config = path / "flux"

    def alive(self) -> bool:
        """Whether a session's process has it. A lock that cannot be opened is nobody's here."""
        try:
            return is_locked(self.lock)
        except OSError:
            return False


def session_directory(run: str, environ: Mapping[str, str]) -> SessionDirectory:
    """Where the session of a run is, by the run's name."""
    root = Path(environ.get(PLACE_VARIABLE) or "/tmp")
    return SessionDirectory(root / f"{_PREFIX}-{os.getuid()}-{run.rpartition('-')[2]}")


def make(directory: SessionDirectory, environ: Mapping[str, str], settings: Mapping[str, Any]) -> int:
    """Make it, with all but the socket. The descriptor of its lock, held as long as that is open in any process.

    Raises ExecutorsError where it cannot be private, or somebody has it; OSError.
    """
    prune(directory.path.parent)
    aside = SessionDirectory(Path(tempfile.mkdtemp(prefix=f"{directory.path.name}.", dir=directory.path.parent)))
    try:
        lock = os.open(aside.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        _fill(aside, directory, environ, settings)
        _take_name(aside, directory)
    except BaseException:
        shutil.rmtree(aside.path, ignore_errors=True)
        raise
    return lock


def _take_name(aside: SessionDirectory, directory: SessionDirectory) -> None:
    path = directory.path
    with contextlib.suppress(FileNotFoundError):
        status = path.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or directory.alive():
            raise ExecutorsError(
                f"{path} is in the way; remove it, or set {PLACE_VARIABLE} to a short directory of your own"
            )
        shutil.rmtree(path)
    aside.path.rename(path)  # not over one that another client has made meanwhile: that is not empty


def _fill(
    aside: SessionDirectory, directory: SessionDirectory, environ: Mapping[str, str], settings: Mapping[str, Any]
) -> None:
    """``aside`` becomes ``directory``, whose paths are those in the files."""
    path = aside.path
    package = path / "lib" / "executors" / "flux_command"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").touch()
    for name in _MODULES:
        text = "" if name == "__init__" else (_HERE / f"{name}.py").read_text()
        (package / f"{name}.py").write_text(text)
    # By itself, the one module of the usual way.
    (path / "lib" / "flux_client.py").write_text((_HERE / "client.py").read_text())
    with contextlib.redirect_stdout(sys.stderr):
        compileall.compile_dir(path / "lib", quiet=1, invalidation_mode=None)
    aside.bin.mkdir()
    _program(path / "lib" / "flux", _command(directory.path))
    perl = shutil.which("perl", path=environ.get("PATH", ""))
    if perl is not None:
        (path / "lib" / "flux.pl").write_text(fast.TEXT)
        script = str(directory.path / "lib" / "flux.pl")
        _program(aside.bin / "flux", fast.command(os.path.abspath(perl), script, str(directory.path)))
    else:
        _program(aside.bin / "flux", _command(directory.path))
    aside.config.write_text(nextflow_settings.TEXT)
    nextflow = shutil.which("nextflow", path=without_directories(environ.get("PATH", ""), [str(directory.bin)]))
    if nextflow is not None:
        _program(aside.bin / "nextflow", _nextflow(os.path.abspath(nextflow), str(directory.config)))
    flux = shutil.which("flux", path=environ.get("PATH", ""))
    if flux is not None:
        aside.task_bin.mkdir()
        _program(aside.task_bin / "flux", inner.program(os.path.abspath(flux)))
    aside.settings.write_text(json.dumps(settings))
    aside.flux_config.mkdir()
    (aside.flux_config / "ingest.toml").write_text(ingest.TEXT)


def _program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o700)


def _command(directory: Path) -> str:
    """The command `flux`: Python without site-packages, started by its own path, whatever is on PATH."""
    # Not that of a virtual environment, which looks for its configuration first.
    python = os.path.realpath(sys.executable)
    body = (
        f"import sys\nsys.path.insert(0, {str(directory / 'lib')!r})\n"
        f"import flux_client\nflux_client.main({str(directory)!r})\n"
    )
    if len(python) + 4 <= _SHEBANG and not any(char.isspace() for char in python):
        return f"#!{python} -IS\n{body}"
    return f"#!/bin/sh\n''':'\nexec {shlex.quote(python)} -IS \"$0\" \"$@\"\n'''\n{body}"


def _nextflow(program: str, config: str) -> str:
    """Nextflow with our configuration before the user's, unless it may have none but that of `-C`."""
    return (
        "#!/bin/sh\n"
        'for word in "$@"; do\n'
        f'    [ "$word" = -C ] && exec {shlex.quote(program)} "$@"\n'
        "done\n"
        f'exec {shlex.quote(program)} -c {shlex.quote(config)} "$@"\n'
    )


def prune(root: Path) -> None:
    """Remove what killed sessions have left long ago. Never raises."""
    for path in root.glob(f"{_PREFIX}-{os.getuid()}-*"):
        with contextlib.suppress(OSError):
            status = path.lstat()
            old = time.time() - status.st_mtime > _KEPT
            if (
                old
                and stat.S_ISDIR(status.st_mode)
                and status.st_uid == os.getuid()
                and not SessionDirectory(path).alive()
            ):
                shutil.rmtree(path, ignore_errors=True)
