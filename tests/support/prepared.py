"""Programs as forks of a process that has imported what all of them import: Snakemake, or Airflow.

The start of a Snakemake takes a second of CPU, that of a Python with Airflow one and a half; nearly all of it is the
same imports, and most runs of the tests need less for all the rest. A fork is what `python -m snakemake` or `python -c`
is otherwise: a process with a directory, an environment, streams and a main module of its own, which ends as an
interpreter does. Our plugin for Snakemake is not imported before: it looks at where and how Snakemake was started.

This file is also the program of that process, which imports nothing of the tests.
"""

from __future__ import annotations

import array
import atexit
import functools
import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import types
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

#: Bytes of a request, most of which is an environment.
_LIMIT = 1 << 17
_PLUGIN = "snakemake_executor_plugin_flux_operator"
_OURS = (_PLUGIN, "snakemake_executor_flux", "executors")
#: Variables by these names are read when an interpreter starts.
_OF_STARTS = ("PYTHON", "LD_")


class Process:
    """What has been started, as `subprocess.Popen` has it."""

    def __init__(self, pid: int, answer: socket.socket) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._answer = answer

    def poll(self) -> int | None:
        if self.returncode is None and select.select([self._answer], [], [], 0)[0]:
            self._ended()
        return self.returncode

    def wait(self, timeout: float) -> int:
        """The exit code, or the signal's number below zero. Raises subprocess.TimeoutExpired."""
        if self.returncode is None:
            if not select.select([self._answer], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            self._ended()
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _ended(self) -> None:
        with self._answer:
            text = self._answer.recv(100)
        assert text, "what it is forked from has ended before it"
        self.returncode = int(text)


class Prepared:
    """The process, begun with this environment; ``what`` it imports: snakemake or airflow."""

    def __init__(self, what: str, environ: Mapping[str, str]) -> None:
        self.environ = dict(environ)
        self._control, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(its.fileno()), what],
                pass_fds=[its.fileno()],
                env=self.environ,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def close(self) -> None:
        """Ends the process, not its forks."""
        self._control.close()
        self._process.wait()

    def start(
        self,
        words: list[str],
        directory: Path,
        environ: Mapping[str, str],
        out: int,
        err: int,
        *,
        new_session: bool = False,
    ) -> Process:
        """`python` with these words (`-m`, a module, ...; or `-c` and a text), and no input. ``out``, ``err``: open
        files."""
        assert _of_starts(environ) == _of_starts(self.environ), "an interpreter would start in another way"
        ours, answer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        request = {"words": words, "directory": str(directory), "environ": dict(environ), "session": new_session}
        with answer, open(os.devnull, "rb") as nothing:
            descriptors = array.array("i", [nothing.fileno(), out, err, answer.fileno()])
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)]
            self._control.sendmsg([json.dumps(request).encode()], rights)
        pid = ours.recv(100)
        assert pid, "what it is to be forked from has ended"
        return Process(int(pid), ours)

    def run(
        self, words: list[str], directory: Path, environ: Mapping[str, str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """Its output with its errors, when nobody has them open any more. Raises subprocess.TimeoutExpired."""
        reader, writer = os.pipe()
        with open(reader, "rb", buffering=0) as stream, selectors.DefaultSelector() as selector:
            try:
                process = self.start(words, directory, environ, writer, writer)
            finally:
                os.close(writer)
            selector.register(stream, selectors.EVENT_READ)
            deadline = time.monotonic() + timeout
            data: list[bytes] = []
            while selector.select(max(0.0, deadline - time.monotonic())):
                part = stream.read(1 << 16)
                if not part:
                    code = process.wait(max(0.0, deadline - time.monotonic()))
                    return subprocess.CompletedProcess(words, code, b"".join(data).decode())
                data.append(part)
            process.kill()
            raise subprocess.TimeoutExpired(words, timeout, b"".join(data))


def _of_starts(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if name.startswith(_OF_STARTS)}


def snakemake(environ: Mapping[str, str]) -> Prepared:
    """The one of all tests for an environment, by how Python starts in it; begun for the first Snakemake."""
    return _snakemake(frozenset(_of_starts(environ).items()))


@functools.cache
def _snakemake(starts: frozenset[tuple[str, str]]) -> Prepared:
    others = ("FLUX_", "SNAKEMAKE_", *_OF_STARTS)
    environ = {name: value for name, value in os.environ.items() if not name.startswith(others)}
    prepared = Prepared("snakemake", {**environ, **dict(starts)})
    atexit.register(prepared.close)
    return prepared


# -- the process


@dataclass
class _Request:
    words: list[str]
    directory: str
    environ: dict[str, str]
    session: bool
    files: list[int]


def _main() -> _Request | None:
    control = socket.socket(fileno=int(sys.argv[1]))
    before = dict(os.environ)
    if sys.argv[2] == "snakemake":
        _import_snakemake()
    else:
        importlib.import_module("airflow.sdk")
    changed = {name: value for name, value in os.environ.items() if before.get(name) != value}
    # Those of numpy's library are begun again in a fork, by the library.
    assert threading.active_count() == 1, "a fork has one thread"
    gc.freeze()
    request = _serve(control)
    if request is not None:
        _become(request, changed)
    return request


def _import_snakemake() -> None:
    """What every Snakemake imports before it reads a workflow, but our plugin, which each fork imports itself."""
    found = pkgutil.iter_modules
    pkgutil.iter_modules = lambda *_: (one for one in found() if one.name != _PLUGIN)
    importlib.import_module("snakemake.cli").get_argument_parser()
    pkgutil.iter_modules = found
    assert not any(name.partition(".")[0] in _OURS for name in sys.modules)
    # It finds its plugins when it is asked for and has none.
    del importlib.import_module("snakemake_interface_executor_plugins.registry").ExecutorPluginRegistry().plugins


def _serve(control: socket.socket) -> _Request | None:
    """Forks for each request; returns it in the fork, and None when nobody asks any more."""
    answers: dict[int, tuple[int, socket.socket]] = {}
    while True:
        for ready in select.select([control.fileno(), *answers], [], [])[0]:
            if ready in answers:
                pid, answer = answers.pop(ready)
                os.close(ready)
                status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                with answer:
                    _say(answer, status)
                continue
            text, descriptors, _, _ = socket.recv_fds(control, _LIMIT, 4)
            if not text:
                return None
            *files, number = descriptors
            pid = os.fork()
            if not pid:
                return _Request(files=files, **json.loads(text))
            for file in files:
                os.close(file)
            answer = socket.socket(fileno=number)
            answers[os.pidfd_open(pid)] = pid, answer
            _say(answer, pid)


def _say(answer: socket.socket, number: int) -> None:
    try:
        answer.send(str(number).encode())
    except BrokenPipeError:
        pass  # nobody waits for it


def _become(request: _Request, changed: dict[str, str]) -> None:
    """What a new process has that is started for it."""
    if request.session:
        os.setsid()
    for number, file in enumerate(request.files):
        os.dup2(file, number)
    os.closerange(3, 1024)
    os.chdir(request.directory)
    os.environ.clear()
    os.environ.update({**request.environ, **changed})
    tempfile.tempdir = None  # to be asked for again
    sys.orig_argv[:] = [sys.executable, *request.words]


def _run(words: list[str]) -> None:
    """As an interpreter does by these words."""
    if words[0] == "-m":
        sys.path[0] = os.getcwd()
        sys.argv[:] = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = ""
        sys.argv[:] = ["-c", *words[2:]]
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(words[1], "<string>", "exec"), main.__dict__)


if __name__ == "__main__":
    if asked := _main():
        _run(asked.words)
