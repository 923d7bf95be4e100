"""Starts the session process of a run, and Nextflow with the command ``flux`` in front of its PATH."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from executors import ConfigError, ProvisionError, RunId, run_name
from executors.flux_command import burial, client, environment, places, settings
from executors.flux_command.server import JOIN, LEAVE
from executors.names import PLACE_VARIABLE

#: Seconds for a session to end its instance.
_END_LIMIT = 150.0
#: Seconds for its process to end after that.
_GONE_LIMIT = 10.0
_PASSED_ON = (signal.SIGTERM, signal.SIGHUP)
#: Of Nextflow: with those that submit tasks, or that are asked for with them.
_SUBCOMMANDS = ("run", "console", "kuberun", "inspect", "lint", "clean", "log", "pull")


@dataclass(frozen=True)
class Wanted:
    """What a session is to be. ``name``: None is one of its own. ``options`` are keys of the config."""

    config: Path | None
    options: Mapping[str, object]
    name: str | None
    #: Where Nextflow is started.
    cwd: Path
    #: The work directory as far as the command line tells.
    work: str | None
    #: One of `executors.flux_command.preparation.MEMORY`.
    memory: str
    #: Processes that it is for, besides those that submit.
    holders: Sequence[int]
    #: It is for a shell, and ends with its instance too: `flux-minicluster down` is how it is ended.
    shell: bool

    @property
    def run(self) -> RunId:
        # `flux-minicluster down NAME` finds what is named.
        return RunId("cli", self.name) if self.name else RunId("nextflow", os.urandom(4).hex())


@dataclass(frozen=True)
class Started:
    directory: places.SessionDirectory
    name: str
    #: None: it was there.
    process: subprocess.Popen[str] | None
    report: Path | None


def start(wanted: Wanted, environ: Mapping[str, str], report_progress: Callable[[str], None]) -> Started:
    """A session that answers, a new one or the one of that name. Raises ExecutorsError; nothing is left behind then."""
    run = wanted.run
    name = run_name(run)
    directory = places.session_directory(name, environ)
    if wanted.name and _join(directory, wanted.holders):
        report_progress(f"using the running session of {name}")
        return Started(directory, name, None, None)
    report = wanted.cwd / ".nextflow" / "flux" / name
    errors = report.with_suffix(".err")
    said: dict[str, Any] = {
        "directory": str(directory.path),
        "run": [run.engine, run.id],
        "name": name,
        "config": None if wanted.config is None else str(wanted.config.absolute()),
        "options": {key: value for key, value in wanted.options.items() if value is not None},
        "report": str(report),
        "work": wanted.work,
        "memory": wanted.memory,
        "holders": list(wanted.holders),
        "shell": wanted.shell,
        "end": [sys.executable, "-m", "executors.flux_command", "end", str(directory.path)],
    }
    inside = environment.for_session(environ)
    try:
        report.parent.mkdir(parents=True, exist_ok=True)
        errors.touch()
    except OSError as err:
        raise ProvisionError(
            f"the run's log and table cannot be written into {report.parent}: {err.strerror}; start Nextflow in a "
            "directory that you may write to"
        ) from err
    try:
        lock = places.make(directory, inside, said)
    except OSError as err:
        raise ProvisionError(
            f"the session's files cannot be made in {directory.path.parent}: {err.strerror}; set {PLACE_VARIABLE} to a "
            "short directory on this machine that you may write to"
        ) from err
    try:
        with errors.open("wb") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-m", "executors.flux_command", "serve"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True, cwd=wanted.cwd, env=inside,
                pass_fds=[lock],
                start_new_session=True,  # a Ctrl-C reaches Nextflow, which cancels its tasks by this session
            )  # fmt: skip
    finally:
        os.close(lock)
    try:
        _wait_ready(process, said, directory, errors, report_progress)
    except BaseException:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_END_LIMIT)
        shutil.rmtree(directory.path, ignore_errors=True)
        raise
    return Started(directory, name, process, report)


def _wait_ready(
    process: subprocess.Popen[str],
    said: Mapping[str, Any],
    directory: places.SessionDirectory,
    errors: Path,
    report_progress: Callable[[str], None],
) -> None:
    assert process.stdin is not None and process.stdout is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(json.dumps(said))
        process.stdin.close()
    for line in process.stdout:
        news = json.loads(line)
        if "say" in news:
            report_progress(news["say"])
        elif "failed" in news:
            kind = ConfigError if news["kind"] == "ConfigError" else ProvisionError
            raise kind([news["failed"]]) if kind is ConfigError else ProvisionError(news["failed"])
        else:
            break
    else:
        raise ProvisionError(f"the session ended while it started; {_last_words(errors)}")
    # It listens a moment after it has said so.
    end = time.monotonic() + 10.0
    while not directory.socket.exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.005)


def _last_words(errors: Path) -> str:
    try:
        return errors.read_text(errors="replace").strip()[-2000:] or "it said nothing"
    except OSError as err:
        return f"{errors}: {err.strerror}"


def _join(directory: places.SessionDirectory, holders: Sequence[int]) -> bool:
    """Whether a living session takes these processes in; one that is just starting is waited for."""
    while directory.alive():
        try:
            replies = [client.ask(str(directory.path), ["0", "/", JOIN, str(pid)], 30.0) for pid in holders]
        except TimeoutError:
            raise ProvisionError(f"the session in {directory.path} does not answer; end it first") from None
        except OSError:  # it does not listen yet, or no longer
            time.sleep(0.1)
        else:
            return all(reply.startswith(b"0") for reply in replies)
    return False


def run_nextflow(
    argv: Sequence[str], started: Started, environ: Mapping[str, str], report_progress: Callable[[str], None]
) -> int:
    """Run the command line until it has ended, and end the session unless others hold it. The exit code; 127 where
    there is no such program."""
    inside = environment.for_nextflow(environ, str(started.directory.path))
    command = list(argv)
    if os.path.basename(command[0]) == "nextflow" and "/" in command[0]:
        command = settings.with_config(command, str(started.directory.config))
    code = 127
    try:
        with _passing_signals() as child:
            try:
                process = subprocess.Popen(
                    command, env=inside, executable=shutil.which(command[0], path=inside["PATH"])
                )
            except OSError as err:
                report_progress(f"{command[0]}: {err.strerror}; install Nextflow, or name its program by its path")
            else:
                child.process = process
                child.tell()
                code = process.wait()
    finally:
        leave(started, report_progress)
    return 128 - code if code < 0 else code


class _Child:
    """The process that signals are passed on to, when there is one."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.told: list[int] = []

    def tell(self) -> None:
        """Also called by a signal's handler, whatever it interrupts."""
        while self.process is not None and self.told:
            with contextlib.suppress(IndexError):  # a handler has told it
                self.process.send_signal(self.told.pop(0))


@contextlib.contextmanager
def _passing_signals() -> Iterator[_Child]:
    """Ctrl-C reaches the child by the terminal; what ends this process alone is passed on to it."""
    child = _Child()

    def pass_on(signum: int, _frame: object) -> None:
        child.told.append(signum)
        child.tell()

    before = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, *_PASSED_ON)}
    signal.signal(signal.SIGINT, lambda *_: None)
    for signum in _PASSED_ON:
        if before[signum] is not signal.SIG_IGN:
            signal.signal(signum, pass_on)
    try:
        yield child
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def leave(started: Started, report_progress: Callable[[str], None]) -> None:
    """This process needs the session no longer: it ends, unless a Nextflow in the background does. Waits for that."""
    try:
        words = [str(os.getppid()), "/", LEAVE, str(os.getpid())]
        reply = client.ask(str(started.directory.path), words, _END_LIMIT)
    except TimeoutError:
        report_progress(f"the session has not ended within {_END_LIMIT:g} s")
        return
    except OSError:
        reply = b""
    for line in reply[1:].decode(errors="replace").splitlines():
        report_progress(line)
    if b"in the background" in reply:
        return
    if started.process is None:
        _wait_gone(started.directory)
        return
    try:
        code = started.process.wait(_END_LIMIT)
    except subprocess.TimeoutExpired:
        report_progress(f"the session's process {started.process.pid} has not ended within {_END_LIMIT:g} s")
        return
    if not reply:
        said = "" if started.report is None else f"; {_last_words(started.report.with_suffix('.err'))}"
        report_progress(f"{burial.REASON} (exit code {code}){said}")
        burial.bury(str(started.directory.path))
        shutil.rmtree(started.directory.path, ignore_errors=True)


def _wait_gone(directory: places.SessionDirectory) -> None:
    """Of a session that another command has started: its process is not our child."""
    end = time.monotonic() + _GONE_LIMIT
    while directory.alive() and time.monotonic() < end:
        time.sleep(0.02)


def shell_lines(started: Started, environ: Mapping[str, str]) -> list[str]:
    """For eval in a shell: what puts the command in front."""
    inside = environment.for_nextflow(environ, str(started.directory.path))
    return [f"export {name}={shlex.quote(inside[name])}" for name in environment.CHANGED]


def find_nextflow(argv: Sequence[str], environ: Mapping[str, str]) -> str | None:
    """What is wrong with the command's program, before anything is started for it; None: nothing."""
    if shutil.which(argv[0], path=environ.get("PATH", "")) is not None:
        return None
    if argv[0] in _SUBCOMMANDS or argv[0].endswith(".nf"):
        words = argv if argv[0] in _SUBCOMMANDS else ["run", *argv]
        return f"{argv[0]}: no such program; give the whole command, as in: -- nextflow {shlex.join(words)}"
    if os.path.exists(argv[0]):
        return f"{argv[0]}: is not executable; run chmod +x {shlex.quote(argv[0])}"
    return (
        f"{argv[0]}: no such program on PATH; install Nextflow (https://nextflow.io/docs/latest/install.html), or name "
        "it by its path"
    )
