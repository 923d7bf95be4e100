"""A real Airflow for the tests of this folder: whole (``stack``), or one DAG run in a process (``inprocess``)."""
