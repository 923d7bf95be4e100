"""Variants of three samples of phage lambda: one mapped task per sample and step, all in the run's own MiniCluster.

The data and the tools are those of ``examples/snakemake/variant-calling``. Parameters of a run: ``output``, a folder
that all nodes see; ``data``, the folder with the example; ``python``, an interpreter in the jobs with pybwa and pysam.
"""

from __future__ import annotations

import datetime
import os
import sys
from pathlib import Path

from airflow.sdk import DAG, Param, task

from airflow_provider_flux.operators import FluxMiniCluster, FluxOperator

HERE = Path(__file__).resolve().parent
SAMPLES = ["a", "b", "c"]
DATA, OUTPUT, PYTHON = "{{ params.data }}", "{{ params.output }}/{{ run_id }}", "{{ params.python }}"


def step(script: str, arguments: str) -> str:
    return f"set -e; mkdir -p '{OUTPUT}'; cd '{OUTPUT}'; '{PYTHON}' '{DATA}/scripts/{script}.py' {arguments}"


with DAG(
    "variant_calling",
    description="Variants of phage lambda, as Flux jobs",
    schedule=None,
    start_date=datetime.datetime(2026, 1, 1),
    default_args={"retries": 1, "retry_delay": datetime.timedelta(seconds=5), "deferrable": True},
    params={
        "data": Param(str(HERE.parent / "snakemake" / "variant-calling"), type="string"),
        "output": Param(os.path.expandvars("${AIRFLOW_HOME}/variant-calling"), type="string"),
        "python": Param(sys.executable, type="string"),
        "threads": Param(2, type="integer", minimum=1, description="of one alignment; no more than a node has cores"),
    },
    doc_md=__doc__,
) as dag:
    with FluxMiniCluster():
        index = FluxOperator(task_id="index", command=step("index", f"'{DATA}/data/lambda.fa.gz' genome.fa"))

        align = FluxOperator.partial(task_id="align", cores_per_task="{{ params.threads }}", time_limit=600.0).expand(
            command=[
                step(
                    "align",
                    f"--threads {{{{ params.threads }}}} genome.fa '{DATA}/data/sample_{sample}.1.fq.gz' "
                    f"'{DATA}/data/sample_{sample}.2.fq.gz' {sample}.unsorted.bam",
                )
                for sample in SAMPLES
            ]
        )
        sort = FluxOperator.partial(task_id="sort").expand(
            command=[step("sort", f"{sample}.unsorted.bam {sample}.bam") for sample in SAMPLES]
        )
        call = FluxOperator.partial(task_id="call").expand(
            command=[
                step("call", f"--sample {sample} --min-quality 20 genome.fa {sample}.bam {sample}.bcf")
                for sample in SAMPLES
            ]
        )
        merge = FluxOperator(
            task_id="merge", command=step("merge", " ".join(f"{sample}.bcf" for sample in SAMPLES) + " variants.bcf")
        )
        bams = " ".join(f"{sample}.bam" for sample in SAMPLES)
        table = FluxOperator(task_id="table", command=step("table", f"variants.bcf {bams} > variants.tsv"))

        @task.flux_python(python=PYTHON)
        def summary(path: str) -> dict[str, object]:
            """Runs as a Flux job, too: what it imports must be there."""
            import csv

            with open(path, newline="") as file:
                rows = list(csv.DictReader(file, delimiter="\t"))
            samples = [name[: -len("_genotype")] for name in rows[0] if name.endswith("_genotype")]
            return {
                "table": path,
                "variants": len(rows),
                "per_sample": {sample: sum(row[f"{sample}_genotype"] == "1" for row in rows) for sample in samples},
            }

        index >> align >> sort >> call >> merge >> table >> summary(path=f"{OUTPUT}/variants.tsv")
