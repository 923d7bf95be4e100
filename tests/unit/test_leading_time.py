"""When a leader stops and the next one begins, on a clock that nothing moves but their own waiting."""

from __future__ import annotations

import threading

from executors.controller.leading import DEADLINE, DURATION, RENEWAL, RETRY, Leadership
from tests.support.clock import VirtualClock
from tests.support.leases import Leases
from tests.support.waiting import LIMIT


class Steps(threading.Event):
    """Waiting for it moves the clock."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__()
        self._clock = clock

    def wait(self, timeout: float | None = None) -> bool:
        if not self.is_set():
            self._clock.now += timeout or 0.0
        return self.is_set()


class TimedLeases(Leases):
    """Notes when the Lease was written last."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__()
        self._clock = clock
        self.written = clock.now

    def _write(self, spec: dict[str, object]) -> None:
        super()._write(spec)
        self.written = self._clock.now


def replica(leases: Leases, name: str, clock: VirtualClock) -> Leadership:
    return Leadership(leases, "ns", name, lambda: None, clock)  # type: ignore[arg-type]  # all that it uses


def test_a_leader_that_cannot_renew_stops_before_the_next_one_may_begin() -> None:
    clock = VirtualClock()
    leases = TimedLeases(clock)
    first = replica(leases, "a", clock)
    first._closing = Steps(clock)
    assert first.acquire(threading.Event())
    leases.away = True
    assert first.lost.wait(LIMIT) and first.held is False
    assert DEADLINE < clock.now - leases.written <= DEADLINE + RENEWAL < DURATION + RETRY


def test_a_lease_that_nobody_renews_runs_out_by_the_clock_of_the_one_that_waits() -> None:
    clock = VirtualClock()
    leases = TimedLeases(clock)
    gone = {"holderIdentity": "a", "leaseDurationSeconds": int(DURATION), "renewTime": "2001-01-01T00:00:00.000000Z"}
    leases._write(gone)
    began = clock.now
    second = replica(leases, "b", clock)
    assert second.acquire(Steps(clock))
    assert DURATION <= clock.now - began <= DURATION + RETRY
    assert leases.holder == "b"
    assert leases.lease is not None and leases.lease["spec"]["leaseTransitions"] == 1
    second.release()
    assert leases.holder == ""


def test_what_is_no_longer_its_own_is_not_released() -> None:
    clock = VirtualClock()
    leases = TimedLeases(clock)
    first = replica(leases, "a", clock)
    first._closing = Steps(clock)
    assert first.acquire(threading.Event())
    leases.away = True
    assert first.lost.wait(LIMIT)
    leases.away = False
    second = replica(leases, "b", clock)
    assert second.acquire(Steps(clock))
    first.release()
    assert leases.holder == "b"
    second.release()
