"""Names that follow from Airflow's own: of a DAG run's instance, and of a task's job. Pure but for `deployment_id`."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from executors import RunId

#: How many earlier generations of a task are looked for. One clearing makes one.
_GENERATIONS = 50


def deployment_id() -> str:
    """Tells the instances of this Airflow from those of others in the same namespace, or on the same machine.

    ``[flux] deployment_id``; without it 8 hex digits of Airflow's home and addresses, which are the same in all
    components of one deployment.
    """
    from airflow.providers.common.compat.sdk import conf

    given = conf.get("flux", "deployment_id", fallback="")
    if given:
        if not re.fullmatch("[a-z0-9]{1,20}", given):
            from executors import ConfigError

            # A dash would make `prod` find the instances of `prod-eu`, too.
            raise ConfigError([f"[flux] deployment_id: {given!r} must be 1 to 20 small letters and digits"])
        return str(given)
    import os

    home = os.environ.get("AIRFLOW_HOME", os.path.expanduser("~/airflow"))
    parts = [
        os.path.realpath(home),
        conf.get("api", "base_url", fallback=""),
        conf.get("core", "execution_api_server_url", fallback=""),
    ]
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:8]


def make_run_id(deployment: str, dag_id: str, run_id: str, minicluster: str = "") -> RunId:
    """The run whose instance a DAG run uses; ``minicluster`` tells several of one DAG run apart."""
    from executors import RunId

    # The readable part of a name is cut at its end: what tells least comes last.
    parts = [deployment, dag_id, run_id] + ([minicluster] if minicluster else [])
    return RunId("airflow", "/".join(part.replace("%", "%25").replace("/", "%2F") for part in parts))


@dataclass(frozen=True)
class JobKeys:
    """Keys of a task instance's jobs: ``now``, and those of its ``earlier`` generations.

    The key is the same for all tries of one *generation*, so that a retry finds the job that a lost worker has left.
    Clearing a task begins a new generation: Airflow sets ``max_tries`` to the tries until then and the task's retries,
    and leaves it for a retry. So the generation is the number of tries before the clear, whatever the retries are now.
    """

    now: str
    earlier: tuple[str, ...]


def job_keys(
    dag_id: str, run_id: str, task_id: str, map_index: int, *, retries: int, max_tries: int, attempt: int | None
) -> JobKeys:
    """``attempt``: None where tries share a job (a durable task), else the number of the try, which has its own; what
    earlier ones have left is then among ``earlier``.
    """
    text = "\0".join([dag_id, run_id, task_id, str(map_index)])
    stem = f"airflow-{hashlib.sha256(text.encode()).hexdigest()[:24]}"
    current = max(0, max_tries - retries)
    first = max(0, current - _GENERATIONS)
    earlier = [f"{stem}-{generation}" for generation in range(first, current)]
    if attempt is None:
        return JobKeys(f"{stem}-{current}", tuple(earlier))
    # Tries are counted on over generations.
    tries = range(max(1, attempt - _GENERATIONS), attempt)
    own = [f"{stem}-{generation}-{number}" for generation in range(first, current + 1) for number in tries]
    return JobKeys(f"{stem}-{current}-{attempt}", tuple(own))
