"""A warm server without Snakemake: its entry runs a program that the arguments name, in the process that it forks."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from snakemake_executor_flux.warm import client

#: ``import`` lines before it are what the server has imported.
SERVER = """
import socket, sys, runpy
from snakemake_executor_flux.warm import server

def entry(arguments, program):
    sys.argv[:] = arguments
    runpy.run_path(arguments[0], {"program": program}, "__main__")

listener = socket.socket(socket.AF_UNIX)
listener.bind("\\0" + sys.argv[1])
listener.listen(100)
print("listening", flush=True)
server.Server(listener, entry, sys.argv[2].split(","), float(sys.argv[3])).run()
"""


class WarmServer:
    """A server and its clients, in ``directory``. What clients fall back to is a file's own Python."""

    def __init__(self, directory: Path, before: str = "", ignored: str = "", idle: float = 60.0) -> None:
        self.directory = directory
        self.name = f"fluxop-test-{uuid.uuid4().hex}"
        self.log = directory / "server.log"
        # pytest changes its own while a test runs.
        changing = ("PYTEST_CURRENT_TEST", "COLUMNS", "LINES")
        self.environ = {name: value for name, value in os.environ.items() if name not in changing}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", before + SERVER, self.name, ignored, str(idle)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=self.environ,
                start_new_session=True,
            )
        assert self.process.stdout is not None and self.process.stdout.readline() == b"listening\n", (
            self.log.read_text()
        )

    def __enter__(self) -> WarmServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def words(self, text: str, *arguments: str, name: str = "job.py") -> list[str]:
        """A client's command line, for a program."""
        path = self.directory / name
        path.write_text(text)
        own = [sys.executable, "-IS", client.__file__, self.name, "0", "1", sys.executable]
        return [*own, str(path), *arguments]

    def start(self, text: str, *arguments: str, env: Mapping[str, str] | None = None, **more: Any) -> Any:
        """A client that runs a program; its streams are pipes."""
        more.setdefault("stdin", subprocess.DEVNULL)
        environ = {**self.environ, **(env or {})}
        return subprocess.Popen(
            self.words(text, *arguments),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environ,
            start_new_session=True,
            text=True,
            **more,
        )

    def run(self, text: str, *arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
        """A client, to its end."""
        process = self.start(text, *arguments, **more)
        out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess([], process.returncode, out, err)

    def runs_here(self, done: subprocess.CompletedProcess[str]) -> bool:
        """Whether it was this server's child, of a program that begins with `WHO`."""
        return done.stdout.splitlines()[0] == "forked"


#: Prints whether the program runs in a fork of the server: only there has anybody imported its module.
WHO = """
import sys
print("forked" if "snakemake_executor_flux.warm.server" in sys.modules else "by itself", flush=True)
"""


def line_of(stream: IO[str]) -> str:
    return stream.readline().rstrip("\n")


def alive(pid: int) -> bool:
    """Whether a process lives; a zombie does not."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return text.rpartition(")")[2].split()[0] not in "ZX"


def descendants_of(server: WarmServer) -> list[int]:
    from snakemake_executor_flux.warm.server import below

    return [pid for pid in below(server.process.pid) if alive(pid)]
