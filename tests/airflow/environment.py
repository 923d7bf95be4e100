"""The environment of an Airflow of the tests' own: its home, its database, nothing of the user's."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).parents[2]


def why_missing() -> str | None:
    """What keeps Airflow from being run here, without importing it: it reads its settings when it is imported."""
    try:
        version("apache-airflow-task-sdk")
    except PackageNotFoundError:
        return "Airflow 3 is not installed; pip install -c constraints.txt '.[airflow]'"
    return None


def airflow_environment(home: Path, dags_folder: Path, extra: Mapping[str, str]) -> dict[str, str]:
    """For every process of one Airflow; ``extra`` (connections, settings) wins.

    Airflow's own intervals are for thousands of tasks: here a test waits for each of them.
    """
    own = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "_AIRFLOW"))}
    # Airflow's components and workers speak HTTP to each other on this host.
    no_proxy = ",".join(filter(None, [os.environ.get("NO_PROXY"), os.environ.get("no_proxy"), "127.0.0.1,localhost"]))
    return {
        **own,
        "NO_PROXY": no_proxy,
        "no_proxy": no_proxy,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        "PYTHONUNBUFFERED": "1",
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags_folder),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        # Short jobs are deferred too.
        "AIRFLOW__FLUX__DEFER_AFTER": "0",
        # Airflow starts all workers at once: each is a process.
        "AIRFLOW__CORE__PARALLELISM": "4",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        # Shorter ones are warned about at every signature.
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(64),
        "AIRFLOW__API__SECRET_KEY": secrets.token_hex(64),
        "AIRFLOW__LOGGING__COLORED_CONSOLE_LOG": "False",
        # New DAG files; known ones are read again when they change.
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "1",
        "AIRFLOW__DAG_PROCESSOR__BUNDLE_REFRESH_CHECK_INTERVAL": "1",
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "600",
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.25",
        # A task marked by the user is killed at its worker's next heartbeat.
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
        # How long a worker waits for children of a killed task that hold its output open.
        "AIRFLOW__WORKERS__SOCKET_CLEANUP_TIMEOUT": "2",
        # When a worker, triggerer or scheduler without heartbeats is given up: far more than a pause of a busy machine.
        # (A scheduler that misses two of them, of five seconds each by default, takes all its tasks for lost.)
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
        "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
        "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "10",
        "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "5",
        "AIRFLOW__SCHEDULER__TRIGGER_TIMEOUT_CHECK_INTERVAL": "1",
        "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
        "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "10",
        **extra,
    }


def create_database(home: Path) -> Path:
    """An SQLite file with Airflow's tables, to be copied into the home of each Airflow; 2.5 s."""
    environment = airflow_environment(home, home, {})
    done = subprocess.run(
        [sys.executable, "-m", "airflow", "db", "migrate"],
        env=environment,
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"airflow db migrate: {done.stdout}{done.stderr}"
    return home / "airflow.db"
