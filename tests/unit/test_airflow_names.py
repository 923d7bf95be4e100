"""Names that follow from Airflow's own, and what a job inherits of a worker."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_flux.environment import inheritable
from airflow_provider_flux.names import job_keys, make_run_id
from executors import run_name

_ID = st.text(min_size=1, max_size=30)


@given(_ID, _ID, _ID, _ID)
def test_different_runs_have_different_ids(dag: str, run: str, other_dag: str, other_run: str) -> None:
    same = (dag, run) == (other_dag, other_run)
    assert (make_run_id("prod", dag, run) == make_run_id("prod", other_dag, other_run)) is same


def test_a_run_name_tells_deployment_and_dag() -> None:
    name = run_name(make_run_id("1a2b3c4d", "variant_calling", "manual__2026-11-24T19:44:31+00:00"))
    assert name.startswith("airflow-1a2b3c4d-variant-calling")
    assert name != run_name(make_run_id("1a2b3c4d", "variant_calling", "manual__2026-11-24T19:44:31+00:00", "big"))
    assert name != run_name(make_run_id("other", "variant_calling", "manual__2026-11-24T19:44:31+00:00"))


def test_retries_share_a_key_and_clearing_makes_another() -> None:
    def keys(max_tries: int, attempt: int | None = None, map_index: int = -1):  # type: ignore[no-untyped-def]
        return job_keys("d", "r", "t", map_index, retries=2, max_tries=max_tries, attempt=attempt)

    first, cleared = keys(2), keys(4)
    assert first.earlier == ()
    assert first.now in cleared.earlier and cleared.now != first.now
    assert keys(3).now in cleared.earlier
    assert keys(2, map_index=0).now != keys(2, map_index=1).now != first.now
    assert keys(2, attempt=1).now != keys(2, attempt=2).now
    assert len(keys(1000).earlier) == 50


@pytest.mark.parametrize("now", [0, 1, 2, 3, 5, 9])
def test_a_clear_makes_another_key_also_where_the_retries_have_changed(now: int) -> None:
    """Airflow sets max_tries to the tries until then and the retries of the DAG as it is by now."""
    before = job_keys("d", "r", "t", -1, retries=3, max_tries=3, attempt=None)
    after = job_keys("d", "r", "t", -1, retries=now, max_tries=1 + now, attempt=None)
    assert after.now != before.now and before.now in after.earlier
    again = job_keys("d", "r", "t", -1, retries=now, max_tries=3 + now, attempt=None)
    assert {before.now, after.now} <= set(again.earlier)


def test_nothing_of_airflows_and_no_secret_is_inherited() -> None:
    environ = {
        "PATH": "/bin",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "x",
        "AIRFLOW_CONN_S3": "x",
        "_AIRFLOW_PROCESS_CONTEXT": "x",
        "AIRFLOW_HOME": "x",
        "FLUX_OPERATOR_PROVISIONER": "local",
        "AWS_SECRET_ACCESS_KEY": "x",
    }
    assert inheritable(environ, lambda name: "secret" in name.lower()) == {"PATH": "/bin"}


def test_workers_have_their_instances_where_everybody_looks_for_them() -> None:
    environ = {"FLUX_OPERATOR_RUNTIME_DIR": "/scratch/me", "FLUX_OPERATOR_RUN_PROVISIONER": "local"}
    assert inheritable(environ, lambda _name: False) == {"FLUX_OPERATOR_RUNTIME_DIR": "/scratch/me"}
