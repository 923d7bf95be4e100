"""The run's Flux instance as the executor uses it: made when the first job needs it, so that a run without jobs for it
(nothing to do, a dry run, local rules only, an ``onstart:`` that fails) starts nothing and leaves nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from snakemake_interface_executor_plugins.settings import SharedFSUsage

from executors import ExecutorsError, RunId, Session, load_config, open_session
from executors.config import describe
from snakemake_executor_flux import leftovers, logs
from snakemake_executor_flux.efficiency import Efficiency
from snakemake_executor_flux.importing import without_the_workflow
from snakemake_executor_flux.places import NotShared, RemotePaths, find_places
from snakemake_executor_flux.resources import NodeShape
from snakemake_executor_flux.runfile import RunFile
from snakemake_executor_flux.settings import ExecutorSettings, UserError
from snakemake_executor_flux.steps.warm import WarmServers
from snakemake_executor_flux.survivors import Survivors

#: In the environment of each of our jobs: the run that it belongs to, and its cores (for the provisioner local).
INSIDE = "FLUX_OPERATOR_JOB_OF"
CORES = "FLUX_OPERATOR_JOB_CORES"


class Instance:
    """Everything that exists only once there is an instance. ``open`` makes it; the rest is valid after that."""

    session: Session
    places: RemotePaths
    shape: NodeShape
    logdir: Path
    efficiency: Efficiency
    #: Jobs that an earlier Snakemake has left in the instance.
    survivors: Survivors
    warm: WarmServers
    #: The environment that jobs inherit; None: one of another machine.
    inherited: Mapping[str, str] | None

    def __init__(self, workflow: Any, settings: ExecutorSettings, logger: Any) -> None:
        """Raises UserError at a config that cannot be used."""
        self._workflow = workflow
        self._settings = settings
        self._logger = logger
        self.cwd = os.getcwd()
        self.is_open = False
        try:
            with without_the_workflow():
                config = load_config(_shown(settings.config), options=settings.config_options())
        except (ExecutorsError, OSError) as err:
            raise _error(err) from None
        for line in describe(config):
            logger.debug(f"flux-operator: {line}")
        if config.run.provisioner is None and INSIDE in os.environ:
            # The instance that FLUX_URI names has given its cores to the job that this is: nothing would ever start.
            config = replace(config, run=replace(config.run, provisioner="local"))
            self._announce(f"inside a job of run {os.environ[INSIDE]}: an instance of its own within that job's cores")
        self._config = config
        if settings.namespace is not None and config.run.provisioner not in ("direct", "operator"):
            logger.warning(
                f"flux-operator: --flux-operator-namespace {settings.namespace} has no effect here; for Kubernetes add "
                "--flux-operator-provisioner direct or operator"
            )

    def open(self) -> None:
        """Get or make the instance, once. Raises UserError; nothing is left behind then."""
        if not self.is_open:
            with without_the_workflow():
                self._open()

    def _open(self) -> None:
        self.run = RunFile(Path(self.cwd))
        if self.run.has_company:
            self._announce("another Snakemake works in this directory; this one has a run of its own")
        try:
            self.logdir = logs.log_directory(self._settings.logdir, self.run.id)
        except OSError as err:
            self._forget_run()
            where = "--flux-operator-logdir" if self._settings.logdir is not None else "the log directory"
            raise UserError(f"flux-operator: {where}: logs cannot be written there: {err}") from None
        self.efficiency = Efficiency(self.logdir)
        environ = dict(os.environ)
        try:
            self.session = open_session(
                RunId("snakemake", self.run.id),
                self._config,
                environ=environ,
                report_progress=self._announce,
                auto_acknowledge=False,
            )
        except (ExecutorsError, OSError) as err:
            self._forget_run()
            raise _error(err) from None
        try:
            self.places = self._find_places()
            self.survivors = Survivors(self.session, self._workflow, self._logger, resumed=self.run.resumed)
            self.shape = self._largest_node()
        except BaseException as err:
            self.session.close()
            self._forget_run()
            if isinstance(err, ExecutorsError | NotShared):
                raise _error(err) from None
            raise
        self.inherited = None if self.session.remote else environ
        self.warm = WarmServers(
            self.session.start_helper, self.run.id, self.places, inherits=self.inherited is not None
        )
        if not self.run.has_company:
            leftovers.remove_of_other_runs(self.run.id)
        self.is_open = True

    def close(self, *, keep: bool) -> None:
        """Leave the instance, and end it unless it is to be kept."""
        if keep:
            self.session.leave()
        else:
            self.session.release()
        if self._settings.logdir is None:  # else others may be about to write there
            logs.remove_empty_directories(self.logdir)
        if not keep:
            leftovers.remove_of_jobs(self.survivors.keys())
            self.run.remove()

    def _announce(self, line: str) -> None:
        self._logger.info(f"flux-operator: {line}")

    def _forget_run(self) -> None:
        if not self.run.resumed:
            self.run.remove()

    def _find_places(self) -> RemotePaths:
        shared = self._workflow.storage_settings.shared_fs_usage
        return find_places(
            self.session.path_kinds,
            self.cwd,
            remote=self.session.remote,
            files_shared=SharedFSUsage.INPUT_OUTPUT in shared,
            software_shared=SharedFSUsage.SOFTWARE_DEPLOYMENT in shared,
            unwritable=self.session.unwritable,
            logs=str(self.logdir),
        )

    def _largest_node(self) -> NodeShape:
        nodes = [node for node in self.session.nodes() if node.cores]
        cores = max((node.cores for node in nodes), default=1)
        memory = min((node.memory for node in nodes if node.memory and node.cores == cores), default=None)
        # As Snakemake does on one machine: a rule that asks for more threads than a node has gets what there is.
        limit = self._workflow.resource_settings.max_threads
        if limit is None or limit > cores:
            self._workflow.resource_settings.max_threads = cores
            self._logger.debug(f"flux-operator: threads are limited to {cores}, the cores of the largest node")
        return NodeShape(cores, memory)


def _shown(path: Path | None) -> Path | None:
    """A path as short as it can be: what is wrong in the file is said with its name."""
    here = Path.cwd()
    return path.relative_to(here) if path is not None and path.is_relative_to(here) else path


def _error(err: Exception) -> UserError:
    return UserError(f"flux-operator: {err}")
