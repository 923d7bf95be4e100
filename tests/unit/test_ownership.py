"""May this client delete that MiniCluster? By its claim, the occasion, and the owner as it is now."""

from __future__ import annotations

from typing import Any

import pytest

from executors.kube.api import JOBS, PODS
from executors.provision.kubernetes.operator import Remains
from executors.provision.kubernetes.owner import ADOPTED_ANNOTATION, Claim, Deletion, Occasion, Ownership
from executors.provision.kubernetes.recipe import ATTEMPT_ANNOTATION
from executors.provision.kubernetes.watching import Change, Listed
from executors.render import LABELS

#: Written by hand, with no more than a test needs.
Object = Any
MINE, OTHER = "uid-1", "uid-2"
ATTEMPT = "0123456789abcdef"


def owner(uid: str = MINE, *, attempt: str = ATTEMPT, adopted: bool = False, managed: bool = True) -> Object:
    annotations = {ATTEMPT_ANNOTATION: attempt, **({ADOPTED_ANNOTATION: "true"} if adopted else {})}
    metadata: Object = {"name": "run", "uid": uid, "resourceVersion": "42", "annotations": annotations}
    if managed:
        metadata["labels"] = {**LABELS, "team": "a"}
    return {"metadata": metadata}


UNTOUCHED, ADOPTED, REPLACED, FOREIGN = (
    owner(),
    owner(adopted=True),
    owner(OTHER, attempt="of another"),
    owner(OTHER, attempt="", managed=False),
)
AS_READ = Deletion(MINE, "42")
THAT_ONE = Deletion(MINE)

#: What was told to end goes, no matter who created it, but only that very object; what was never asked for does not.
RELEASE = {
    Claim.NONE: None,
    Claim.CREATING: None,
    Claim.CREATED: THAT_ONE,
    Claim.ADOPTED: THAT_ONE,
    Claim.FOUND: THAT_ONE,
}
#: After a failed start only what this client has created goes, and only while no other client uses it.
ABANDON: dict[Claim, tuple[Deletion | None, ...]] = {
    Claim.NONE: (None, None, None, None),
    Claim.CREATING: (None, None, None, None),
    Claim.CREATED: (AS_READ, None, None, None),
    Claim.ADOPTED: (None, None, None, None),
    Claim.FOUND: (None, None, None, None),
}


def held(claim: Claim) -> Ownership:
    knows = claim not in (Claim.NONE, Claim.CREATING)
    return Ownership(claim, MINE if knows else "", "" if claim is Claim.NONE else ATTEMPT)


@pytest.mark.parametrize("claim", Claim)
@pytest.mark.parametrize("now", [None, UNTOUCHED, ADOPTED, REPLACED, FOREIGN])
def test_a_release_deletes_the_very_object_whichever_client_created_it(claim: Claim, now: Object | None) -> None:
    assert held(claim).deletion(Occasion.RELEASED, now) == RELEASE[claim]


@pytest.mark.parametrize("claim", Claim)
def test_a_failed_start_deletes_only_what_this_client_created_and_no_other_uses(claim: Claim) -> None:
    now = (UNTOUCHED, ADOPTED, REPLACED, FOREIGN)
    assert tuple(held(claim).deletion(Occasion.ABANDONED, one) for one in now) == ABANDON[claim]
    assert held(claim).deletion(Occasion.ABANDONED) is None


@pytest.mark.parametrize("claim", Claim)
def test_what_is_over_and_in_the_way_goes_when_this_program_made_it(claim: Claim) -> None:
    def deletion(now: Object) -> Deletion | None:
        return held(claim).deletion(Occasion.REPLACED, now)

    assert deletion(REPLACED) == Deletion(OTHER)
    assert deletion(UNTOUCHED) == deletion(ADOPTED) == THAT_ONE
    assert deletion(FOREIGN) is None


@pytest.mark.parametrize(
    ("now", "claim", "deletion"),
    [
        (UNTOUCHED, Claim.CREATED, AS_READ),
        (ADOPTED, Claim.CREATED, None),
        (REPLACED, Claim.NONE, None),
        (FOREIGN, Claim.NONE, None),
    ],
)
def test_a_creation_without_an_answer_is_settled_by_the_attempt(
    now: Object, claim: Claim, deletion: Deletion | None
) -> None:
    settled = held(Claim.CREATING).settled(now)
    assert settled.claim is claim
    assert settled.deletion(Occasion.ABANDONED, now) == deletion


def test_an_owner_without_annotations_is_nobodys_attempt() -> None:
    bare: Object = {"metadata": {"name": "run", "uid": OTHER, "resourceVersion": "1"}}
    assert not Ownership().made(bare) and not held(Claim.CREATING).made(bare)
    assert not Ownership().made(owner(attempt=""))


@pytest.mark.parametrize("claim", Claim)
def test_one_that_existed_before_is_adopted_or_found(claim: Claim) -> None:
    assert held(claim).is_shared == (claim in (Claim.ADOPTED, Claim.FOUND))


# -- what hung on an owner that is gone


def _owned(uid: str, by: str, kind: str) -> Object:
    return {"metadata": {"name": uid, "uid": uid, "ownerReferences": [{"kind": kind, "uid": by}]}}


def test_an_owner_is_gone_with_its_job_and_its_pods_and_not_with_another_ones() -> None:
    job, pod = _owned("job-1", MINE, "MiniCluster"), _owned("pod-1", "job-1", "Job")
    new_job, new_pod = _owned("job-2", OTHER, "MiniCluster"), _owned("pod-2", "job-2", "Job")
    stream: list[Change | Listed] = [
        Change(PODS, pod),
        Listed(PODS, 1),
        Change(JOBS, job),
        Listed(JOBS, 1),
        # Kubernetes removes the Job first, then its pods; the next MiniCluster of the name does not wait for them.
        Change(JOBS, job, deleted=True),
        Change(PODS, new_pod),
        Change(JOBS, new_job),
        Change(PODS, pod, deleted=True),
    ]
    remains = Remains(MINE)
    assert [remains.are_gone_after(change) for change in stream] == [False] * 7 + [True]


def test_nothing_is_gone_before_all_lists_were_told() -> None:
    remains = Remains(MINE)
    assert not remains.are_gone_after(Listed(PODS, 0)) and remains.are_gone_after(Listed(JOBS, 0))
