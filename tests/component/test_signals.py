"""A signal to a process is heard whenever it comes, also just before the process waits."""

from __future__ import annotations

import ast
import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from executors.agent.instance.exit_codes import JOBS_LEFT
from tests.support.waiting import wait_for

#: The main thread does not take the signal itself, so that nothing in the kernel breaks its wait: what happens to a
#: signal that comes when Python has looked for signals and does not wait yet.
_DEAF = """
import signal, sys, threading
from executors.agent.signals import Signals

threading.Thread(target=threading.Event().wait, daemon=True).start()
wait = Signals.wait

def deaf(self, *given, **named):
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGCHLD])
    return wait(self, *given, **named)

Signals.wait = deaf
"""

#: What is told to end, as its child: it says so, by no buffer that the handler may have interrupted.
_CHILD = """
import os, signal, time
signal.signal(signal.SIGTERM, lambda *_: (os.write(1, b"told"), os._exit({code})))
os.write(1, b"up\\n")
while True: time.sleep(0.05)
"""

_Started = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def started() -> Iterator[_Started]:
    """Begins a program; it has ended afterwards, with what it has started."""
    processes: list[subprocess.Popen[str]] = []

    def start(program: str, *arguments: str, **environ: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", program, *arguments],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, env={**os.environ, **environ},
            start_new_session=True,
        )  # fmt: skip
        processes.append(process)
        return process

    yield start
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    assert select.select([process.stdout], [], [], 60)[0], "it says nothing"
    return process.stdout.readline().strip()


def _told_to_end(process: subprocess.Popen[str]) -> tuple[str, int]:
    """What it says then, and its exit code."""
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    return out.strip(), process.returncode


_KEEPER = "import sys\nfrom executors.agent.instance import keeper\nsys.exit(keeper.main(sys.argv[1:]))"
_SUPERVISOR = (
    "import sys\nfrom executors.agent.instance.supervisor import supervise\n"
    "sys.exit(supervise(sys.argv[1:], attached=True))"
)


def test_the_keeper_of_an_instance(started: _Started, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    words = [str(tmp_path / "run"), str(tmp_path / "log"), sys.executable, "-c", _CHILD.format(code=3)]
    process = started(_DEAF + _KEEPER, *words)
    assert _line(process) == "up"
    assert _told_to_end(process) == ("told", 3)


def test_the_supervisor_of_an_agent(started: _Started) -> None:
    process = started(_DEAF + _SUPERVISOR, sys.executable, "-c", _CHILD.format(code=0))
    assert _line(process) == "up"
    assert _told_to_end(process) == ("told", 0)


@pytest.mark.parametrize("program", [_KEEPER, _SUPERVISOR], ids=["keeper", "supervisor"])
def test_what_has_started_a_process_may_have_blocked_its_signals(
    started: _Started, tmp_path: Path, program: str
) -> None:
    (tmp_path / "run").mkdir()
    blocked = "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())\n"
    words = [str(tmp_path / "run"), str(tmp_path / "log")] if program is _KEEPER else []
    process = started(blocked + program, *words, sys.executable, "-c", "raise SystemExit(0)")
    assert process.wait(60) == 0


def test_an_agent_that_dies_is_not_started_again_by_a_supervisor_that_is_told_to_end(
    started: _Started, tmp_path: Path
) -> None:
    """Both ends come at once with the broker's; what it has been told is in the pipe when it hears of the agent."""
    agent = (
        "import os, signal, sys\nopen(sys.argv[1], 'a').write('x')\nos.kill(os.getppid(), signal.SIGTERM)\nos._exit(1)"
    )
    late = (
        "import subprocess\npoll = subprocess.Popen.poll\n"
        "subprocess.Popen.poll = lambda self: (self.wait(), poll(self))[1]\n"
    )
    process = started(late + _SUPERVISOR, sys.executable, "-c", agent, str(tmp_path / "starts"))
    assert process.wait(60) == JOBS_LEFT
    assert (tmp_path / "starts").read_text() == "x"


def test_the_holder_of_a_core(started: _Started, tmp_path: Path) -> None:
    program = "from executors.agent.pilot.holder import hold\nsys.exit(hold('holders', [1, 0]))"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "uri.holders"))
        listener.listen()
        listener.settimeout(60)
        process = started(_DEAF + program, FLUX_URI=f"local://{tmp_path / 'uri'}")
        stream, _ = listener.accept()
    with stream:
        stream.settimeout(60)
        about, files, _, _ = socket.recv_fds(stream, 4096, 1)
        for file in files:
            os.close(file)
        assert about.endswith(b"\n")
        process.send_signal(signal.SIGTERM)
        assert stream.recv(64) == b"end\n"
        stream.sendall(b"mark\ngo\n")
        assert process.wait(60) == 0


def test_a_holder_whose_pilot_dies_at_once_ends_without_a_traceback(started: _Started, tmp_path: Path) -> None:
    program = (
        "import socket, sys\nfrom executors.agent.pilot import holder\n"
        "here, there = socket.socketpair()\nthere.close()\nholder._connect = lambda *_: here\n"
        "sys.stderr = sys.stdout\nsys.exit(holder.hold('holders', [1, 0]))"
    )
    process = started(program, FLUX_URI=f"local://{tmp_path / 'uri'}")
    out, _ = process.communicate(timeout=60)
    assert (out, process.returncode) == ("the pilot: [Errno 32] Broken pipe\n", 1)


def test_a_holder_that_waits_for_its_pilot(started: _Started, tmp_path: Path) -> None:
    program = (
        "import sys\nfrom executors.agent.pilot import holder\nholder._PATIENCE = 600.0\n"
        "sys.exit(holder.hold('holders', [1, 0]))"
    )
    process = started(program, FLUX_URI=f"local://{tmp_path / 'uri'}")
    wait_for(lambda: _catches(process.pid, signal.SIGTERM), "it waits")
    assert _told_to_end(process) == ("", 1)


def _catches(pid: int, signum: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    [caught] = [line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:")]
    return bool(int(caught, 16) >> (signum - 1) & 1)


def test_the_controller(started: _Started) -> None:
    program = """
from executors.controller import running
from executors.controller.loop import Options

class Api:
    namespace = "default"

running.check_version = lambda *_: None

class Process(running.Process):
    def _run(self):
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        print("up", flush=True)
        while not self._closing.is_set():
            self._sleep(3600.0)
        print("ends", flush=True)
        return 4

sys.exit(Process(Api(), Options(None, False), 0).run())
"""
    process = started(_DEAF + program)
    assert _line(process) == "up"
    assert _told_to_end(process) == ("ends", 4)


def test_a_signal_before_nextflow_has_been_started_is_passed_on(started: _Started) -> None:
    program = """
import os, subprocess, sys
from executors.flux_command import launch

with launch._passing_signals() as child:
    os.kill(os.getpid(), launch.signal.SIGTERM)
    process = child.process = subprocess.Popen(["sleep", "600"])
    child.tell()
    print(process.wait(), flush=True)
"""
    process = started(program)
    assert _line(process) == "-15"


#: What makes a process hear all signals. A loop of asyncio's does it by `add_signal_handler`.
_HEARING = {"none_missed", "set_wakeup_fd", "Signals"}
#: Modules with handlers and none of it, and why nothing is missed there.
_OTHERWISE = {
    "executors/cli/shell.py": "the size of the window: the main thread looks up several times a second",
    "executors/flux_command/launch.py": "runs inside of flux-minicluster's command, whose signals are heard",
}
#: What handlers of Python's are set to besides functions: nothing, or what there was before.
_NO_HANDLERS = {"signal.SIG_IGN", "signal.SIG_DFL", "_signal.SIG_DFL"}


def _calls(module: Path) -> list[ast.Call]:
    return [node for node in ast.walk(ast.parse(module.read_text())) if isinstance(node, ast.Call)]


def _handles_signals(module: Path) -> bool:
    """Whether it has a handler of its own for a signal, of those that run between two instructions."""
    handlers = [
        ast.unparse(call.args[1])
        for call in _calls(module)
        if ast.unparse(call.func) in ("signal.signal", "_signal.signal")
    ]
    return any(handler not in _NO_HANDLERS for handler in handlers)


def _hears_all(module: Path) -> bool:
    """Whether it calls one of `_HEARING`, by its own name or as a module's (but `signal.Signals` is another)."""
    names = [ast.unparse(call.func) for call in _calls(module)]
    return any(name != "signal.Signals" and name.rpartition(".")[2] in _HEARING for name in names)


def test_every_process_that_handles_signals_hears_all() -> None:
    root = Path(__file__).parents[2]
    packages = ("executors", "snakemake_executor_flux", "airflow_provider_flux")
    modules = [module for package in packages for module in (root / package).rglob("*.py") if _handles_signals(module)]
    assert len(modules) > 5
    assert {str(module.relative_to(root)) for module in modules if not _hears_all(module)} == _OTHERWISE.keys()


@pytest.mark.parametrize("timeout", [0.0, 0.05])
def test_a_wait_ends_at_its_time_and_when_its_descriptor_can_be_read(started: _Started, timeout: float) -> None:
    program = f"""
import os

signals = Signals(signal.SIGTERM, signal.SIGUSR1)
read, write = os.pipe()
print(signals.wait({timeout}, read), flush=True)
os.write(write, b"x")
print(signals.wait(None, read), flush=True)
for signum in (signal.SIGUSR1, signal.SIGTERM):
    os.kill(os.getpid(), signum)
heard = set()
while len(heard) < 2:
    heard.update(signals.wait())
print(sorted(heard), signals.wait({timeout}), flush=True)
"""
    process = started(_DEAF + program)
    out, _ = process.communicate(timeout=60)
    assert out.splitlines() == ["b''", "b''", "[10, 15] b''"]
