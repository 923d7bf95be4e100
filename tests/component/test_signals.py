"""A signal to a process is heard whenever it comes, also just before the process waits."""

from __future__ import annotations

import ast
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

#: The main thread does not take the signal itself, so that nothing in the kernel breaks its wait: what happens to a
#: signal that comes when Python has looked for signals and does not wait yet.
_DEAF = """
import signal, threading
threading.Thread(target=threading.Event().wait, daemon=True).start()
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGCHLD])
"""

#: What is told to end, as its child: it says so.
_CHILD = """
import signal, sys, time
signal.pthread_sigmask(signal.SIG_SETMASK, [])
signal.signal(signal.SIGTERM, lambda *_: (print("told", flush=True), sys.exit({code})))
print("up", flush=True)
while True: time.sleep(0.05)
"""


def _started(program: str, *arguments: str, **environ: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", _DEAF + program, *arguments],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, env={**os.environ, **environ},
    )  # fmt: skip


def _line(process: subprocess.Popen[str]) -> str:
    stream: IO[str] | None = process.stdout
    assert stream is not None
    assert select.select([stream], [], [], 60)[0], "it says nothing"
    return stream.readline().strip()


def _told_to_end(process: subprocess.Popen[str]) -> tuple[str, int]:
    """What it says then, and its exit code."""
    try:
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    return out.strip(), process.returncode


def test_the_keeper_of_an_instance(tmp_path: Path) -> None:
    program = "import sys\nfrom executors.agent.instance import keeper\nsys.exit(keeper.main(sys.argv[1:]))"
    directory = tmp_path / "run"
    directory.mkdir()
    process = _started(program, str(directory), str(tmp_path / "log"), sys.executable, "-c", _CHILD.format(code=3))
    assert _line(process) == "up"
    assert _told_to_end(process) == ("told", 3)


def test_the_supervisor_of_an_agent() -> None:
    program = (
        "import sys\nfrom executors.agent.instance.supervisor import supervise\n"
        "sys.exit(supervise(sys.argv[1:], attached=True))"
    )
    process = _started(program, sys.executable, "-c", _CHILD.format(code=0))
    assert _line(process) == "up"
    assert _told_to_end(process) == ("told", 0)


def test_the_holder_of_a_core(tmp_path: Path) -> None:
    program = "import sys\nfrom executors.agent.pilot.holder import hold\nsys.exit(hold('holders', [1, 0]))"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "uri.holders"))
        listener.listen()
        listener.settimeout(60)
        process = _started(program, FLUX_URI=f"local://{tmp_path / 'uri'}")
        stream, _ = listener.accept()
    with stream:
        stream.settimeout(60)
        about, files, _, _ = socket.recv_fds(stream, 4096, 1)
        assert about.endswith(b"\n")
        process.send_signal(signal.SIGTERM)
        assert stream.recv(64) == b"end\n"
        stream.sendall(b"mark\ngo\n")
        assert process.wait(60) == 0
    for file in files:
        os.close(file)
    process.communicate()


def test_a_holder_that_waits_for_its_pilot(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom executors.agent.pilot import holder\nholder._PATIENCE = 600.0\nprint('up', flush=True)\n"
        "sys.exit(holder.hold('holders', [1, 0]))"
    )
    process = _started(program, FLUX_URI=f"local://{tmp_path / 'uri'}")
    assert _line(process) == "up"
    # Until it has caught signals: one that comes before ends it by itself.
    out, code = _told_to_end(process)
    assert out == "" and code in (1, -signal.SIGTERM)


def test_the_controller() -> None:
    program = """
import sys
from executors.controller import running
from executors.controller.loop import Options

class Api:
    namespace = "default"

running.check_version = lambda *_: None

class Process(running.Process):
    def _run(self):
        print("up", flush=True)
        while not self._closing.is_set():
            self._sleep(3600.0)
        print("ends", flush=True)
        return 4

sys.exit(Process(Api(), Options(None, False), 0).run())
"""
    process = _started(program)
    assert _line(process) == "up"
    assert _told_to_end(process) == ("ends", 4)


#: What makes the wait of a process hear all signals.
_HEARING = ("none_missed(", "set_wakeup_fd(", "Signals(")
#: Modules with handlers and none of it, and why nothing is missed there.
_OTHERWISE = {
    "executors/cli/shell.py": "the size of the window: the main thread looks up several times a second",
    "executors/cli/signals.py": "runs inside of flux-minicluster's command, whose signals are heard by none_missed",
    "executors/flux_command/launch.py": "runs inside of flux-minicluster's command",
}


def _handles_signals(module: Path) -> bool:
    """Whether it has a handler of its own for a signal, of those that run between two instructions."""
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("signal.signal", "_signal.signal"):
            handler = ast.unparse(node.args[1])
            if handler not in ("signal.SIG_IGN", "signal.SIG_DFL", "_signal.SIG_DFL", "handler", "before"):
                return True
    return False


def test_every_process_that_handles_signals_hears_all() -> None:
    root = Path(__file__).parents[2]
    packages = ("executors", "snakemake_executor_flux", "airflow_provider_flux")
    found = {
        str(module.relative_to(root)): any(word in module.read_text() for word in _HEARING)
        for package in packages
        for module in (root / package).rglob("*.py")
        if _handles_signals(module)
    }
    assert len(found) > 5
    assert {name for name, hears in found.items() if not hears} == _OTHERWISE.keys() - {"executors/cli/signals.py"}


@pytest.mark.parametrize("timeout", [0.0, 0.05])
def test_a_wait_ends_at_its_time_and_when_its_descriptor_can_be_read(timeout: float) -> None:
    program = f"""
import os, sys
from executors.agent.signals import Signals

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
    process = _started(program)
    try:
        out, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert out.splitlines() == ["b''", "b''", "[10, 15] b''"]
