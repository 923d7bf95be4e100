"""DAGs of Flux jobs that the tests hold up, kill and let go by files in a directory of each run's own."""

from __future__ import annotations

import datetime
from typing import Any

from airflow.sdk import DAG, Param, task

from airflow_provider_flux.operators import FluxMiniCluster, FluxOperator
from airflow_provider_flux.sensors import FluxJobSensor

START = datetime.datetime(2026, 1, 1)
DIR = "{{ params.dir }}"
#: Leaves a line for each time that it runs, and goes on when the file `go` is there.
HELD = f"echo ran >> {DIR}/ran; echo first; while [ ! -e {DIR}/go ]; do sleep 0.05; done; echo last"
SOON: dict[str, Any] = {"retries": 1, "retry_delay": datetime.timedelta(seconds=0)}


def flux_dag(name: str, **arguments: Any) -> DAG:
    return DAG(name, schedule=None, start_date=START, params={"dir": Param("", type="string")}, **arguments)


for mode in ("worker", "deferred"):
    deferrable = mode == "deferred"
    with flux_dag(f"held_{mode}"), FluxMiniCluster():
        FluxOperator(task_id="work", command=HELD, deferrable=deferrable)

    with flux_dag(f"retried_{mode}"), FluxMiniCluster():
        FluxOperator(task_id="work", command=HELD, deferrable=deferrable, **SOON)

    with flux_dag(f"limited_{mode}"), FluxMiniCluster():
        FluxOperator(
            task_id="work",
            command=HELD,
            deferrable=deferrable,
            execution_timeout=datetime.timedelta(seconds=4),
        )

    with flux_dag(f"run_limited_{mode}", dagrun_timeout=datetime.timedelta(seconds=15)):
        FluxOperator(task_id="work", command=HELD, deferrable=deferrable)

    with flux_dag(f"outcomes_{mode}"), FluxMiniCluster():
        every: dict[str, Any] = {"deferrable": deferrable, "retries": 1, "retry_delay": datetime.timedelta(seconds=0)}
        FluxOperator(task_id="fails", command=f"echo ran >> {DIR}/fails; echo no such luck >&2; exit 7", **every)
        FluxOperator(task_id="skips", command="exit 99", skip_on_exit_code=99, **every)
        FluxOperator(task_id="never_fits", command="true", cores_per_task=4096, **every)
        FluxOperator(task_id="wrong", command="true", nodes="many", **every)
        FluxOperator(task_id="over_its_limit", command="sleep 600", time_limit=1, deferrable=deferrable)
        FluxOperator(task_id="too_much", command="head -c 100000 /dev/zero | tr '\\0' x", deferrable=deferrable)
        FluxOperator(task_id="no_json", command=f"echo ran >> {DIR}/no_json; echo '{{'", result="json", **every)
        FluxOperator(
            task_id="unstorable",
            command=f"if mkdir {DIR}/unstorable; then echo '[1, NaN]'; else echo '[1, 2]'; fi",
            result="json",
            **every,
        )
        FluxOperator(task_id="silent", command="echo said; echo why >&2; exit 3", get_logs=False, deferrable=deferrable)
        secrets: dict[str, Any] = {"secret_env": {"TOKEN": "{{ conn.hidden.password }}"}, "deferrable": deferrable}
        FluxOperator(
            task_id="tells",
            command='echo "token=$TOKEN."; printf %s "$TOKEN" | base64; printf %s "user:$TOKEN" | base64 >&2; '
            'printf "cut:${TOKEN%-more}"; sleep 0.3; echo "-more"; echo the end',
            **secrets,
        )
        FluxOperator(task_id="gives", command='echo "it is $TOKEN"', **secrets)
        FluxOperator(
            task_id="secret",
            command='printf %s "$TOKEN" | md5sum',
            **secrets,
        )

with flux_dag("mapped"), FluxMiniCluster():
    FluxOperator.partial(task_id="work").expand(
        command=[f"echo ran >> {DIR}/ran-{index}; echo {index}" for index in range(3)]
    )

with flux_dag("timed"):
    # Without a teardown task, which would end the job in any case.
    FluxOperator(task_id="work", command=HELD, execution_timeout=datetime.timedelta(seconds=4))

with flux_dag("each_its_own"), FluxMiniCluster():
    FluxOperator(task_id="work", command=HELD, durable=False, **SOON)

with flux_dag("flood"), FluxMiniCluster():
    FluxOperator(task_id="work", command="seq 1 60000; echo 7", result="json", deferrable=True)
    FluxOperator(task_id="neighbour", command="sleep 1; echo there", deferrable=True)

with flux_dag("kept"), FluxMiniCluster(delete_policy="on_success"):
    FluxOperator(task_id="work", command="exit 1")

with flux_dag("awaited"), FluxMiniCluster():
    for waiting in ("worker", "deferred"):
        submitted = FluxOperator(task_id=f"submit_{waiting}", command="sleep 1; exit 0", wait=False)
        FluxJobSensor(task_id=f"wait_{waiting}", job=submitted.output, deferrable=waiting == "deferred")

with flux_dag("talkative"), FluxMiniCluster():
    FluxOperator(
        task_id="work",
        command=f"i=0; while [ ! -e {DIR}/go ]; do i=$((i+1)); echo line $i; sleep 0.02; done; echo $i",
        result="json",
        deferrable=True,
    )

with flux_dag("functions"):

    @task.flux_python
    def give(count: int) -> list[int]:
        print("computing")
        return list(range(count))

    @task.flux(result="none")
    def show(values: list[int]) -> list[str]:
        return ["echo", *map(str, values)]

    @task.flux_python(deferrable=True)
    def unspeakable() -> object:
        return {1, 2}

    show(give(3))
    unspeakable()
