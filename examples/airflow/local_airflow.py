"""An Airflow of one's own on this machine, to try DAGs in: its components as processes, begun and ended together.

Whatever belongs to it is known by its AIRFLOW_HOME, which all its processes have in their environment, or, for Flux
instances, by the deployment id in their names. So nothing is left of it, no matter who ended or was killed first.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

import psutil

from executors import end_run, load_config
from executors.instances import instances

Found = TypeVar("Found")

COMPONENTS = ("api-server", "scheduler", "dag-processor", "triggerer")
USER = "admin"
#: The address that Airflow has everywhere, where it is free.
_PORT = 8080
#: Seconds; each is for what never comes.
_START_LIMIT = 180.0
_STOP_LIMIT = 3.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LINES = 20


class AirflowFailedError(Exception):
    """One line that says what failed; ``tail``: the end of the log that tells more."""

    def __init__(self, message: str, tail: str = "") -> None:
        super().__init__(message)
        self.tail = tail


class LocalAirflow:
    """Started by ``with``, in the new directory ``home``; what was in it is removed.

    Others on this machine may reach the address, and those that are let in may run commands: so there is a
    ``password``."""

    def __init__(self, home: Path, dags_folder: Path) -> None:
        self.home = home
        self.password = secrets.token_urlsafe(9)
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._deployment = f"local{hashlib.sha256(os.fsencode(home)).hexdigest()[:4]}"
        self._environment = _environment(home, dags_folder, self.url, port, self._deployment)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._token = ""

    def __enter__(self) -> Self:
        if others := self._members():
            raise AirflowFailedError(
                f"an Airflow runs in {self.home} already (processes {', '.join(str(one.pid) for one in others)}); "
                "end it first"
            )
        shutil.rmtree(self.home, ignore_errors=True)
        self.home.mkdir(mode=0o700, parents=True)
        try:
            self._passwords().write_text(json.dumps({USER: self.password}))
            self._migrate()
            for name in COMPONENTS:
                self._processes[name] = self._begin([name, *_ARGUMENTS.get(name, [])], name)
            self.wait(self._healthy, _START_LIMIT, lambda: f"Airflow is not ready after {_START_LIMIT:g} s")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends all processes and all Flux instances; a signal that comes meanwhile is heard afterwards."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            for process in self._processes.values():
                process.terminate()
            psutil.wait_procs(self._members(), timeout=_STOP_LIMIT)
            while left := self._members():
                for member in left:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        member.kill()
                psutil.wait_procs(left, timeout=_STOP_LIMIT)
            for process in self._processes.values():
                process.wait()
            # Now nobody is left who would make another one.
            config = load_config(None, options={"run.provisioner": "local"})
            for instance in instances(config, os.environ):
                if instance.name.startswith(f"airflow-{self._deployment}-"):
                    end_run(instance.name, config)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def log(self, name: str) -> Path:
        """What a component wrote."""
        return self.home / f"{name}.log"

    def check(self) -> None:
        """AirflowFailedError where a component has ended by itself."""
        for name, process in self._processes.items():
            if (code := process.poll()) is not None:
                raise AirflowFailedError(f"Airflow's {name} has ended (exit code {code})", _tail(self.log(name)))

    def wait(self, condition: Callable[[], Found | None], limit: float, story: Callable[[], str]) -> Found:
        """The condition's first true value; AirflowFailedError with the story after the limit, in seconds."""
        deadline = time.monotonic() + limit
        while not (found := condition()):
            self.check()
            if time.monotonic() > deadline:
                raise AirflowFailedError(story(), _tail(self.log("scheduler")))
            time.sleep(0.5)
        return found

    def call(self, method: str, *path: str, body: Mapping[str, Any] | None = None, **query: str | int) -> Any:
        """Airflow's REST API: the answer's JSON. AirflowFailedError for a refusal, and where nobody answers."""
        # Ids of runs hold signs that addresses do not.
        url = "/api/v2" + "".join("/" + urllib.parse.quote(part, safe="") for part in path)
        try:
            if not self._token:
                answer = self._open("POST", "/auth/token", {"username": USER, "password": self.password})
                self._token = str(answer["access_token"])
            return self._open(method, f"{url}?{urllib.parse.urlencode(query)}" if query else url, body)
        except OSError as err:
            self.check()
            raise AirflowFailedError(
                f"Airflow does not answer {method} {url}: {err}", _tail(self.log("api-server"))
            ) from err

    def tail_of_task(self, dag_id: str, run_id: str, task_id: str, map_index: int, attempt: int) -> str:
        """The end of a task's log, with what its triggerer wrote, as the UI shows it."""
        path = ("dags", dag_id, "dagRuns", run_id, "taskInstances", task_id, "logs", str(attempt))
        entries = self.call("GET", *path, map_index=map_index, full_content="true")["content"]
        lines = []
        for entry in entries:
            if not entry["event"].startswith("::"):
                lines.append(entry["event"])
                lines += [f"{error['exc_type']}: {error['exc_value']}" for error in entry.get("error_detail") or ()]
        return _last(f"the log of {task_id}", lines)

    # -- small parts

    def _passwords(self) -> Path:
        return self.home / "simple_auth_manager_passwords.json.generated"

    def _migrate(self) -> None:
        code = self._begin(["db", "migrate"], "database").wait()
        if code:
            raise AirflowFailedError(f"`airflow db migrate` failed (exit code {code})", _tail(self.log("database")))

    def _begin(self, arguments: list[str], name: str) -> subprocess.Popen[bytes]:
        with self.log(name).open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "airflow", *arguments],
                env=self._environment,
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C is for the one who ends them all.
                start_new_session=True,
            )

    def _members(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            # Not those of other users, nor what has just ended.
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                if process.environ().get("AIRFLOW_HOME") == str(self.home) and process.pid != os.getpid():
                    found.append(process)
        return found

    def _healthy(self) -> bool:
        try:
            health = self._open("GET", "/api/v2/monitor/health", None)
        except OSError:
            return False  # the API server does not listen yet
        return all(health[name]["status"] == "healthy" for name in ("scheduler", "dag_processor", "triggerer"))

    def _open(self, method: str, path: str, body: Mapping[str, Any] | None) -> Any:
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=content, method=method, headers=headers)
        # Never by a proxy: it is on this machine.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=30) as response:
            return json.loads(response.read())


#: The servers of logs have fixed ports; on one machine the API server reads the files.
_ARGUMENTS = {"scheduler": ["--skip-serve-logs"], "triggerer": ["--skip-serve-logs"]}


def _environment(home: Path, dags_folder: Path, url: str, port: int, deployment: str) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "_AIRFLOW"))}
    no_proxy = ",".join(filter(None, [os.environ.get("no_proxy"), os.environ.get("NO_PROXY"), "127.0.0.1,localhost"]))
    return {
        **own,
        "NO_PROXY": no_proxy,
        "no_proxy": no_proxy,
        # Else the titles that Airflow gives its processes are written over their environment.
        "SPT_NOENV": "1",
        "PYTHONUNBUFFERED": "1",
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags_folder),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        # Workers for tasks that do not defer; each is a process.
        "AIRFLOW__CORE__PARALLELISM": "4",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USER}:admin",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": url,
        # Its components must agree on them.
        "AIRFLOW__API__SECRET_KEY": secrets.token_hex(64),
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(64),
        # Airflow's own intervals are for many tasks; here somebody looks on.
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "10",
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.25",
        # A worker may notice only after this many seconds (else 5) that its task's process has ended; meanwhile a short
        # deferral is over, and Airflow takes the task that goes on for one that was killed, and tries it again.
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
        "AIRFLOW__FLUX__DEPLOYMENT_ID": deployment,
        # Whatever else this environment says of Flux: instances are made here, and ended with this Airflow.
        "AIRFLOW_CONN_FLUX_DEFAULT": json.dumps({"conn_type": "flux", "extra": {"provisioner": "local"}}),
    }


def _free_port() -> int:
    """Free now: another process could take it before Airflow does, which then says so in its log."""
    for port in (_PORT, 0):
        with contextlib.suppress(OSError), socket.socket() as probe:
            # As the API server does: connections that were just closed do not keep a port.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise AirflowFailedError("no port is free on 127.0.0.1")


def _tail(path: Path) -> str:
    return _last(str(path), path.read_text(errors="replace").splitlines() if path.exists() else [])


def _last(name: str, lines: Sequence[str]) -> str:
    return "\n".join([f"The end of {name}:", *(f"  | {line}" for line in lines[-_LINES:])])
