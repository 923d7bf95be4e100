"""``dag.test()`` in a process of its own: Airflow reads its settings when it is imported."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.airflow.environment import ROOT, airflow_environment
from tests.airflow.rest import Json


@dataclass(frozen=True)
class DagRunOutcome:
    state: str
    tasks: dict[str, str | None]
    """Task id, with ``[map index]`` for a mapped task's -> state."""
    log: str
    """What the whole run wrote, tasks and Airflow itself."""
    xcoms: dict[str, dict[str, Json]] = field(default_factory=dict)
    """Named as in ``tasks`` -> key -> value."""


class DagTest:
    """Runs DAGs one after the other on one database."""

    def __init__(self, home: Path, database: Path, environment: Mapping[str, str]) -> None:
        """As for ``AirflowStack``."""
        self._home = home
        self._environment = dict(environment)
        shutil.copy(database, home)

    def __call__(
        self,
        file: Path,
        dag_id: str,
        conf: Mapping[str, Json] | None = None,
        environment: Mapping[str, str] | None = None,
        limit: float = 120,
    ) -> DagRunOutcome:
        """Airflow reads all DAG files of ``file``'s directory. AssertionError where the DAG could not be run at all."""
        answer = self._home / "answer.json"
        answer.unlink(missing_ok=True)
        done = subprocess.run(
            [
                *[sys.executable, "-m", "tests.airflow.dag_test_main"],
                *[str(file), dag_id, json.dumps(dict(conf or {})), str(answer)],
            ],
            env=airflow_environment(self._home, file.parent, {**self._environment, **(environment or {})}),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=limit,
            check=False,
        )
        assert answer.exists(), f"DAG {dag_id} of {file} was not run:\n{done.stdout}"
        return DagRunOutcome(log=done.stdout, **json.loads(answer.read_text()))
