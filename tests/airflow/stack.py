"""A running Airflow: API server, scheduler with local workers, DAG processor and triggerer, as real processes."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import psutil

from executors import end_run, load_config
from executors.instances import instances
from tests.airflow.component import Component
from tests.airflow.environment import airflow_environment
from tests.airflow.rest import Json, Rest, RestError, quoted
from tests.airflow.waiting import Found, until
from tests.processes import alive

# Component -> its name in the answer about health, which the API server gives. The server of logs is left out: it has
# a fixed port, and those that read logs here see the files.
COMPONENTS = {"api-server": "", "scheduler": "scheduler", "dag-processor": "dag_processor", "triggerer": "triggerer"}
_ARGUMENTS = {"scheduler": ["--skip-serve-logs"], "triggerer": ["--skip-serve-logs"]}
ENDED = ("success", "failed")


class Worker(NamedTuple):
    """The two processes that run a task instance."""

    supervisor: int
    """Airflow's own, one of the LocalExecutor's; what a pod or host that is told to end signals."""
    task: int
    """The child that runs the operator."""


class AirflowStack:
    """Started by ``with``; all limits are in seconds, and for what never comes."""

    def __init__(
        self, home: Path, database: Path, dags_folder: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        """``home`` is an empty directory, ``database`` what ``create_database`` made, and stays as it is;
        ``environment`` adds to Airflow's (``AIRFLOW_CONN_...``)."""
        self.home = home
        self._database = database
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.deployment = f"t{secrets.token_hex(3)}"
        self.environment = airflow_environment(
            home,
            dags_folder,
            {
                "AIRFLOW__API__HOST": "127.0.0.1",
                "AIRFLOW__API__PORT": str(port),
                "AIRFLOW__API__BASE_URL": self.url,
                "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
                "AIRFLOW__FLUX__DEPLOYMENT_ID": self.deployment,
                **(environment or {}),
            },
        )
        self.rest = Rest(self.url)
        self._components = {
            name: Component([name, *_ARGUMENTS.get(name, [])], self.environment, home / f"{name}.out")
            for name in COMPONENTS
        }

    def __enter__(self) -> Self:
        shutil.copy(self._database, self.home)
        try:
            for component in self._components.values():
                component.start()
            for name in COMPONENTS:
                self._wait_healthy(name)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Told to end, then killed: no process of it is left, orphaned workers included."""
        started = [component for component in self._components.values() if component.started()]
        for component in started:
            with contextlib.suppress(ProcessLookupError):
                component.kill(signal.SIGTERM)
        for component in started:
            # A scheduler waits for its tasks; the tests that matter have ended theirs.
            with contextlib.suppress(subprocess.TimeoutExpired):
                component.wait(5)
        for component in started:
            component.kill_all()
        strays = [psutil.Process(pid) for pid in self.strays()]
        for number in (signal.SIGTERM, signal.SIGKILL):
            for process in strays:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(number)
            _, strays = psutil.wait_procs(strays, timeout=10)
        # They do not have Airflow's variables, but its deployment id in their names.
        config = load_config(None, environ={}, options={"run.provisioner": "local"})
        for instance in instances(config, os.environ):
            if instance.name.startswith(f"airflow-{self.deployment}-"):
                end_run(instance.name, config)
        assert not strays, f"processes that SIGKILL does not end: {strays}"

    # Components

    def pid(self, component: str) -> int:
        return self._components[component].pid

    def members(self) -> list[int]:
        """All processes of all components."""
        return [pid for component in self._components.values() for pid in component.members()]

    def strays(self) -> list[int]:
        """What tasks and triggers started that left their component's session, Flux instances for one."""
        found = set(_with_home(self.home)) - set(self.members())
        return sorted(pid for pid in found if alive(pid))

    def kill(self, component: str, number: signal.Signals = signal.SIGTERM, limit: float = 60) -> None:
        """Sends the signal to the component's main process, and returns when that has ended."""
        self._components[component].kill(number)
        self._components[component].wait(limit)

    def lose(self, component: str) -> None:
        """SIGKILL for the component and all that it started, workers included."""
        self._components[component].kill_all()

    def start(self, component: str) -> None:
        """Again after ``kill`` or ``lose``."""
        self._components[component].start()
        self._wait_healthy(component)

    def restart(self, component: str, number: signal.Signals = signal.SIGTERM) -> None:
        self.kill(component, number)
        self.start(component)

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """``airflow ARGUMENTS`` as its administrator would type it."""
        return subprocess.run(
            [sys.executable, "-m", "airflow", *arguments],
            env=self.environment,
            cwd=self.home,
            capture_output=True,
            text=True,
            check=False,
        )

    # Runs

    def trigger(
        self, dag_id: str, conf: Mapping[str, Json] | None = None, run_id: str | None = None, limit: float = 60
    ) -> str:
        """Waits until the DAG is known; the id of the new run."""
        self._wait(lambda: self._known(dag_id), limit, lambda: f"DAG {dag_id} is not known. {self._import_errors()}")
        if self.rest.get(quoted("dags", dag_id))["is_paused"]:
            self.rest.call("PATCH", quoted("dags", dag_id), {"is_paused": False})
        body = {"logical_date": None, "conf": dict(conf or {}), **({"dag_run_id": run_id} if run_id else {})}
        return str(self.rest.call("POST", quoted("dags", dag_id, "dagRuns"), body)["dag_run_id"])

    def run(self, dag_id: str, run_id: str) -> Json:
        return self.rest.get(_run(dag_id, run_id))

    def wait_run(self, dag_id: str, run_id: str, limit: float = 120) -> str:
        """The state in which the run ended."""

        def ended() -> str:
            state = str(self.run(dag_id, run_id)["state"])
            return state if state in ENDED else ""

        return self._wait(ended, limit, lambda: f"run {run_id} of {dag_id}: {self._states(dag_id, run_id)}")

    def set_run_state(self, dag_id: str, run_id: str, state: str) -> None:
        self.rest.call("PATCH", _run(dag_id, run_id), {"state": state})

    def delete_run(self, dag_id: str, run_id: str) -> None:
        self.rest.call("DELETE", _run(dag_id, run_id))

    def clear(self, dag_id: str, run_id: str, task_ids: Sequence[str | tuple[str, int]], **options: bool) -> list[Json]:
        """As the button does; (task, map index) for one of a mapped task. ``options``: include_downstream, ..."""
        body = {"dry_run": False, "only_failed": False, "dag_run_id": run_id, "task_ids": list(task_ids), **options}
        answer = self.rest.call("POST", f"{quoted('dags', dag_id)}/clearTaskInstances", body)
        return list(answer["task_instances"])

    # Task instances

    def task_instances(self, dag_id: str, run_id: str) -> list[Json]:
        """All of the run, mapped ones each."""
        found: list[Json] = []
        while True:
            page = self.rest.get(f"{_run(dag_id, run_id)}/taskInstances", limit=100, offset=len(found))
            found += page["task_instances"]
            if len(found) >= page["total_entries"] or not page["task_instances"]:
                return found

    def task_instance(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> Json:
        return self.rest.get(_task(dag_id, run_id, task_id, map_index))

    def wait_task(
        self,
        dag_id: str,
        run_id: str,
        task_id: str,
        states: Collection[str],
        map_index: int = -1,
        limit: float = 60,
        try_number: int = 0,
    ) -> Json:
        """The task instance in one of these states, in this try or a later one."""

        def reached() -> Json:
            try:
                found = self.task_instance(dag_id, run_id, task_id, map_index)
            except RestError as error:
                # A mapped task has its instances when what it is mapped over is known.
                if error.status == 404:
                    return None
                raise
            return found if found["state"] in states and found["try_number"] >= try_number else None

        return self._wait(reached, limit, lambda: f"{task_id} is not in {list(states)}: {self._states(dag_id, run_id)}")

    def set_task_state(self, dag_id: str, run_id: str, task_id: str, state: str, map_index: int | None = None) -> None:
        """``failed``, ``success`` or ``skipped``, as the button does; without an index for all of a mapped task."""
        path = f"{_run(dag_id, run_id)}/taskInstances{quoted(task_id)}"
        self.rest.call("PATCH", path if map_index is None else path + quoted(map_index), {"new_state": state})

    def worker(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1, limit: float = 60) -> Worker:
        """What runs the task instance; waits until it does."""

        def found() -> Worker | None:
            task = self.task_instance(dag_id, run_id, task_id, map_index)
            if task["state"] != "running" or not task["pid"] or not alive(task["pid"]):
                return None
            members = self._components["scheduler"].members()
            if task["pid"] not in members:
                return None
            return Worker(supervisor=psutil.Process(task["pid"]).ppid(), task=task["pid"])

        return self._wait(found, limit, lambda: f"no worker runs {task_id}: {self._states(dag_id, run_id)}")

    def log(self, dag_id: str, run_id: str, task_id: str, try_number: int = 1, map_index: int = -1) -> str:
        """The lines of a task's log that the UI shows now, errors with their details."""
        path = f"{_run(dag_id, run_id)}/taskInstances{quoted(task_id, 'logs', try_number)}"
        answer = self.rest.get(path, map_index=map_index, full_content="true")
        return "\n".join(_line(entry) for entry in answer["content"])

    def wait_log(
        self,
        dag_id: str,
        run_id: str,
        task_id: str,
        text: str,
        try_number: int = 1,
        map_index: int = -1,
        limit: float = 60,
    ) -> str:
        """The log when it holds the text."""
        seen = ""

        def holds() -> str:
            nonlocal seen
            try:
                seen = self.log(dag_id, run_id, task_id, try_number, map_index)
            except RestError as error:
                # There is no such try yet.
                if error.status != 404:
                    raise
            return seen if text in seen else ""

        return self._wait(holds, limit, lambda: f"{text!r} is not in the log of {task_id}:\n{seen}")

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value", map_index: int = -1) -> Json:
        """As stored: "deserialized" turns "42" into 42. RestError with status 404 where there is none."""
        path = f"{_run(dag_id, run_id)}/taskInstances{quoted(task_id, 'xcomEntries', key)}"
        return self.rest.get(path, map_index=map_index)["value"]

    def links(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> dict[str, str | None]:
        """The extra links: name -> address."""
        path = f"{_run(dag_id, run_id)}/taskInstances{quoted(task_id, 'links')}"
        return dict(self.rest.get(path, map_index=map_index)["extra_links"])

    # Waiting

    def _wait_healthy(self, name: str) -> None:
        component = self._components[name]

        def healthy() -> bool:
            assert component.running(), f"Airflow's {name} ended at its start:\n{component.tail()}"
            try:
                health = self.rest.health()
            except OSError:
                # The API server does not listen yet.
                return False
            if name == "api-server":
                return True
            beat = health[COMPONENTS[name]][f"latest_{COMPONENTS[name]}_heartbeat"]
            # One from before a restart says nothing.
            return beat is not None and datetime.fromisoformat(beat).timestamp() > component.started_at

        self._wait(healthy, 120, lambda: f"Airflow's {name} is not healthy")

    def _known(self, dag_id: str) -> bool:
        try:
            self.rest.get(quoted("dags", dag_id))
        except RestError as error:
            if error.status == 404:
                return False
            raise
        return True

    def _import_errors(self) -> str:
        errors = self.rest.get("/importErrors")["import_errors"]
        return "\n".join(f"{error['filename']}: {error['stack_trace']}" for error in errors)

    def _states(self, dag_id: str, run_id: str) -> str:
        tasks = self.task_instances(dag_id, run_id)
        return ", ".join(f"{t['task_id']}[{t['map_index']}] try {t['try_number']} {t['state']}" for t in tasks)

    def _wait(self, condition: Callable[[], Found | None], limit: float, story: Callable[[], str]) -> Found:
        def whole_story() -> str:
            tails = [f"--- {name}\n{component.tail()}" for name, component in self._components.items()]
            return "\n".join([story(), *tails])

        return until(condition, limit, whole_story, pause=0.2)


def _run(dag_id: str, run_id: str) -> str:
    return quoted("dags", dag_id, "dagRuns", run_id)


def _task(dag_id: str, run_id: str, task_id: str, map_index: int) -> str:
    return f"{_run(dag_id, run_id)}/taskInstances{quoted(task_id)}{quoted(map_index) if map_index >= 0 else ''}"


def _with_home(home: Path) -> Iterator[int]:
    for process in psutil.process_iter():
        # Not those of other users, nor what has just ended.
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if process.environ().get("AIRFLOW_HOME") == str(home):
                yield process.pid


def _line(entry: Json) -> str:
    if isinstance(entry, str):
        return entry
    # The traceback of a failed task is a field beside its message.
    detail = entry.get("error_detail")
    return f"{entry['event']} {detail}" if detail else str(entry["event"])


def _free_port() -> int:
    """Free now: another process could take it before Airflow does, which then says so."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
