"""Names of runs."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from executors import RunId, RunNameError
from executors.names import DEFAULT_BUDGET, run_name

LABEL = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?\Z")


@pytest.mark.parametrize(
    ("run", "slug"),
    [
        (RunId("snakemake", "abc"), "snakemake-abc"),
        (RunId("airflow", "My DAG/run 1"), "airflow-my-dag-run-1"),
        (RunId("9", "x"), "r-9-x"),
        (RunId("ü", "ß"), "r"),
        (RunId("e", "--x--"), "e-x"),
        (RunId("e", "x" * 200), "e-" + "x" * (DEFAULT_BUDGET - 13)),
    ],
)
def test_a_name_can_be_read(run: RunId, slug: str) -> None:
    name = run_name(run)
    assert name[:-11] == slug
    assert re.fullmatch(r"-[0-9a-f]{10}", name[-11:])


@given(st.text(min_size=1), st.text(min_size=1), st.integers(12, 63))
def test_a_name_is_a_legal_label_within_its_budget(engine: str, run_id: str, budget: int) -> None:
    name = run_name(RunId(engine, run_id), budget)
    assert LABEL.match(name) and len(name) <= budget
    assert name == run_name(RunId(engine, run_id), budget)


@given(st.tuples(st.text(min_size=1), st.text(min_size=1)), st.tuples(st.text(min_size=1), st.text(min_size=1)))
def test_different_runs_have_different_names(one: tuple[str, str], other: tuple[str, str]) -> None:
    if one != other:
        assert run_name(RunId(*one)) != run_name(RunId(*other)) or "\0" in one[0] + other[0]


@pytest.mark.parametrize("run", [RunId("", "x"), RunId("x", "")])
def test_an_empty_id_has_no_name(run: RunId) -> None:
    with pytest.raises(RunNameError, match="must not be empty"):
        run_name(run)


def test_the_longest_pod_and_host_name_stay_legal() -> None:
    longest = run_name(RunId("e" * 100, "i" * 100))
    assert len(f"{longest}-99999-abcde") <= 63
