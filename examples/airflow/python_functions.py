"""Python functions as Flux jobs: arguments and return values travel, modules are imported inside the function."""

from __future__ import annotations

import datetime

from airflow.sdk import DAG, task

with DAG("flux_python", schedule=None, start_date=datetime.datetime(2026, 1, 1), doc_md=__doc__) as dag:

    @task.flux_python
    def darts(seed: int, throws: int) -> int:
        import random

        generator = random.Random(seed)
        print(f"throwing {throws} darts")
        return sum(generator.random() ** 2 + generator.random() ** 2 < 1 for _ in range(throws))

    @task.flux_python
    def pi(hits: list[int], throws: int) -> float:
        return 4 * sum(hits) / (len(hits) * throws)

    @task.flux
    def announce(value: float) -> list[str]:
        """What it returns is the command of the job."""
        return ["echo", f"pi is about {value:.2f}"]

    throws = 100_000
    announce(pi(hits=darts.partial(throws=throws).expand(seed=[1, 2, 3, 4]), throws=throws))
