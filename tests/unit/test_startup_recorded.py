"""What becomes of a MiniCluster that is coming up, by what a real API server said (tests/cluster/record_startup.py)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from executors import ProvisionError
from executors.kube.api import EVENTS, JOBS, PODS
from executors.provision.kubernetes import diagnosis
from executors.provision.kubernetes.startup import Expected, Ready
from executors.provision.kubernetes.watching import Change
from tests.unit.startup import ADOPTED, EXPECTED, FOUND, Played, Stream, recorded


def of_its_job(expected: Expected, stream: Stream) -> Expected:
    """With the uid of the recorded Job. (The client that created it begins to look when that is there.)"""
    jobs = [one.object for _, one in stream if isinstance(one, Change) and one.kind is JOBS]
    return replace(expected, owner_uid=jobs[0]["metadata"]["uid"])


def from_its_job(case: str) -> Stream:
    stream = recorded(case)
    first = next(at for at, (_, one) in enumerate(stream) if isinstance(one, Change) and one.kind is JOBS)
    return stream[first:]


# -- a good start


def test_events_of_the_kubelet_tell_of_a_start_a_second_before_the_pods_do() -> None:
    stream = from_its_job("good")
    found = Played(of_its_job(EXPECTED, stream)).until(stream)
    assert found is not None and isinstance(found[1], Ready) and found[1].tentative
    started = [at for at, one in stream if isinstance(one, Change) and one.object.get("reason") == "Started"]
    assert found[0] == started[1]
    running = Played(replace(of_its_job(EXPECTED, stream), by_events=False)).until(stream)
    assert running is not None and isinstance(running[1], Ready) and not running[1].tentative
    assert running[0] > found[0]
    assert diagnosis.name_of(running[1].lead) == diagnosis.name_of(found[1].lead)


def test_in_whatever_order_the_streams_of_the_kinds_come_it_comes_up() -> None:
    stream = from_its_job("good")
    by_kind = [[one for one in stream if one[1].kind is kind] for kind in (EVENTS, PODS, JOBS)]
    last = stream[-1][0]
    for order in (by_kind, by_kind[::-1]):
        mixed = [(last, change) for part in order for _, change in part]
        found = Played(of_its_job(EXPECTED, stream)).until(mixed)
        assert found is not None and isinstance(found[1], Ready)


# -- what cannot come up


def test_an_image_that_is_not_there_ends_the_wait_when_the_pod_says_so() -> None:
    stream = from_its_job("no-image")
    played = Played(of_its_job(EXPECTED, stream))
    with pytest.raises(ProvisionError, match=r"image registry\.example/no-such-image:1: ErrImagePull: failed to pull"):
        played.until(stream)
    waiting = [
        at
        for at, one in stream
        if isinstance(one, Change) and one.kind is PODS and "ErrImagePull" in str(one.object.get("status"))
    ]
    assert played.now == waiting[0]


def test_pods_without_room_have_the_schedule_time_out_and_no_longer() -> None:
    stream = [one for one in from_its_job("no-room") if one[0] < 3.0]  # after which that client gave up
    played = Played(of_its_job(EXPECTED, stream))
    with pytest.raises(ProvisionError, match=r"cannot be scheduled: 0/1 nodes are available: 1 Insufficient cpu"):
        played.until(stream, last=100.0)
    assert 30.0 <= played.now <= 31.0
    assert "Insufficient cpu" in played.said[-1], played.said


# -- a follower that is lost


@pytest.mark.parametrize(("expected", "whole"), [(ADOPTED, True), (FOUND, False)])
def test_a_lost_follower_is_waited_for_where_all_are_needed_and_no_failure(expected: Expected, whole: bool) -> None:
    stream = recorded("follower-lost")
    lost = next(
        at
        for at, one in stream
        if isinstance(one, Change) and one.kind is PODS and "deletionTimestamp" in one.object["metadata"]
    )
    played = Played(of_its_job(expected, stream))
    before = played.until([one for one in stream if one[0] < lost])
    assert before is not None and isinstance(before[1], Ready)
    # A client that comes after the loss; the new follower runs at the end.
    found = Played(of_its_job(expected, stream)).until([(max(at, lost), one) for at, one in _by_time(stream, lost)])
    assert found is not None and isinstance(found[1], Ready)
    assert (found[0] > lost + 10.0) == whole, found
    assert diagnosis.index_of(found[1].lead) == 0


def _by_time(stream: Stream, at: float) -> Stream:
    """What a client is told that begins at that moment: of each object the last, and what follows."""
    before: dict[str, tuple[float, Change]] = {}
    for when, one in stream:
        if when <= at and isinstance(one, Change):
            before[one.object["metadata"]["uid"]] = (when, one)
    return [*before.values(), *(entry for entry in stream if entry[0] > at)]
