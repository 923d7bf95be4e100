"""python -m tests.airflow.dag_test_main FILE DAG CONF ANSWER: runs the DAG; the answer is JSON in a file, since what
tasks and Airflow print is the log."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from airflow.dag_processing.dagbag import DagBag
from airflow.models.xcom import XComModel
from airflow.settings import Session
from sqlalchemy import select


def main(file: str, dag_id: str, conf: str, answer: str) -> None:
    bag = DagBag(file)
    if bag.import_errors:
        raise SystemExit("\n".join(bag.import_errors.values()))
    run = bag.dags[dag_id].test(run_conf=json.loads(conf))
    instances = run.get_task_instances()
    with Session() as session:
        rows = session.scalars(
            select(XComModel).where(XComModel.dag_id == dag_id, XComModel.run_id == run.run_id)
        ).all()
        xcoms: dict[str, dict[str, object]] = {}
        for row in rows:
            xcoms.setdefault(_name(row.task_id, row.map_index), {})[row.key] = row.value
    found = {
        "state": run.state,
        "tasks": {_name(instance.task_id, instance.map_index): instance.state for instance in instances},
        "xcoms": xcoms,
    }
    Path(answer).write_text(json.dumps(found))


def _name(task_id: str, map_index: int) -> str:
    return task_id if map_index < 0 else f"{task_id}[{map_index}]"


if __name__ == "__main__":
    main(*sys.argv[1:])
