"""Whether an image's Flux is new enough."""

from __future__ import annotations

import pytest

from executors.flux_version import problem
from executors.spec import parse_spec

IMAGE = "registry.example/tools:1"
SPEC = parse_spec({"size": 1, "containers": [{"image": IMAGE}]})
SIMPLE = parse_spec({"size": 1, "containers": [{"image": IMAGE}], "flux": {"scheduler": {"simple": True}}})


@pytest.mark.parametrize("version", ["0.84.0", "0.88.0-12-gabc", "1.0.0", "", "unknown"])
def test_a_flux_that_is_new_enough_or_unknown_is_no_problem(version: str) -> None:
    assert problem(version, SPEC, "direct") is None


@pytest.mark.parametrize(
    ("version", "why"), [("0.83.0", "no backfill scheduler"), ("0.67.0", "cannot report its jobs to the agent")]
)
def test_a_flux_that_is_too_old_is_told_with_image_version_and_cure(version: str, why: str) -> None:
    said = problem(version, SPEC, "direct")
    assert said is not None
    for words in (IMAGE, version, why, "0.84 or newer", "minicluster.containers[].image"):
        assert words in said


def test_an_older_flux_will_do_where_another_scheduler_is_taken() -> None:
    assert problem("0.70.0", SIMPLE, "direct") is None
    assert problem("0.70.0", SPEC, "operator") is None
    assert problem("0.67.0", SIMPLE, "direct") is not None
