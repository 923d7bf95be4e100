"""A fork of the prepared process is what an interpreter is that is started for a Snakemake."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest

from tests.engines.conftest import LIMIT, environment, run_interpreter, run_snakemake, words
from tests.support import prepared

SAYS = """
import json, os, resource, signal, sys, tempfile, threading
from snakemake_executor_flux import importing
main = sys.modules["__main__"]
said = {
    "words": [sys.argv, sys.orig_argv, sys.executable, list(sys.flags)],
    "main": [main.__name__, main.__spec__.name, main.__file__],
    "places": [os.getcwd(), sys.path, importing.AT_START, importing._CWD, importing.given_by_start()],
    "environment": dict(os.environ),
    "files": sorted(os.readlink(f"/proc/self/fd/{n}").partition(":")[0] for n in (0, 1, 2)),
    "signals": {str(n): str(signal.getsignal(n)) for n in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE)},
    "limits": [os.umask(0o22), resource.getrlimit(resource.RLIMIT_NOFILE), tempfile.gettempdir()],
    "plugin": sorted(name for name in sys.modules if name.startswith(("executors", "snakemake_executor_"))),
}
print("SAYS", json.dumps(said), flush=True)
rule all:
    shell: "true"
"""


@pytest.mark.parametrize("more", [{}, {"PYTHONPATH": "/nowhere"}], ids=["plain", "PYTHONPATH"])
def test_a_fork_is_as_an_interpreter_that_is_started(tmp_path: Path, more: dict[str, str]) -> None:
    (tmp_path / "Snakefile").write_text(SAYS)
    environ = environment("embedded", SAID="here", **more)
    fork = run_snakemake(tmp_path, "", "-n", engine="embedded", SAID="here", **more)
    interpreter = run_interpreter(tmp_path, "-n", environ=environ)
    found, expected = (
        json.loads(next(line for line in run.output.splitlines() if line.startswith("SAYS ")).removeprefix("SAYS "))
        for run in (fork, interpreter)
    )
    assert found == expected
    assert ("/nowhere" in found["places"][1]) == bool(more)
    assert fork.returncode == interpreter.returncode == 0


def test_a_fork_ends_by_signals_and_tells_how(tmp_path: Path) -> None:
    (tmp_path / "Snakefile").write_text('import time\nprint("begins", flush=True)\ntime.sleep(600)\n')
    log = tmp_path / "log"
    environ = environment("embedded")
    with log.open("w") as out:
        file = out.fileno()
        process = prepared.snakemake(environ).start(words(), tmp_path, environ, file, file, new_session=True)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.01)
    assert process.poll() is None
    process.kill()
    assert process.wait(LIMIT) == process.poll() == -signal.SIGKILL
