"""What becomes of a MiniCluster that is coming up, by streams as an API server sends them: seconds, and a change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from executors import ProvisionError
from executors.errors import EndingError
from executors.kube import Kind
from executors.kube.api import EVENTS, JOBS, PODS
from executors.provision.kubernetes.startup import Expected, QueueTimeout, Ready
from executors.provision.kubernetes.watching import Change, Listed
from tests.unit.startup import ADOPTED, EXPECTED, FOUND, NAME, OPERATED, Played, Stream, ready

#: Written by hand, with no more than a test needs.
Object = Any


def _time(at: float) -> str:
    return f"2026-11-24T09:30:{int(at):02}Z"


# -- objects as they come


def job(uid: str = "5d0c", *, suspend: bool = False, owner: str = "", queue: str = "", **status: Any) -> Object:
    metadata: Object = {"name": NAME, "uid": uid, "resourceVersion": "1"}
    if queue:
        metadata["labels"] = {"kueue.x-k8s.io/queue-name": queue}
    if owner:
        metadata["ownerReferences"] = [{"kind": "MiniCluster", "name": NAME, "uid": owner, "controller": True}]
    spec = {"completionMode": "Indexed", "completions": 2, "parallelism": 2, "suspend": suspend}
    return {"metadata": metadata, "spec": spec, "status": status}


def pod(index: int, at: float = 0, state: str = "new", owner: str = "5d0c", uid: str = "") -> Object:
    """``state``: new, scheduled, running, no-image or oom."""
    broker: dict[str, Object] = {
        "scheduled": {"waiting": {"reason": "ContainerCreating"}},
        "running": {"running": {"startedAt": _time(at)}},
        "no-image": {"waiting": {"reason": "ErrImagePull", "message": 'failed to resolve "nowhere/app:1"'}},
        "oom": {"terminated": {"exitCode": 137, "reason": "OOMKilled", "finishedAt": _time(at)}},
    }
    phase = {"running": "Running", "oom": "Failed"}.get(state, "Pending")
    status: Object = {"phase": phase, "conditions": []}
    if state != "new":
        status["conditions"] = [{"type": "PodScheduled", "status": "True"}]
        status["containerStatuses"] = [{"name": NAME, "image": "nowhere/app:1", "state": broker[state]}]
    return {
        "metadata": {
            "name": f"{NAME}-{index}-x7k2p",
            "uid": uid or f"pod{index}",
            "creationTimestamp": _time(0),
            "annotations": {"batch.kubernetes.io/job-completion-index": str(index)},
            "labels": {"job-name": NAME},
            "ownerReferences": [{"kind": "Job", "name": NAME, "uid": owner, "controller": True}],
        },
        "spec": {"restartPolicy": "Never", **({"nodeName": "node-1"} if state != "new" else {})},
        "status": status,
    }


def event(about: Object, at: float, reason: str, message: str, kind: str = "Pod") -> Object:
    involved = {"kind": kind, "name": about["metadata"]["name"], "uid": about["metadata"]["uid"]}
    if reason in ("Pulled", "Created", "Started"):
        involved["fieldPath"] = f"spec.containers{{{NAME}}}"
    return {
        "metadata": {"uid": f"{about['metadata']['uid']}-{reason}-{at}"},
        "involvedObject": involved,
        "reason": reason,
        "message": message,
        "type": "Warning" if reason.startswith("Failed") else "Normal",
        "lastTimestamp": _time(at),
    }


def told(at: float, kind: Kind[Any], item: Object, *, deleted: bool = False) -> tuple[float, Change]:
    return at, Change(kind, item, deleted=deleted)


LISTED: Stream = [(0.0, Listed(PODS, 0)), (0.0, Listed(EVENTS, 0))]
#: From the Job that has just begun to two pods on a node.
PLACED: Stream = [
    *LISTED,
    told(0.0, JOBS, job()),
    (0.0, Listed(JOBS, 1)),
    told(0.1, PODS, pod(0)),
    told(0.1, PODS, pod(1)),
    told(0.2, EVENTS, event(pod(0), 0, "Scheduled", f"Successfully assigned science/{NAME}-0-x7k2p to node-1")),
    told(0.2, PODS, pod(0, state="scheduled")),
    told(0.2, PODS, pod(1, state="scheduled")),
    told(0.9, EVENTS, event(pod(0), 0, "Pulled", "Container image already present on machine")),
    told(0.9, EVENTS, event(pod(0), 0, "Created", f"Created container: {NAME}")),
]
#: The kubelet's events come at once, what it says of the pods' states with its next look.
STARTED: Stream = [
    told(1.2, EVENTS, event(pod(0), 1, "Started", f"Started container {NAME}")),
    told(1.3, EVENTS, event(pod(1), 1, "Started", f"Started container {NAME}")),
    told(2.1, PODS, pod(0, 1, "running")),
    told(2.2, PODS, pod(1, 1, "running")),
]


# -- up


def test_a_client_that_created_it_goes_ahead_by_the_kubelets_events() -> None:
    assert ready(EXPECTED, [*PLACED, *STARTED]) == (1.3, "pod0", True)


def test_where_that_was_too_early_the_pods_states_count() -> None:
    assert ready(replace(EXPECTED, by_events=False), [*PLACED, *STARTED]) == (2.2, "pod0", False)


@pytest.mark.parametrize(
    ("expected", "at"),
    [(ADOPTED, 2.2), (replace(ADOPTED, enough=1), 2.1), (FOUND, 2.1)],
    ids=["all", "minSize 1", "only looked up"],
)
def test_as_many_brokers_are_waited_for_as_are_needed(expected: Expected, at: float) -> None:
    assert ready(expected, [*PLACED, *STARTED]) == (at, "pod0", False)


def test_without_the_lead_it_is_not_up_however_many_run() -> None:
    stream = [*PLACED, told(2.0, PODS, pod(1, 1, "running"))]
    assert Played(replace(ADOPTED, enough=1)).until(stream) is None


def test_events_that_come_before_everything_else_count_when_the_rest_is_known() -> None:
    events = [one for one in [*PLACED, *STARTED] if isinstance(one[1], Change) and one[1].kind is EVENTS]
    others = [one for one in [*PLACED, *STARTED] if one not in events]
    stream = [(index * 0.1, change) for index, (_, change) in enumerate([*events, *others])]
    found = Played(EXPECTED).until(stream)
    assert found is not None and isinstance(found[1], Ready) and found[1].tentative


# -- never


@pytest.mark.parametrize(
    ("ending", "words"),
    [
        ([told(1.0, PODS, pod(1, state="no-image"))], "ErrImagePull: failed to resolve"),
        ([told(1.0, PODS, pod(0, 1, "oom"))], "OOMKilled"),
        ([told(1.0, JOBS, job(), deleted=True)], "was deleted by somebody else while it started"),
        (
            [told(1.0, JOBS, job(conditions=[{"type": "Failed", "status": "True", "reason": "DeadlineExceeded"}]))],
            "failed .DeadlineExceeded",
        ),
    ],
)
def test_what_can_never_come_up_says_why_at_once(ending: Stream, words: str) -> None:
    played = Played(EXPECTED)
    with pytest.raises(ProvisionError, match=words):
        played.until([*PLACED, *ending])
    assert played.now == 1.0


@pytest.mark.parametrize(
    ("expected", "error"), [(EXPECTED, ProvisionError), (ADOPTED, EndingError), (FOUND, ProvisionError)]
)
def test_only_another_clients_minicluster_that_ends_is_no_failure(expected: Expected, error: type[Exception]) -> None:
    over = [{"type": "SuccessCriteriaMet", "status": "True", "reason": "SuccessPolicy"}]
    with pytest.raises(error, match="is complete"):
        Played(expected).until([*PLACED, told(1.0, JOBS, job(conditions=over))])


def test_a_job_that_is_not_there_is_gone_where_it_is_the_owner_and_awaited_where_an_operator_makes_it() -> None:
    with pytest.raises(ProvisionError, match=f"{NAME} is gone"):
        Played(EXPECTED).until([*LISTED, (0.0, Listed(JOBS, 0))])
    assert Played(OPERATED, job_limit=20).until([*LISTED, (0.0, Listed(JOBS, 0))], last=19) is None


def test_pods_that_a_quota_refuses_are_given_the_schedule_time_out() -> None:
    refused = event(job(), 0, "FailedCreate", 'pods "x" is forbidden: exceeded quota: team', kind="Job")
    played = Played(EXPECTED)
    with pytest.raises(ProvisionError, match=r"exceeded quota: team.*run\.scheduleTimeout, 30 s"):
        played.until([*LISTED, told(0.0, JOBS, job()), told(1.0, EVENTS, refused)], last=100)
    assert played.now == 31.0
    assert played.said == [f'waiting: job {NAME}: pods are refused: pods "x" is forbidden: exceeded quota: team']


# -- an operator's Job


def test_the_job_of_an_earlier_minicluster_is_neither_waited_for_nor_taken_for_the_new_ones() -> None:
    old = job("old0", owner="mc00", conditions=[{"type": "Complete", "status": "True"}])
    played = Played(OPERATED, job_limit=20)
    stream: Stream = [
        *LISTED,
        told(0.0, JOBS, old),
        told(0.0, PODS, pod(0, 1, "running", owner="old0", uid="old-pod")),
        told(25.0, JOBS, old, deleted=True),
        told(44.0, JOBS, job("new0", owner="mc01")),
        told(45.0, PODS, pod(0, 45, "running", owner="new0")),
        told(45.0, PODS, pod(1, 45, "running", owner="new0")),
    ]
    found = played.until(stream)
    assert found is not None and isinstance(found[1], Ready)
    assert (found[0], found[1].lead["metadata"]["uid"]) == (45.0, "pod0")


def test_an_operator_that_makes_no_job_is_named() -> None:
    played = Played(OPERATED, job_limit=20)
    with pytest.raises(ProvisionError, match="the Flux Operator has made no Job within 20 s"):
        played.until([*LISTED, (0.0, Listed(JOBS, 0))], last=100)
    assert played.now == 20.0


# -- queues


def test_a_job_that_no_queue_admits_is_to_be_begun_once() -> None:
    held = job(suspend=True, queue="team-a")
    played = Played(EXPECTED, queue_deadline=15.0)
    assert played.until([*LISTED, told(0.0, JOBS, held)], last=60) == (15.0, QueueTimeout("team-a"))
    # It is begun by the client, and the pods come.
    assert played.until([told(15.1, JOBS, job(queue="team-a"))]) is None
    assert played.startup.next_look() > 15.0


def test_a_job_that_was_admitted_in_time_is_left_alone_when_it_is_held_again() -> None:
    played = Played(EXPECTED, queue_deadline=15.0)
    admitted = [*LISTED, told(0.0, JOBS, job(suspend=True, queue="team-a")), told(3.0, JOBS, job(queue="team-a"))]
    assert played.until(admitted, last=60) == (15.0, QueueTimeout(None))
    assert played.until([told(16.0, JOBS, job(suspend=True, queue="team-a"))], last=60) is None
    assert any("Kueue has not admitted it (queue team-a)" in line for line in played.said)


@pytest.mark.parametrize("change", [lambda: told(1.0, JOBS, job(suspend=True)), lambda: (1.0, Listed(PODS, 0))])
def test_pods_of_a_job_that_is_held_do_not_count(change: Callable[[], tuple[float, Change | Listed]]) -> None:
    stream = [*LISTED, told(0.0, JOBS, job(suspend=True)), told(0.5, PODS, pod(0, state="running")), change()]
    assert Played(FOUND).until(stream) is None
