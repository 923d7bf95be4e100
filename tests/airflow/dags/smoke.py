"""What the tests of the stack itself run: nothing of Flux."""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.sensors.filesystem import FileSensor
from airflow.sdk import DAG, task

# In a task's conf: a file that the test makes when it wants the task to go on.
GATE = "{{ dag_run.conf['gate'] }}"

with DAG("smoke_bash", schedule=None):
    BashOperator(task_id="hello", bash_command="echo hello from $((6 * 7)) >&2; echo 42")

with DAG("smoke_gate", schedule=None):
    BashOperator(
        task_id="gated",
        bash_command=f"echo waiting for {GATE}; until [ -e {GATE} ]; do sleep 0.1; done; echo through",
        retries=1,
        retry_delay=timedelta(seconds=0),
    )

with DAG("smoke_deferred", schedule=None):
    FileSensor(task_id="deferred", fs_conn_id="smoke_files", filepath=GATE, deferrable=True, poke_interval=0.2)

with DAG("smoke_mapped", schedule=None):

    @task
    def square(number: int) -> int:
        return number * number

    square.expand(number=[1, 2, 3])
