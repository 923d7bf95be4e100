"""DAGs for a Kubernetes: what is lost there is lost by the file `go`'s not being there."""

from __future__ import annotations

import datetime

from airflow.sdk import DAG, Param

from airflow_provider_flux.operators import FluxMiniCluster, FluxOperator

HELD = "echo ran; while [ ! -e {{ params.dir }}/go-{{ ti.try_number }} ]; do sleep 0.1; done; hostname"

for mode in ("worker", "deferred"):
    with (
        DAG(
            f"on_cluster_{mode}",
            schedule=None,
            start_date=datetime.datetime(2026, 1, 1),
            params={"dir": Param("", type="string"), "rank": Param("0", type="string")},
        ),
        FluxMiniCluster(flux_conn_id="flux_cluster"),
    ):
        FluxOperator(
            task_id="work",
            flux_conn_id="flux_cluster",
            command=HELD,
            constraint={"ranks": ["1"]},
            deferrable=mode == "deferred",
            retries=1,
            retry_delay=datetime.timedelta(seconds=0),
        )
