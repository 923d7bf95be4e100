"""One of a bed's programs: started, watched while something is waited for, ended by its pid."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Mapping

import psutil

from tests.cluster.testbed.place import Place
from tests.cluster.testbed.waiting import NotReached, wait_until

# Seconds. A start takes a tenth of it on an idle machine.
LIMIT = 60.0


class Program:
    """A program of a bed, which can be started again. Its output is in ``logs/NAME.log``, of all starts."""

    def __init__(self, place: Place, name: str, argv: list[str], env: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.log = place.logs / f"{name}.log"
        self._place = place
        self._argv = argv
        self._env = dict(env or {})
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = self._place.spawn(self._argv, self.log, self._env)

    def stop(self, with_signal: signal.Signals = signal.SIGTERM) -> None:
        """Sends the signal and returns when the program is gone. Raises NotReached if it stays."""
        process = self._process
        if process is None:
            return
        wait_until(f"{self.name} to be running", lambda: process.poll() is not None or self._pid(), LIMIT)
        pid = self._pid() if process.poll() is None else None
        if pid:
            psutil.Process(pid).send_signal(with_signal)
        wait_until(f"the end of {self.name}", lambda: process.poll() is not None, LIMIT)
        self._process = None

    def signal(self, number: signal.Signals) -> None:
        """Sends it to the program, which is running."""
        pid = self._pid()
        assert pid is not None, f"{self.name} does not run"
        psutil.Process(pid).send_signal(number)

    def wait_for(self, what: str, condition: Callable[[], bool]) -> None:
        """Waits until the condition holds. Raises NotReached with the end of the log if the program ends before."""
        process = self._process
        assert process is not None, f"{self.name} was not started"

        def reached() -> bool:
            if process.poll() is not None:
                raise NotReached(f"{self.name} ended with {process.returncode}")
            return condition()

        try:
            wait_until(f"{self.name}: {what}", reached, LIMIT)
        except NotReached as problem:
            raise NotReached(f"{problem}\n{self.log.name} ends with:\n{self.tail()}") from None

    def tail(self, lines: int = 20) -> str:
        if not self.log.exists():
            return "(nothing)"
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def _pid(self) -> int | None:
        """Of the program itself. Entering a pid namespace puts nsenter in between, which waits for it."""
        assert self._process is not None
        if not self._place.isolated:
            return self._process.pid
        try:
            children = psutil.Process(self._process.pid).children()
        except psutil.NoSuchProcess:
            return None
        return children[0].pid if children else None
