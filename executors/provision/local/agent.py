"""An agent on this machine: what local and attach share."""

from __future__ import annotations

import json
import logging
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping

from executors.agent.instance.sweep import sweep
from executors.agent.wire import is_text
from executors.config import RunConfig
from executors.errors import EndingError, GuestError, ProvisionError
from executors.provision.local import usage
from executors.provision.local.rundir import RunDirectory, find_place, prune
from executors.provision.package import agent_archive
from executors.transport import Endpoint, UnixEndpoint

log = logging.getLogger(__name__)

#: Seconds for an instance on this machine to come up, and to go.
START_LIMIT = 60.0
STOP_LIMIT = 90.0
#: Seconds for its keeper to end it by force (`executors.agent.instance.keeper`: its limit and that of the sweep).
KEEPER_LIMIT = 45.0
#: Seconds for its keeper to tidy up after it was swept.
SWEEP_LIMIT = 20.0

#: Of the client's environment, what would make a new instance or Flux's Python something else than it is.
_NOT_FOR_FLUX = ("FLUX_URI", "FLUX_JOB_ID", "FLUX_KVS_NAMESPACE", "PYTHONPATH", "PYTHONHOME")


class LocalAgent:
    """What local and attach share: a run directory, one process, its start and its end.

    Longer than others because these are one subject: each step of a start and of an end depends on what the step before
    has left in the directory and of the process.
    """

    def __init__(self, run_name: str, config: RunConfig, environ: Mapping[str, str], reason: str) -> None:
        self._name = run_name
        self._config = config
        self._environ = dict(environ)
        self._reason = reason
        self._place = find_place(environ)
        prune(self._place.path)
        self._directory = RunDirectory(self._place.path, self._directory_name())
        self._process: subprocess.Popen[bytes] | None = None
        self._adopted = False
        #: Seconds for an instance that is only to be found, not to be made; None: it may be made.
        self._found: float | None = None
        self._which: tuple[int, int] | None = None
        self._epoch = os.urandom(6).hex()
        self._listener: socket.socket | None = None

    # -- for the two kinds

    def _command(self) -> list[str]:
        raise NotImplementedError

    def _directory_name(self) -> str:
        return self._name

    def _after_create(self) -> None:
        """Put more into the new directory."""

    def _process_environment(self) -> dict[str, str]:
        """The instance's own. No Flux broker starts with a variable that is not UTF-8; jobs get it by their request."""
        kept = {k: v for k, v in self._environ.items() if k not in _NOT_FOR_FLUX and is_text(k + v)}
        # Flux's scripts have sockets as stdin. Debian's bash takes one for a remote login and reads ~/.bashrc, where
        # this does not say that there is a shell around it; what stands there may take a second, or wait for ever.
        return {**kept, "SHLVL": "1"}

    def _agent_arguments(self, engine: str, command: str) -> list[str]:
        run = self._config.run
        return [
            str(self._directory.agent), command,
            "--directory", str(self._directory.path),
            "--run", self._name,
            "--engine", engine,
            "--idle-timeout", str(run.idle_timeout),
            "--orphan-timeout", str(run.orphan_timeout),
            "--notify", str(self._directory.notice),
            *(["--pilot", run.pilot] if engine == "flux" and run.pilot != "off" else []),
        ]  # fmt: skip

    # -- Provisioner

    def endpoint_is_tentative(self) -> bool:
        # One that ends takes its socket away before it gives up its directory; `wait_ready` waits for what comes next.
        return self._adopted and self._found is None and self._directory.alive() and not self._answers()

    def inherits_environment(self) -> bool:
        return True

    def ensure(self) -> None:
        self._found = None
        with self._directory.locked():
            if self._process is not None:
                raise ProvisionError(f"the instance ended as soon as it had begun{self._log_text()}")
            self._adopted = self._directory.alive()
            if self._adopted:
                self._which = self._directory.which()
                return
            try:
                self._start()
            except (OSError, ProvisionError) as err:
                self._tidy()
                shutil.rmtree(self._directory.path, ignore_errors=True)
                if isinstance(err, ProvisionError):
                    raise
                raise ProvisionError(f"no instance could be started in {self._directory.path}: {err}") from err

    def _start(self) -> None:
        command = self._command()
        lock = self._directory.create(agent_archive())
        self._which = self._directory.which()
        # The keeper is of this Python, and of nothing that a user can have put into its way.
        argv = [sys.executable, "-I", "-S", str(self._directory.agent), "keep"]
        argv += [str(self._directory.path), str(self._directory.log), *command]
        with open(lock, "rb") as held, self._directory.log.open("wb") as log:
            self._after_create()
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(str(self._directory.notice))
            self._listener.listen(1)
            self._process = subprocess.Popen(
                argv,
                stdin=held,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd="/",
                env=self._process_environment(),
                start_new_session=True,  # a Ctrl-C is for the client, which then decides
            )

    def find(self, patience: float) -> None:
        if not self._directory.alive():
            raise ProvisionError(f"there is no instance {self._name} on this machine")
        self._which = self._directory.which()
        self._adopted = True
        self._found = patience

    def wait_ready(self, report_progress: Callable[[str], None]) -> Endpoint:
        try:
            if self._adopted:
                self._wait_adopted()
            else:
                self._wait_started()
        except OSError as err:  # no file descriptor left, say
            raise ProvisionError(f"the instance {self._name} cannot be waited for: {err}") from err
        finally:
            self._tidy()
        return UnixEndpoint(str(self._directory.socket))

    def _wait_started(self) -> None:
        assert self._listener is not None and self._process is not None
        pidfd = os.pidfd_open(self._process.pid)
        try:
            poll = select.poll()
            poll.register(self._listener, select.POLLIN)
            poll.register(pidfd, select.POLLIN)
            ready = {fd for fd, _ in poll.poll(START_LIMIT * 1000)}
        finally:
            os.close(pidfd)
        if self._listener.fileno() in ready:
            self._read_notice()
            return
        if ready:
            code = self._process.wait()
            raise ProvisionError(f"the instance ended while it started (exit code {code}){self._log_text()}")
        self._kill()
        raise ProvisionError(f"the instance did not come up within {START_LIMIT:g} s{self._log_text()}")

    def _read_notice(self) -> None:
        assert self._listener is not None
        connection, _ = self._listener.accept()
        with connection, connection.makefile("rb") as lines:
            notice = json.loads(lines.readline())
        if "message" in notice:
            self._wait_end(10.0)
            self._directory.remove_log()
            kind = GuestError if notice.get("code") == "not-possible" else ProvisionError
            raise kind(str(notice["message"]))

    def _wait_adopted(self) -> None:
        """An agent holds the directory: it is up, or its supervisor is starting it again, or it is ending."""
        limit = START_LIMIT if self._found is None else self._found
        deadline = time.monotonic() + limit
        while not self._answers():
            if not self._directory.alive():
                if self._found is not None:
                    raise ProvisionError(f"the instance {self._name} has just ended")
                self.ensure()
                if not self._adopted:
                    self._wait_started()
                    return
            if time.monotonic() > deadline:
                if self._found is not None and self._directory.socket.exists():
                    raise EndingError(f"the agent of {self._name} accepts no clients any more")
                raise ProvisionError(
                    f"the instance in {self._directory.path} has no agent that answers within {limit:g} s; it is kept "
                    f"by {self._directory.holder()}: continue or end that process, or use another run"
                )
            # Another client's start or an ending agent: nothing tells us of either, so look again shortly.
            time.sleep(0.1)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self._directory.socket)) == 0

    def patience(self) -> float:
        return START_LIMIT  # its supervisor starts it again in a second, or it never comes back

    def adopted(self) -> bool:
        return self._adopted

    def gone(self) -> str | None:
        if self._process is not None:
            code = self._process.poll()
            return None if code is None else f"the instance ended (exit code {code}){self._log_text()}"
        try:
            return None if self._directory.alive() else "the instance has ended"
        except ProvisionError:  # it may be there, then
            return None

    def in_use(self) -> str | None:
        return usage.seen(self._directory.socket)

    def detach(self) -> None:
        if self._process is not None:
            self._process.returncode = 0  # nobody waits for it any more, and Python need not warn of that
        self._tidy()

    def abandon(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._kill()
            self._directory.remove_log()  # nobody asks why it has ended
        self._tidy()

    def delete(self) -> None:
        if self._process is not None and not self._wait_end(STOP_LIMIT):
            self._kill()
        elif not self._directory.wait_gone(self._which, STOP_LIMIT):
            self._sweep()
        if self._process is not None and not self._directory.path.exists():
            self._directory.remove_log()
        self._tidy()

    # -- small parts

    def _wait_end(self, limit: float) -> bool:
        assert self._process is not None
        try:
            self._process.wait(limit)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _kill(self) -> None:
        """The keeper ends all that is its instance, also when nobody waits for it any more."""
        assert self._process is not None
        self._process.terminate()
        self._process.send_signal(signal.SIGCONT)
        if not self._wait_end(KEEPER_LIMIT):
            self._process.kill()
            self._wait_end(1.0)
            self._sweep()
        self._directory.wait_gone(self._which, 1.0)

    def _sweep(self) -> None:
        """End an instance whose keeper does not, by its mark; of one that was attached to, nothing has it."""
        try:
            with self._directory.locked():
                if self._which is not None and self._directory.which() == self._which:
                    sweep(str(self._directory.path))
        except ProvisionError as err:
            log.warning("%s may not have ended: %s", self._name, err)
        self._directory.wait_gone(self._which, SWEEP_LIMIT)

    def _tidy(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def _flux(self) -> str | None:
        return shutil.which("flux", path=self._environ.get("PATH"))

    def _where(self) -> str:
        """Where its files are, where they are not in the usual place."""
        return f"; its files are in {self._place.path}, since {self._place.reason}" if self._place.reason else ""

    def _log_text(self) -> str:
        tail = self._directory.log_tail()
        return f"; the end of its log:\n{tail}" if tail else ""
