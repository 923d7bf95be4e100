"""When a run has many short jobs."""

from __future__ import annotations

from executors.agent.pilot.short_jobs import FEW, LAST, MANY, ShortJobs


def run(seen: ShortJobs, count: int, seconds: float) -> None:
    for number in range(count):
        job = f"{seconds}-{number}"
        seen.see([(job, "submit", 0.0, {}), (job, "start", 1.0, {})])
        seen.see([(job, "finish", 1.0 + seconds, {}), (job, "clean", 90.0, {})])


def test_many_are_so_many_of_the_last_and_they_stay_so_until_few_are() -> None:
    seen = ShortJobs()
    run(seen, LAST - MANY, 5.0)
    run(seen, MANY - 1, 0.01)
    assert not seen.are_many
    run(seen, 1, 0.01)
    assert seen.are_many
    run(seen, LAST - FEW, 5.0)
    assert seen.are_many
    run(seen, 1, 5.0)
    assert not seen.are_many
    run(seen, FEW, 0.01)
    assert not seen.are_many


def test_what_never_started_or_was_lost_late_is_no_short_job() -> None:
    seen = ShortJobs()
    for number in range(2 * LAST):
        seen.see([(str(number), name, 0.0, {}) for name in ("submit", "exception", "clean")])
    assert not seen.are_many
    for number in range(2 * LAST):
        # Its pilot was lost: it has no end but this.
        seen.see([(str(number), "start", 0.0, {}), (str(number), "clean", 20.0, {})])
    assert not seen.are_many
