"""An agent on this machine: inside an instance that we start (local), or beside one that is there (attach)."""

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
import zlib
from collections.abc import Callable, Mapping

from executors.agent.sweeping import sweep
from executors.agent.wire import MARK, is_text, mark_value
from executors.config import RunConfig
from executors.errors import EndingError, GuestError, ProvisionError
from executors.provision import usage
from executors.provision.package import agent_archive
from executors.provision.rundir import RunDirectory, find_place, prune
from executors.transport import Endpoint, UnixEndpoint

log = logging.getLogger(__name__)

#: Seconds for an instance on this machine to come up, and to go.
START_LIMIT = 60.0
STOP_LIMIT = 90.0
#: Seconds for its keeper to end it by force (`executors.agent.keeper`: its limit, and what it gives what is left).
KEEPER_LIMIT = 45.0
#: Seconds for its keeper to tidy up after it was swept.
SWEEP_LIMIT = 20.0

#: Set by adapters in the environment of their jobs: the cores of the job.
JOB_CORES = "FLUX_OPERATOR_JOB_CORES"
#: Of the client's environment, what would make a new instance or Flux's Python something else than it is.
_NOT_FOR_FLUX = ("FLUX_URI", "FLUX_JOB_ID", "FLUX_KVS_NAMESPACE", "PYTHONPATH", "PYTHONHOME")


class _AgentHere:
    """What local and attach share: a run directory, one process, its start and its end."""

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
        """The instance's own. A Flux broker does not start with a variable that is not UTF-8; jobs have it from us."""
        return {k: v for k, v in self._environ.items() if k not in _NOT_FOR_FLUX and is_text(k + v)}

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
        ]  # fmt: skip

    # -- Provisioner

    def early(self) -> bool:
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

    def wait_ready(self, announce: Callable[[str], None]) -> Endpoint:
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
                    raise EndingError(f"the agent of {self._name} takes nobody any more")
                raise ProvisionError(
                    f"the instance in {self._directory.path} has no agent that answers within {limit:g} s; it is kept "
                    f"by {self._directory.holder()}: let that go on, or end it, or use another run"
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
        return f"; its last words:\n{tail}" if tail else ""


class LocalProvisioner(_AgentHere):
    """`flux start` on this machine, or the embedded engine where Flux is not installed."""

    def describe(self) -> str:
        what = "the run's own instance, running already" if self._adopted else self._kind()
        return f"provisioner: local ({self._reason}): {what}{self._where()}"

    def _engine(self) -> str:
        return self._config.run.engine or ("flux" if self._flux() else "embedded")

    def _kind(self) -> str:
        if self._engine() == "embedded":
            return f"the embedded engine, {'asked for' if self._config.run.engine else 'since no flux is on PATH'}"
        count = self._config.run.brokers
        return f"flux start with {count} broker{'s' if count > 1 else ''}"

    def _after_create(self) -> None:
        (self._directory.path / "epoch").write_text(self._epoch)

    def _command(self) -> list[str]:
        # Everything but the keeper and its sweeper carries the mark: what has it is swept.
        return ["env", f"{MARK}={mark_value(self._epoch, self._environ)}", *self._instance()]

    def _cores(self) -> list[str]:
        """Inside a job, the embedded engine has that job's cores; under Flux the job is bound to them."""
        given = self._environ.get(JOB_CORES, "")
        return ["--cores", given] if given.isdecimal() and int(given) > 0 else []

    def _instance(self) -> list[str]:
        if self._engine() == "embedded":
            return [sys.executable, *self._agent_arguments("embedded", "serve"), *self._cores()]
        flux = self._flux()
        if flux is None:
            raise ProvisionError("run.engine is flux, but no flux is on PATH; install Flux, or use embedded")
        # A single broker's sockets go where the keeper tidies up; for several, `flux start` wants a place of its own.
        one = self._config.run.brokers == 1
        size = [f"-Srundir={self._directory.path}"] if one else ["-s", str(self._config.run.brokers)]
        agent = [flux, "python", *self._agent_arguments("flux", "supervise")]
        # The agent has ended all jobs when the instance ends; Flux's four commands to do so, one after the other,
        # would take most of the time of its end (0.6 of 0.8 s). A Flux that does not know the variable runs them.
        without_cleanup = ["env", "FLUX_DISABLE_JOB_CLEANUP=1"]
        return [*without_cleanup, flux, "start", *size, f"-Sstatedir={self._directory.path}", *agent]


class AttachProvisioner(_AgentHere):
    """An agent beside the instance that FLUX_URI names: it never ends, drains or times out that instance."""

    def describe(self) -> str:
        uri = self._environ.get("FLUX_URI", "(FLUX_URI is not set)")
        return f"provisioner: attach ({self._reason}): {uri}{self._where()}"

    def ensure(self) -> None:
        if not self._environ.get("FLUX_URI"):
            raise ProvisionError(
                "attach: FLUX_URI is not set, so there is no instance to attach to; run inside `flux start`, "
                "`flux alloc` or `flux batch`, or use the provisioner local"
            )
        if self._flux() is None:
            raise ProvisionError("attach: no flux is on PATH; its own Python is needed to talk to the instance")
        super().ensure()

    def _directory_name(self) -> str:
        # An agent that was left in another instance must not be taken for one in this.
        return f"{self._name}-{zlib.crc32(os.fsencode(self._environ.get('FLUX_URI', ''))):08x}"

    def _command(self) -> list[str]:
        flux = self._flux()
        assert flux is not None  # ensure has looked
        return [flux, "python", *self._agent_arguments("flux", "supervise"), "--guest"]

    def _process_environment(self) -> dict[str, str]:
        return {**super()._process_environment(), "FLUX_URI": self._environ["FLUX_URI"]}
