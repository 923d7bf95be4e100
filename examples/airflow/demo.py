"""`make demo-airflow`: a real Airflow with the DAGs of this folder. It runs one of them, shows what came of it, and
serves until Ctrl-C where a terminal is there to press it.
"""

from __future__ import annotations

import json
import signal
import sys
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))  # this is a script that shares modules with others

NEEDED = ("airflow", "psutil", "pybwa", "pysam")
if missing := [module for module in NEEDED if find_spec(module) is None]:
    sys.exit(f"demo-airflow: {', '.join(missing)} not installed; pip install '.[airflow,examples]'")

from examples.airflow.local_airflow import USER, AirflowFailedError, LocalAirflow  # noqa: E402
from examples.tables import show_variants  # noqa: E402

OUTPUT = Path("demo-output") / "airflow"
DAG, RUN, SUMMARY = "variant_calling", "demo", "summary"
RUN_PATH = ("dags", DAG, "dagRuns", RUN)
#: Seconds, for what never comes.
KNOWN_LIMIT, RUN_LIMIT = 120.0, 900.0
ENDED = ("success", "failed", "skipped", "upstream_failed", "removed")


def main() -> int:
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    try:
        demonstrate()
    except AirflowFailedError as err:
        print(f"demo-airflow: {err}", file=sys.stderr)
        if err.tail:
            print(err.tail, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo-airflow: interrupted; all that it had started has ended", file=sys.stderr)
        return 130
    return 0


def interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def demonstrate() -> None:
    # Airflow takes absolute paths only.
    home = Path.cwd() / OUTPUT
    print(f"starting Airflow in {OUTPUT}", flush=True)
    with LocalAirflow(home, HERE) as airflow:
        print(f"Airflow runs at {airflow.url}; the DAG {DAG}:", flush=True)
        start(airflow)
        follow(airflow)
        value = airflow.call("GET", *RUN_PATH, "taskInstances", SUMMARY, "xcomEntries", "return_value")["value"]
        table = Path(value["table"]).relative_to(Path.cwd())
        print(f"\nXCom of the task {SUMMARY}: {json.dumps({**value, 'table': str(table)})}")
        show_variants(table)
        print(f"\nTable: {table}")
        print(f"Logs:  {OUTPUT}/logs (tasks), {OUTPUT}/*.log (Airflow)")
        if sys.stdin.isatty() and sys.stdout.isatty():
            print(f"Grid:  {airflow.url}/dags/{DAG}/runs/{RUN}  user {USER}, password {airflow.password}")
            serve(airflow)


def start(airflow: LocalAirflow) -> None:
    """Begin a run of the DAG as soon as Airflow has read it."""

    def known() -> bool:
        for error in airflow.call("GET", "importErrors")["import_errors"]:
            raise AirflowFailedError(f"Airflow cannot read the DAG file {error['filename']}", error["stack_trace"])
        return any(dag["dag_id"] == DAG for dag in airflow.call("GET", "dags", limit=100)["dags"])

    airflow.wait(known, KNOWN_LIMIT, lambda: f"Airflow has not found the DAG {DAG} in {HERE}")
    airflow.call("POST", *RUN_PATH[:3], body={"dag_run_id": RUN, "logical_date": None})


def follow(airflow: LocalAirflow) -> None:
    """Print how each task ends. AirflowFailedError, with the log of the first that failed, where the run fails."""
    told: dict[str, str] = {}
    failed: list[dict[str, Any]] = []

    def ended() -> str:
        state = str(airflow.call("GET", *RUN_PATH)["state"])
        for task in airflow.call("GET", *RUN_PATH, "taskInstances", limit=100)["task_instances"]:
            name = task["task_id"] + (f" [{task['map_index']}]" if task["map_index"] >= 0 else "")
            if task["state"] in ENDED and name not in told:
                told[name] = task["state"]
                print(f"  {name:<20} {task['state']:<16} {task['duration'] or 0:5.1f} s", flush=True)
                if task["state"] == "failed":
                    failed.append(task)
        return state if state in ENDED else ""

    story = f"the run of {DAG} has not ended in {RUN_LIMIT:g} s; see the grid or the logs of its tasks"
    if airflow.wait(ended, RUN_LIMIT, lambda: story) == "success":
        return
    tails = [airflow.tail_of_task(DAG, RUN, one["task_id"], one["map_index"], one["try_number"]) for one in failed[:1]]
    names = ", ".join(name for name, how in told.items() if how == "failed")
    raise AirflowFailedError(f"the run of {DAG} has failed in {names}", "\n".join(tails))


def serve(airflow: LocalAirflow) -> None:
    print("Ctrl-C ends it", flush=True)
    try:
        airflow.wait(lambda: None, float("inf"), str)
    except KeyboardInterrupt:
        print("\nending Airflow", flush=True)


if __name__ == "__main__":
    sys.exit(main())
