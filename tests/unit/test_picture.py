"""What the objects of a MiniCluster that is coming up say together, in streams as an API server sends them."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from executors import ProvisionError
from executors.provision.kubernetes.diagnosis import Cause, Fatal, Finding
from executors.provision.kubernetes.picture import Picture, reason_of
from executors.provision.kubernetes.timeouts import StartTimeouts
from tests.support.clock import VirtualClock

#: Written by hand, with no more than a test needs.
Object = Any
_numbers = itertools.count()


def job(uid: str = "j1", *, completions: int = 2, suspend: bool = False, **status: Any) -> Object:
    return {
        "metadata": {"name": "run", "uid": uid},
        "spec": {"completions": completions, "suspend": suspend},
        "status": status,
    }


def pod(index: int, uid: str = "", *, owner: str = "j1", at: int = 1, **more: Any) -> Object:
    """Waits for a node, unless ``more`` says otherwise: ``state`` of its broker, ``node``, ``phase``, ``leaving``."""
    status: Object = {"phase": more.get("phase", "Pending")}
    if more.get("state"):
        status["containerStatuses"] = [{"name": "flux", "state": more["state"]}]
    metadata = {
        "name": f"run-{index}-{uid or index}",
        "uid": uid or f"p{index}",
        "annotations": {"batch.kubernetes.io/job-completion-index": str(index)},
        "ownerReferences": [{"uid": owner}],
        "creationTimestamp": f"2026-01-01T00:00:{at:02}Z",
    }
    if more.get("leaving"):
        metadata["deletionTimestamp"] = "2026-01-01T00:01:00Z"
    return {"metadata": metadata, "spec": {"nodeName": more.get("node", "")}, "status": status}


def event(about: Object, reason: str, message: str = "said", at: int = 1, field: str = "") -> Object:
    kind = "Pod" if "annotations" in about["metadata"] else "Job"
    return {
        "metadata": {"uid": f"e{next(_numbers)}"},
        "involvedObject": {
            "kind": kind,
            "name": about["metadata"]["name"],
            "uid": about["metadata"]["uid"],
            "fieldPath": field,
        },
        "reason": reason,
        "message": message,
        "lastTimestamp": f"2026-01-01T00:00:{at:02}Z",
        "type": "Warning",
    }


RUNS: Object = {"running": {}}


def picture(*things: Object, wanted: int = 2) -> Picture:
    made = Picture("flux", "j1", wanted)
    for thing in things:
        if "involvedObject" in thing:
            made.take_event(thing)
        elif "completions" in thing["spec"]:
            made.take_job(thing)
        else:
            made.take_pod(thing)
    return made


def causes(given: Picture) -> list[Cause | str]:
    return [one.cause if not isinstance(one, Fatal) else one.reason for one in given.findings() if one is not None]


# -- whose events


def test_an_earlier_job_of_the_same_name_says_nothing_of_this_one() -> None:
    before = event(job("j0"), "FailedCreate", "exceeded quota")
    given = picture(before, job())
    assert given.findings() == [None] and given.events == []


def test_an_earlier_pod_says_nothing_of_the_one_that_took_its_place() -> None:
    lost = pod(0, "old", leaving=True, node="n")
    given = picture(job(completions=1), lost, event(lost, "FailedMount"), pod(0, "new", node="n"))
    assert causes(given) == [Cause.TIME]


def test_an_event_may_come_before_the_pod_that_it_is_about() -> None:
    late = pod(0, node="n")
    given = picture(job(completions=1), event(late, "FailedMount", 'secret "x" not found'))
    given.take_pod(late)
    assert Cause.MOUNT in causes(given)


# -- refused pods


def test_pods_that_are_refused_are_waited_for_and_told() -> None:
    given = picture(job(), pod(0, state=RUNS, node="n"), event(job(), "FailedCreate", "exceeded quota"))
    assert causes(given) == [Cause.REFUSED]
    assert reason_of(given.findings()).reason == "job run: pods are refused: exceeded quota"


def test_a_refusal_is_over_when_all_pods_are_there() -> None:
    given = picture(job(), event(job(), "FailedCreate"), pod(0, node="n"), pod(1, node="n"))
    assert set(causes(given)) == {Cause.TIME}


def test_what_keeps_a_pod_does_not_count_where_enough_are_up() -> None:
    given = picture(job(), event(job(), "FailedCreate"), pod(0, state=RUNS, node="n"))
    assert [one["metadata"]["uid"] for one in given.up(by_events=False)] == ["p0"]


# -- the pod of services


def _services(**more: Any) -> Object:
    made = pod(9, "services", **more)
    del made["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"]
    return made


def test_the_pod_of_services_does_not_stand_for_a_brokers_that_is_refused() -> None:
    for services in (_services(), _services(node="n", state=RUNS)):
        given = picture(job(), pod(0, state=RUNS, node="n"), services, event(job(), "FailedCreate", "exceeded quota"))
        assert causes(given) == [Cause.REFUSED]


def test_of_the_pod_of_services_only_what_has_to_be_mended_is_said() -> None:
    brokers = [pod(index, state=RUNS, node="n") for index in range(2)]
    assert causes(picture(job(), *brokers, _services())) == []
    bad = _services(node="n", state={"waiting": {"reason": "ErrImagePull", "message": "no such image"}})
    assert "no such image" in str(causes(picture(job(), *brokers, bad)))
    creating = _services(node="n")
    assert causes(picture(job(), *brokers, creating, event(creating, "FailedMount"))) == [Cause.MOUNT]


# -- mounts


@pytest.mark.parametrize("later", ["Pulling", "Pulled", "Created", "Started", "BackOff"])
def test_a_mount_that_failed_at_first_is_over_with_the_next_stage(later: str) -> None:
    one = pod(0, node="n", state={"waiting": {"reason": "ContainerCreating"}})
    failed = event(one, "FailedMount", 'configmap "x" not found')
    assert causes(picture(job(completions=1), one, failed)) == [Cause.TIME, Cause.MOUNT]
    assert causes(picture(job(completions=1), one, failed, event(one, later))) == [Cause.TIME]


def test_a_missing_volume_is_told_before_the_pods_own_state() -> None:
    one = pod(0, node="n", state={"waiting": {"reason": "ContainerCreating"}})
    failed = event(one, "FailedMount", 'MountVolume.SetUp failed for volume "data": hostPath type check failed')
    assert "hostPath type check" in reason_of(picture(job(completions=1), one, failed).findings()).reason


# -- room


def test_what_an_autoscaler_said_last_counts_and_only_without_a_node() -> None:
    no, yes = (event(pod(0), name, at=at) for name, at in (("NotTriggerScaleUp", 1), ("TriggeredScaleUp", 2)))
    one = job(completions=1)
    given = picture(one, pod(0), no)
    assert causes(given) == [Cause.ROOM] and "no node that could take it can be added" in str(given.findings())
    assert causes(picture(one, pod(0), yes, no)) == [Cause.TIME, Cause.SCALING]
    assert causes(picture(one, pod(0, node="n"), no)) == [Cause.TIME]


# -- up, and over


def test_the_kubelets_word_counts_until_the_pods_state_says_otherwise() -> None:
    one = pod(0, node="n")
    started = event(one, "Started", field="spec.containers{flux}")
    given = picture(job(completions=1), one, started)
    assert not given.up(by_events=False) and given.up(by_events=True)
    given.take_pod(pod(0, node="n", phase="Failed", state={"terminated": {"exitCode": 3}}))
    assert not given.up(by_events=True) and "exit code 3" in str(given.end())


def test_a_lead_that_ended_beside_an_endless_container_ends_it_all() -> None:
    given = picture(job(), pod(0, node="n", phase="Running", state={"terminated": {"exitCode": 0}}), pod(1))
    assert "exit code 0" in str(given.end())


def test_a_lead_whose_pod_was_replaced_is_judged_by_the_new_one() -> None:
    ended = {"terminated": {"exitCode": 137}}
    given = picture(job(), pod(0, "a", state=ended, phase="Failed", node="n"), pod(0, "b", at=9, state=RUNS, node="n"))
    assert given.end() is None and [one["metadata"]["uid"] for one in given.up(by_events=False)] == ["b"]


def test_ranks_beyond_the_wanted_number_are_not_waited_for() -> None:
    assert causes(picture(job(completions=1), pod(0, state=RUNS, node="n"), pod(1))) == []


def test_a_lost_follower_of_one_that_was_up_comes_back() -> None:
    lost = pod(1, node="n", phase="Failed", state={"terminated": {"exitCode": 76}})
    given = picture(job(), pod(0, state=RUNS, node="n"), lost)
    assert any(isinstance(one, Fatal) for one in given.findings())
    assert not any(isinstance(one, Fatal) for one in given.findings(lenient=True))


# -- with fewer than all


FULL: Object = {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]}
NO_IMAGE: Object = {"waiting": {"reason": "ErrImagePull", "message": "no such image"}}
CREATING: Object = {"waiting": {"reason": "ContainerCreating"}}


def _without_room(index: int) -> Object:
    made = pod(index)
    made["status"].update(FULL)
    return made


def _counts(finding: Finding) -> bool:
    return isinstance(finding, Fatal) or (finding is not None and finding.cause is not Cause.TIME)


def _unmounted(index: int) -> tuple[Object, Object]:
    one = pod(index, node="n", state=CREATING)
    return one, event(one, "FailedMount", 'claim "x" not found')


@pytest.mark.parametrize(
    "others",
    [
        [_without_room(2), _without_room(3)],
        [pod(2, node="n", state=NO_IMAGE), pod(3)],
        [*_unmounted(2), *_unmounted(3)],
        [event(job(), "FailedCreate", "exceeded quota")],
        [_without_room(2), event(pod(2), "NotTriggerScaleUp"), pod(3, node="n", phase="Failed")],
    ],
    ids=["room", "image", "mount", "quota", "autoscaler"],
)
def test_what_keeps_brokers_that_are_not_needed_does_not_end_the_wait_for_those_that_are(others: list[Object]) -> None:
    two = [pod(index, node="n", state=CREATING) for index in range(2)]
    given = picture(job(completions=4), *two, *others, wanted=4)
    clock = VirtualClock()
    wait = waiting(clock, [])
    for _ in range(3):
        wait.look(given.findings(needed=2))
        clock.now += 31
    # Where more are needed than can come, it counts as ever.
    assert any(_counts(one) for one in given.findings(needed=4))


def test_what_keeps_the_lead_counts_however_few_are_needed() -> None:
    others = [pod(index, node="n", state=CREATING) for index in range(1, 4)]
    given = picture(job(completions=4), pod(0, node="n", state=NO_IMAGE), *others, wanted=4)
    with pytest.raises(ProvisionError, match="no such image"):
        waiting(VirtualClock(), []).look(given.findings(needed=2))


def test_an_autoscaler_that_cannot_help_now_is_given_as_long_as_any_lack_of_room() -> None:
    clock = VirtualClock()
    wait = waiting(clock, [])
    given = picture(job(completions=1), _without_room(0), event(pod(0), "NotTriggerScaleUp", "max size reached"))
    wait.look(given.findings())
    clock.now = wait.next_look()
    with pytest.raises(ProvisionError, match=r"max size reached.*run\.scheduleTimeout, 30 s"):
        wait.look(given.findings())


# -- suspended


def test_a_job_that_is_suspended_again_is_held_and_its_going_pods_say_nothing() -> None:
    going = pod(0, leaving=True, node="n", state={"terminated": {"exitCode": 129}})
    given = picture(job(suspend=True), going, event(job(), "FailedCreate"))
    assert causes(given) == [Cause.HELD]


# -- how long


def waiting(clock: VirtualClock, said: list[str], limit: float = 600, schedule: float = 30) -> StartTimeouts:
    return StartTimeouts(limit, schedule, 0, said.append, clock=clock)


REFUSED = picture(job(), event(job(), "FailedCreate", "exceeded quota"))
ALONE = picture(job())


def test_a_refusal_delays_and_ends_the_wait_only_when_it_lasts() -> None:
    clock, said = VirtualClock(), list[str]()
    wait = waiting(clock, said)
    wait.look(REFUSED.findings())
    assert said == ["waiting: job run: pods are refused: exceeded quota"]
    clock.now += 29
    wait.look(REFUSED.findings())
    wait.look(ALONE.findings())  # it was let through
    clock.now += 29
    wait.look(REFUSED.findings())
    clock.now = wait.next_look()
    with pytest.raises(ProvisionError, match=r"exceeded quota.*run\.scheduleTimeout, 30 s"):
        wait.look(REFUSED.findings())


def test_a_refusal_ends_the_wait_at_its_limit_too() -> None:
    clock = VirtualClock()
    wait = waiting(clock, [], limit=10, schedule=280)
    wait.look(REFUSED.findings())
    clock.now = wait.next_look()
    with pytest.raises(ProvisionError, match=r"run\.startTimeout.*exceeded quota"):
        wait.look(REFUSED.findings())


def test_each_obstacle_has_its_own_time() -> None:
    clock = VirtualClock()
    wait = waiting(clock, [])
    wait.look(REFUSED.findings())
    clock.now += 20
    mount = pod(0, node="n")
    wait.look(picture(job(completions=1), mount, event(mount, "FailedMount")).findings())
    assert wait.next_look() == clock.now + 30


def test_a_queue_is_waited_for_until_the_start_time_out_and_named() -> None:
    clock, said = VirtualClock(), list[str]()
    wait = waiting(clock, said, limit=100)
    queued = job(suspend=True)
    queued["metadata"]["labels"] = {"kueue.x-k8s.io/queue-name": "team-a"}
    for _ in range(4):
        wait.look(picture(queued).findings())
        clock.now = wait.next_look()
    assert len(said) >= 3 and all("queue team-a" in line for line in said)
    with pytest.raises(ProvisionError, match=r"0: no limit.*queue team-a"):
        wait.look(picture(queued).findings())


def test_a_wait_that_begins_again_has_the_time_that_was_left() -> None:
    clock = VirtualClock()
    wait = StartTimeouts(100, 30, 0, lambda _: None, begun=clock.now - 60, clock=clock)
    assert min(wait.next_look(), clock.now + 40) <= clock.now + 40
    clock.now += 40
    with pytest.raises(ProvisionError, match="not up within 100 s"):
        wait.look([])
