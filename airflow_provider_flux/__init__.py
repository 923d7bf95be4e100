"""Airflow provider: tasks of a DAG run as Flux jobs, in one Flux instance (on Kubernetes: one MiniCluster) per DAG run.

Nothing is imported here: DAG files are parsed often, and each imports what it uses.

- `operators`: FluxOperator, FluxMiniCluster, FluxCreateMiniClusterOperator, FluxDeleteMiniClusterOperator
- `decorators`: ``@task.flux`` and ``@task.flux_python``
- `sensors`: FluxJobSensor; `triggers`: FluxJobTrigger
- `hooks`: the connection type ``flux``; `exceptions`: what tasks fail with

Must not live here: how instances are made, reached and ended (`executors`).
"""
