"""``airflow flux list|reap``."""
