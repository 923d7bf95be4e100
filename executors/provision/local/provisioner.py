"""The provisioner local: an instance that the client starts on this machine."""

from __future__ import annotations

import sys

from executors.agent.wire import EPOCH_VARIABLE, epoch_chain
from executors.errors import ProvisionError
from executors.provision.local.agent import LocalAgent

#: Set by adapters in the environment of their jobs: the cores of the job.
JOB_CORES = "FLUX_OPERATOR_JOB_CORES"


class LocalProvisioner(LocalAgent):
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
        return ["env", f"{EPOCH_VARIABLE}={epoch_chain(self._epoch, self._environ)}", *self._instance()]

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
