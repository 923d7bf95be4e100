"""Runs a pipeline by ``flux-minicluster nextflow``, with the stand-in or with a real Nextflow."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests import cli_runs
from tests.nextflow.pipelines import Process, Row, as_groovy, as_json

LIMIT = 180.0
ROOT = Path(__file__).parents[2]


@dataclass
class Run:
    """A run that has been started, and may have ended."""

    process: subprocess.Popen[bytes]
    directory: Path
    real: bool
    runtime: Path

    def wait(self) -> int:
        try:
            return self.process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            self.end()
            raise AssertionError(f"the run hangs:\n{self.output}") from None

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30.0)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    @property
    def output(self) -> str:
        return (self.directory / "output").read_text(errors="replace")

    @property
    def rows(self) -> list[Row]:
        """Every try, as the trace has it."""
        if not self.real:
            said = json.loads((self.directory / "rows.json").read_text())
            return [Row(**{**one, "workdir": Path(one["workdir"])}) for one in said]
        with (self.directory / "trace.tsv").open(newline="") as trace:
            return [
                Row(
                    name=row["name"], status=row["status"], exit=int(row["exit"]) if row["exit"].isdigit() else None,
                    attempt=int(row["attempt"]), native_id=row["native_id"], workdir=Path(row["workdir"]),
                )
                for row in csv.DictReader(trace, delimiter="\t")
            ]  # fmt: skip

    def efficiency(self) -> list[dict[str, str]]:
        """Rows of the table per task."""
        [path] = (self.directory / ".nextflow" / "flux").glob("*.tsv")
        with path.open(newline="") as table:
            return list(csv.DictReader(table, delimiter="\t"))

    def log(self) -> str:
        return "".join(path.read_text() for path in (self.directory / ".nextflow" / "flux").glob("*.log"))

    # -- what belongs to it

    def of_kind(self, *words: str, without: str = "\0") -> list[psutil.Process]:
        """Living processes whose command line has all these words, and that belong to this run's directories."""
        found = []
        for process in psutil.process_iter():
            try:
                text = " ".join(process.cmdline())
                mine = (
                    str(self.directory) in text
                    or process.cwd().startswith(str(self.directory))
                    or (process.environ().get("FLUX_OPERATOR_RUNTIME_DIR") == str(self.runtime))
                )
                meant = all(word in text for word in words) and without not in text
                if mine and meant and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found

    def engine(self) -> psutil.Process:
        """The JVM, or the stand-in."""
        program = "java" if self.real else "python"
        word = "run main.nf" if self.real else "tests.nextflow.standin"

        def found() -> list[psutil.Process]:
            # What runs it has its words, too.
            return [one for one in self.of_kind(word, without="flux-minicluster") if one.name().startswith(program)]

        wait_until(found)
        return found()[0]

    def session(self) -> psutil.Process:
        wait_until(lambda: self.of_kind("executors.flux_command", "serve"))
        return self.of_kind("executors.flux_command", "serve")[0]

    def jobs(self) -> list[psutil.Process]:
        return self.of_kind(".command.sh")

    def left(self) -> list[str]:
        """Processes, sockets and directories that are still there."""
        me = psutil.Process()
        others = {me.pid, *(one.pid for one in me.parents())}
        found = []
        for one in self.of_kind():
            with contextlib.suppress(psutil.NoSuchProcess):
                if one.pid not in others:
                    found.append(" ".join(one.cmdline()))
        return found + [str(path) for path in self.runtime.glob("fluxop-nf-*")]


def wait_until(condition: Callable[[], Any], limit: float = 60.0) -> None:
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.05)


def environment(engine: str, runtime: Path, **more: str) -> dict[str, str]:
    """With the tests' own programs first on PATH."""
    environ = cli_runs.environment(runtime, FLUX_OPERATOR_ENGINE=engine, **more)
    environ["PATH"] = f"{Path(sys.executable).parent}:{environ['PATH']}"
    for name in ("NXF_WORK", "NXF_EXECUTOR", "FLUXOP_NEXTFLOW", "FLUXOP_NEXTFLOW_TASK"):
        environ.pop(name, None)
    return environ


class Runner:
    """``nextflow``: the command of a real one; None: the stand-in."""

    def __init__(self, directory: Path, runtime: Path, engine: str, nextflow: str | None) -> None:
        self.directory = directory
        self.runtime = runtime
        self.engine = engine
        self.nextflow = nextflow
        self.environ = environment(engine, runtime)
        #: Of flux-minicluster nextflow, for every run.
        self.options: tuple[str, ...] = ()
        self.started: list[Run] = []

    def command(self, processes: list[Process], *words: str) -> list[str]:
        """What runs a pipeline in the current directory."""
        work = self.directory / "work"
        if self.nextflow is None:
            (self.directory / "pipeline.json").write_text(as_json(processes))
            plain = [word for word in words if word == "--plain"]
            return [sys.executable, "-m", "tests.nextflow.standin", "pipeline.json", "rows.json", str(work), *plain]
        (self.directory / "main.nf").write_text(as_groovy(processes))
        fields = "trace.fields = 'name,status,exit,attempt,native_id,workdir'\ntrace.overwrite = true\n"
        (self.directory / "nextflow.config").write_text(fields)
        options = [word for word in words if word != "--plain"]
        fixed = ["-ansi-log", "false", "-with-trace", "trace.tsv", "-w", str(work)]
        return [self.nextflow, "run", "main.nf", *fixed, *options]

    def start(self, processes: list[Process], *words: str, options: tuple[str, ...] = ()) -> Run:
        self.directory.mkdir(parents=True, exist_ok=True)
        argv = [*cli_runs.COMMAND, "nextflow", *self.options, *options, "--", *self.command(processes, *words)]
        with (self.directory / "output").open("wb") as output:
            process = subprocess.Popen(
                argv, cwd=self.directory, env=self.environ, stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        run = Run(process, self.directory, self.nextflow is not None, self.runtime)
        self.started.append(run)
        return run

    def __call__(self, processes: list[Process], *words: str, options: tuple[str, ...] = ()) -> Run:
        run = self.start(processes, *words, options=options)
        run.wait()
        assert not run.left(), run.left()
        return run

    def close(self) -> None:
        for run in self.started:
            run.end()


def interrupt_group(run: Run) -> None:
    """Ctrl-C: to all that the terminal has in the foreground."""
    os.killpg(run.process.pid, signal.SIGINT)
