"""A job over several tasks: Flux starts the ranks, as it would start those of an MPI program."""

from __future__ import annotations

import datetime

from airflow.sdk import DAG

from airflow_provider_flux.operators import FluxMiniCluster, FluxOperator

with DAG("flux_mpi", schedule=None, start_date=datetime.datetime(2026, 1, 1), doc_md=__doc__) as dag:
    with FluxMiniCluster():
        # With an MPI library that knows PMI, `command` is just the program.
        ranks = FluxOperator(
            task_id="ranks", command="echo rank $FLUX_TASK_RANK of $FLUX_JOB_SIZE", ntasks=2, result="none"
        )
        # One job that starts parallel tasks itself gets a Flux instance of its own over its cores.
        nested = FluxOperator(
            task_id="nested",
            command=["flux", "start", "sh", "-c", "flux run -n 2 sh -c 'echo $FLUX_JOB_SIZE' | sort | uniq -c"],
            cores_per_task=2,
        )
        ranks >> nested
