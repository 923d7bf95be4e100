"""FluxHook: where a DAG run's instances are made, and sessions with them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook, conf

from airflow_provider_flux.cluster_reference import DEFAULT_CONNECTION, MiniCluster
from airflow_provider_flux.connection import Settings, config_content, read_settings
from airflow_provider_flux.environment import inheritable
from airflow_provider_flux.names import deployment_id, make_run_id

if TYPE_CHECKING:
    from executors import RunConfig, Session
    from executors.memory_file import MemoryFile

#: Executors whose tasks all run on the machine of the scheduler.
_ONE_HOST = ("LocalExecutor", "SequentialExecutor", "DebugExecutor")

#: Keys of the config by which an instance is found, joined and waited for. Airflow's database and XComs keep them in
#: clear, so that no key is here that may hold a secret.
_JOINING = (
    "run.provisioner", "run.engine", "run.namespace", "run.kubeconfig", "run.context", "run.idleTimeout",
    "run.orphanTimeout", "run.startTimeout", "run.scheduleTimeout", "run.maxLifetime", "run.ttl",
)  # fmt: skip


class FluxHook(BaseHook):
    """Sessions with the instances of DAG runs, by a connection of type ``flux``.

    Without a connection of the default name, instances are made on this machine (provisioner local).
    """

    conn_name_attr = "flux_conn_id"
    default_conn_name = DEFAULT_CONNECTION
    conn_type = "flux"
    hook_name = "Flux"

    def __init__(self, flux_conn_id: str = DEFAULT_CONNECTION, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.flux_conn_id = flux_conn_id
        self._settings: Settings | None = None

    def settings(self) -> Settings:
        """Read the connection. Raises AirflowNotFoundException, or ConfigError for what it holds."""
        if self._settings is None:
            connection = None
            try:
                connection = self.get_connection(self.flux_conn_id)
            except AirflowNotFoundException as err:
                self._may_be_missing(err)
            self._settings = read_settings(self.flux_conn_id, connection)
        return self._settings

    async def load(self) -> None:
        """Read the connection as `settings` does, without holding up the loop (in Airflow 2 by a thread)."""
        asking = getattr(BaseHook, "aget_connection", None)
        connection = None
        try:
            if asking is not None:
                connection = await asking(self.flux_conn_id)
            else:
                connection = await asyncio.to_thread(self.get_connection, self.flux_conn_id)
        except AirflowNotFoundException as err:
            self._may_be_missing(err)
        self._settings = await asyncio.to_thread(read_settings, self.flux_conn_id, connection)

    def _may_be_missing(self, err: Exception) -> None:
        """The one of the default name may be missing, no other one."""
        if self.flux_conn_id != DEFAULT_CONNECTION:
            raise AirflowNotFoundException(f"flux_conn_id: {self.flux_conn_id!r} is not a connection") from err

    def run_config(self, config: str | Mapping[str, Any] | None = None, folder: str | None = None) -> RunConfig:
        """The config of a run: the connection's fields, over ``config`` (a path, relative to ``folder``, or content),
        over the connection's own config. Raises ConfigError.
        """
        from executors import load_config

        settings = self.settings()
        content = config_content(config if config is not None else settings.config, folder)
        options = {f"run.{name}": value for name, value in settings.options.items()}
        if settings.kubeconfig is not None:
            options["run.kubeconfig"] = _private_file(settings.kubeconfig)
        run_config = load_config(content, options=options)
        _must_fit_executor(run_config)
        return run_config

    def open_session(
        self,
        minicluster: MiniCluster,
        dag_id: str,
        run_id: str,
        folder: str | None,
        report_progress: Callable[[str], None],
    ) -> Session:
        """Get or create a DAG run's MiniCluster. Raises what `executors.open_session` does."""
        from executors import open_session

        config = self.run_config(minicluster.config, folder)
        if self.settings().source == "":
            report_progress(f"no connection {self.flux_conn_id!r}: instances are made on this machine")
        run = make_run_id(deployment_id(), dag_id, run_id, minicluster.name)
        return open_session(
            run, config, environ=self.environment(), report_progress=report_progress, auto_acknowledge=False
        )

    def join_session(
        self, run_name: str, options: Mapping[str, object], report_progress: Callable[[str], None]
    ) -> Session:
        """Join an instance by its `reconnect_options`. Raises what `executors.join_session` does."""
        from executors import join_session, load_config

        merged = dict(options)
        kubeconfig = self.settings().kubeconfig
        if kubeconfig is not None:  # the connection's own, which does not travel
            merged["run.kubeconfig"] = _private_file(kubeconfig)
        config = load_config(None, environ={}, options=merged)

        def told(line: str) -> None:
            # Which instance it is was told when it was opened; what is wrong with it is always news.
            (self.log.warning if line.startswith("warning: ") else report_progress)(line)

        return join_session(run_name, config, environ=self.environment(), report_progress=told)

    def environment(self) -> dict[str, str]:
        """What instances and jobs on this machine inherit."""
        return inheritable(os.environ)

    def end_run(self, minicluster: MiniCluster, dag_id: str, run_id: str, folder: str | None) -> str:
        """End a DAG run's MiniCluster, if it is there. Returns its name."""
        from executors import end_run, run_name

        name = run_name(make_run_id(deployment_id(), dag_id, run_id, minicluster.name))
        end_run(name, self.run_config(minicluster.config, folder), environ=self.environment())
        return name

    def test_connection(self) -> tuple[bool, str]:
        """For the button of the connection form: whether instances could be made."""
        from executors import ExecutorsError
        from executors.instances import instances

        try:
            config = self.run_config()
            found = instances(config, self.environment())
        except ExecutorsError as err:
            return False, str(err)
        where = f"namespace {config.run.namespace or 'of the context'}" if _remote(config) else "this machine"
        return True, f"reached {where} (provisioner {config.run.provisioner or 'local'}); {len(found)} instances there"


def reconnect_options(config: RunConfig) -> dict[str, object]:
    """The part of a config by which an instance is found again, without secrets and without the DAG's files."""
    from executors.config import KEYS

    found = {
        key: getattr(config.run, KEYS[key].field) for key in _JOINING if config.origins.get(key, "default") != "default"
    }
    own = [file.path for file in _files.values()]
    return {key: value for key, value in found.items() if key != "run.kubeconfig" or value not in own}


def _must_fit_executor(config: RunConfig) -> None:
    """Instances on this machine are found by tasks on this machine only. Raises ConfigError."""
    from executors import ConfigError

    if _remote(config) or config.run.provisioner == "attach":
        return
    executor = str(conf.get("core", "executor", fallback="LocalExecutor"))
    names = [name.strip().rsplit(":", 1)[-1].rsplit(".", 1)[-1] for name in executor.split(",")]
    names = [name for name in names if name and name not in _ONE_HOST]
    if names:
        raise ConfigError(
            [
                f"provisioner: local cannot be used with {', '.join(names)}: tasks on other machines would each make "
                "an instance of their own; give direct or operator in the connection, or use the LocalExecutor"
            ]
        )


def _remote(config: RunConfig) -> bool:
    return config.run.provisioner in ("direct", "operator")


def _private_file(content: str) -> str:
    """A path at which this process can read a kubeconfig that a connection holds as text."""
    from executors.memory_file import MemoryFile

    file = _files.get(content)
    if file is None or not file.there:
        file = _files[content] = MemoryFile(content)
    return file.path


#: Kept, since sessions read them again when credentials expire.
_files: dict[str, MemoryFile] = {}
