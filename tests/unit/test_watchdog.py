"""When an agent ends by itself, on a clock that stands until it is moved."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from executors.agent.protocol.watchdog import UNWANTED, Watchdog
from tests.support.clock import VirtualClock


def test_an_agent_without_clients_and_jobs_ends_after_the_idle_timeout() -> None:
    clock = VirtualClock()
    watchdog = Watchdog(clock, 300.0, 3600.0)
    assert watchdog.decide() == (None, 300.0)
    clock.now += 299.0
    assert watchdog.decide() == (None, 1.0)
    clock.now += 1.0
    assert watchdog.decide() == ("no job and no client for 300 s (idle time-out)", None)


def test_jobs_keep_an_agent_from_being_idle_but_not_from_being_an_orphan() -> None:
    clock = VirtualClock()
    watchdog = Watchdog(clock, 300.0, 900.0)
    for _ in range(3):
        clock.now += 299.0
        watchdog.job_is_here()
    assert watchdog.decide() == (None, 3.0)  # of the orphan time-out
    assert watchdog.without_client == 897.0 and watchdog.without_use == 0.0
    clock.now += 3.0
    assert watchdog.decide().end == "no client for 900 s (orphan time-out)"


def test_a_client_puts_off_both_ends() -> None:
    clock = VirtualClock()
    watchdog = Watchdog(clock, 300.0, 600.0)
    clock.now += 5000.0
    watchdog.client_is_here()
    assert watchdog.decide() == (None, 300.0)


def test_limits_that_are_off_never_end_an_agent() -> None:
    clock = VirtualClock()
    for idle, orphan, look_again in [(0.0, 0.0, None), (-1.0, 50.0, 50.0), (50.0, 0.0, 50.0)]:
        watchdog = Watchdog(clock, idle, orphan)
        assert watchdog.decide() == (None, look_again)


def test_an_instance_that_nobody_waits_for_has_a_moment_only_for_its_first_client() -> None:
    clock = VirtualClock()
    watchdog = Watchdog(clock, 300.0, 3600.0)
    watchdog.nobody_comes()
    assert watchdog.decide() == (None, UNWANTED)
    watchdog.client_is_here()
    assert watchdog.decide() == (None, 300.0)
    hurried = Watchdog(clock, 2.0, 3600.0)
    hurried.nobody_comes()
    assert hurried.decide() == (None, 2.0)  # its limit is shorter than that


def test_two_looks_are_never_so_close_that_the_agent_is_busy_looking() -> None:
    clock = VirtualClock()
    watchdog = Watchdog(clock, 300.0, 0.0)
    clock.now += 299.9999
    end, look_again = watchdog.decide()
    assert end is None and look_again is not None and look_again >= 0.01


#: What is seen, and seconds that pass before it.
steps = st.lists(st.tuples(st.sampled_from(["client", "job", "nobody"]), st.integers(0, 400)), max_size=30)


@given(steps, st.integers(0, 500), st.integers(0, 500))
def test_an_agent_ends_exactly_when_a_limit_has_passed_since_it_was_used(
    history: list[tuple[str, int]], idle: int, orphan: int
) -> None:
    clock = VirtualClock()
    watchdog = Watchdog(clock, float(idle), float(orphan))
    client = use = clock.now
    for what, seconds in history:
        clock.now += seconds
        if what == "client":
            watchdog.client_is_here()
            client = use = clock.now
        elif what == "job":
            watchdog.job_is_here()
            use = clock.now
        over = (idle > 0 and clock.now - use >= idle) or (orphan > 0 and clock.now - client >= orphan)
        end, look_again = watchdog.decide()
        assert (end is not None) == over
        if end is None and look_again is not None:
            # Nothing can happen before the next look, and something does at it unless somebody comes.
            before = clock.now
            clock.now += look_again
            assert watchdog.decide().end is not None
            clock.now = before
