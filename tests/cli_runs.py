"""flux-minicluster as a user's shell runs it: a process of its own, with its exit code and both streams."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: The entry point, also where the package is not installed.
COMMAND = [sys.executable, "-c", "from executors.cli.main import main; main(prog_name='flux-minicluster')"]
LIMIT = 120.0


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.code == 0, self
        return json.loads(self.out)


class Cli:
    """Runs commands with an environment of its own; ``options`` go behind the name of each command that takes them."""

    def __init__(self, directory: Path, environ: Mapping[str, str], options: Sequence[str] = ()) -> None:
        self.directory = directory
        self.environ = dict(environ)
        self.options = list(options)

    def __call__(self, command: str, *words: str, code: int | None = 0) -> Done:
        """``code``: the exit code that is expected; None: any."""
        ran = subprocess.run(
            self.argv(command, *words), cwd=self.directory, env=self.environ, capture_output=True, text=True,
            check=False, timeout=LIMIT, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        done = Done(ran.returncode, ran.stdout, ran.stderr)
        assert "Traceback" not in done.err, done.err
        assert code is None or done.code == code, done
        return done

    def argv(self, command: str, *words: str) -> list[str]:
        return [*COMMAND, command, *self.options, *words]

    def start(self, command: str, *words: str) -> subprocess.Popen[str]:
        """One that is interrupted later, by `interrupt`."""
        return subprocess.Popen(
            self.argv(command, *words), cwd=self.directory, env=self.environ, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip


def environment(runtime: Path, **more: str) -> dict[str, str]:
    """This machine's, without an instance that the tests may run in; ``runtime`` is where instances are."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("FLUX_", "KUBECONFIG"))}
    return {**kept, "FLUX_OPERATOR_RUNTIME_DIR": str(runtime), "PYTHONPATH": str(Path(__file__).parents[1]), **more}


def read_line(process: subprocess.Popen[str], stream: str, holds: str) -> str:
    """The first line of a stream that holds a text. The process is ended when there is none in time."""
    guard = threading.Timer(LIMIT, process.kill)
    guard.start()
    lines = process.stdout if stream == "stdout" else process.stderr
    assert lines is not None
    try:
        for line in lines:
            if holds in line:
                return line
    finally:
        guard.cancel()
    raise AssertionError(f"no line of {stream} holds {holds!r}")


def interrupt(process: subprocess.Popen[str], signum: signal.Signals = signal.SIGINT) -> Done:
    process.send_signal(signum)
    try:
        out, err = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()  # or a later test would be blamed for it
        process.communicate()
        raise
    assert "Traceback" not in err, err
    return Done(process.returncode, out, err)
