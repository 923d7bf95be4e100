"""Apache Airflow: tasks of a DAG as Flux jobs."""
