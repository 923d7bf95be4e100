"""What our Flux Operator decides, of what it sees."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executors.controller.deciding import (
    UNSEEN,
    Create,
    Decision,
    DeleteMiniCluster,
    LabelPod,
    Observed,
    Refusal,
    Resize,
    Wish,
    decide,
)
from executors.controller.trimming import trimmed
from executors.kube.api import JOBS, PODS, kind_of

NOW = "2026-01-01T00:00:00Z"
LATER = "2026-01-01T00:01:00Z"


def resource(spec: dict[str, Any] | None = None, **more: Any) -> Any:
    """A MiniCluster of two."""
    container = {"image": "app", "command": "hostname"}
    metadata = {"name": "mc", "namespace": "ns", "uid": "u-1", "generation": 1, "resourceVersion": "1"}
    return {
        "metadata": {**metadata, **more.pop("metadata", {})},
        "spec": {"size": 2, "containers": [container], **(spec or {})},
        **more,
    }


def decided(one: Any, now: str = NOW, **observed: Any) -> Decision:
    return decide(one, Observed(**observed), lambda name: f"certificate of {name}", now)


def owned(actions: Any) -> dict[tuple[str, str], dict[str, Any]]:
    """As the watches would tell of what was created, the Job apart. Secrets and ConfigMaps are not watched."""
    made = [one.manifest for one in actions if isinstance(one, Create)]
    return {(one["kind"], one["metadata"]["name"]): one for one in made if one["kind"] in ("Service", "Pod")}


def the_job(actions: Any, **status: Any) -> Any:
    """As the watch would tell of it."""
    made: Any
    [made] = [one.manifest for one in actions if isinstance(one, Create) and one.manifest["kind"] == "Job"]
    made = json.loads(json.dumps(made))
    made["metadata"] |= {"uid": "j-1", "resourceVersion": "2"}
    made["status"] = status
    return trimmed(JOBS, made)


def pod(index: int, state: dict[str, Any] | None = None, *, ready: bool = False, **more: Any) -> Any:
    """A broker's pod, which runs unless ``state`` says something else."""
    status = {"name": "mc", "image": "app", "ready": ready, "state": state or {"running": {}}}
    made: Any = {
        "metadata": {
            "name": f"mc-{index}-abcde",
            "namespace": "ns",
            "uid": f"p-{index}",
            "labels": {"job-name": "mc", "job-index": str(index)},
            "annotations": {"batch.kubernetes.io/job-completion-index": str(index)},
            "ownerReferences": [{"kind": "Job", "uid": "j-1"}],
        },
        "spec": {"restartPolicy": "Never"},
        "status": {"phase": "Running", "containerStatuses": [status], **more},
    }
    return trimmed(PODS, made)


def condition(decision: Decision, kind: str) -> dict[str, Any]:
    assert decision.status is not None
    [found] = [one for one in decision.status["conditions"] if one["type"] == kind]
    return dict(found)


def true(decision: Decision) -> set[str]:
    """Our conditions that hold."""
    assert decision.status is not None
    found = {one["type"] for one in decision.status["conditions"] if one["status"] == "True"}
    return {one for one in found if not one.startswith("Job")}


@pytest.fixture
def living() -> tuple[dict[str, Any], dict[str, Any], dict[tuple[str, str], dict[str, Any]]]:
    """A MiniCluster, its Job, and what else belongs to it."""
    one = resource({"maxSize": 4})
    actions = decided(one).actions
    return one, the_job(actions), owned(actions)


Living = tuple[dict[str, Any], dict[str, Any], dict[tuple[str, str], dict[str, Any]]]


# -- the beginning


def test_everything_is_made_and_the_job_last() -> None:
    decision = decided(resource())
    kinds = [one.manifest["kind"] for one in decision.actions if isinstance(one, Create)]
    assert kinds == ["Secret", "ConfigMap", "Service", "Job"]
    assert true(decision) == {"Accepted", "Reconciling"}
    assert decision.status is not None
    required = {name: decision.status[name] for name in ("size", "selector", "maximumSize", "jobid")}
    assert required == {"size": 0, "selector": "hpa-selector=mc", "maximumSize": 2, "jobid": ""}


def test_a_wrong_spec_makes_nothing_and_all_problems_are_told_once() -> None:
    wrong = resource({"size": 0, "maxSize": 0, "flux": {"logLevel": 99}})
    decision = decided(wrong)
    assert decision.actions == ()
    assert true(decision) == {"Stalled"}
    text = condition(decision, "Accepted")["message"]
    assert "spec.size: 0 must be" in text and "spec.flux.logLevel: 99 must be" in text
    [event] = decision.events
    assert (event.reason, event.warning) == ("InvalidSpec", True)
    assert decided({**wrong, "status": decision.status}) == Decision(), "no loop"


def test_the_same_status_is_not_written_twice() -> None:
    first = decided(resource())
    again = decided({**resource(), "status": first.status}, LATER, owned=owned(first.actions))
    assert again.status is None and again.events == ()
    kinds = [one.manifest["kind"] for one in again.actions if isinstance(one, Create)]
    assert kinds == ["Secret", "ConfigMap", "Job"], "what is not seen is tried again"


@given(st.sets(st.sampled_from(["Service", "Job"])))
def test_from_any_part_of_its_objects_the_rest_is_made(there: set[str]) -> None:
    first = decided(resource()).actions
    parts = {key: one for key, one in owned(first).items() if key[0] in there}
    job = the_job(first) if "Job" in there else None
    decision = decided(resource(), owned=parts, job=job)
    made = {one.manifest["kind"] for one in decision.actions if isinstance(one, Create)}
    unseen = set() if "Job" in there else {"Secret", "ConfigMap"}
    assert made == ({"Service", "Job"} - there) | unseen


def test_nothing_is_begun_beside_pods_or_objects_of_an_earlier_one() -> None:
    decision = decided(resource(), pods=[pod(0)])
    assert decision.actions == () and condition(decision, "Ready")["reason"] == "WaitingForLeftovers"
    old = {"metadata": {"name": "mc", "ownerReferences": [{"kind": "MiniCluster", "uid": "old"}]}}
    decision = decided(resource(), owned={("Service", "mc"): old})
    assert decision.actions == () and condition(decision, "Ready")["reason"] == "WaitingForLeftovers"


def test_a_job_of_somebody_elses_is_named_and_left_alone() -> None:
    decision = decided(resource(), job={"metadata": {"name": "mc", "uid": "x"}, "spec": {}})
    assert decision.actions == () and condition(decision, "Stalled")["reason"] == "NameTaken"


def test_what_the_server_refuses_for_good_is_not_tried_again_until_the_spec_changes() -> None:
    refusal = Refusal("Job", "mc", "spec.x: too long", 1, passing=False)
    decision = decided(resource(), refusal=refusal)
    assert decision.actions == () and "spec.x: too long" in condition(decision, "Stalled")["message"]
    assert decided(resource(metadata={"generation": 2}), refusal=refusal).actions
    assert decided(resource(), refusal=Refusal("Job", "mc", "exceeded quota", 1, passing=True)).actions


def test_restricted_namespaces_get_pods_that_they_take() -> None:
    [*_, job] = decided(resource(), restricted=True).actions
    assert isinstance(job, Create)
    assert job.manifest["spec"]["template"]["spec"]["securityContext"]["runAsNonRoot"] is True


def test_a_network_policy_is_made_where_it_is_asked_for() -> None:
    asked = resource(metadata={"annotations": {"flux-operator-executors/network-policy": "true"}})
    [policy] = [
        one.manifest for one in decided(asked).actions if isinstance(one, Create) and "ingress" in str(one.manifest)
    ]
    assert policy["kind"] == "NetworkPolicy"
    assert policy["spec"]["ingress"] == [{"from": [{"podSelector": {"matchLabels": {"job-name": "mc"}}}]}]


def test_a_minicluster_that_is_being_deleted_is_left_alone() -> None:
    assert decided(resource(metadata={"deletionTimestamp": NOW})) == Decision()


# -- while it lives


def test_stages_of_a_start(living: Living) -> None:
    one, job, parts = living
    starting = decided(one, job=job, owned=parts, pods=[pod(0), pod(1, {"waiting": {"reason": "ContainerCreating"}})])
    assert true(starting) == {"Accepted", "Reconciling"}
    assert "1 of 2 pods run: pod mc-1-abcde is ContainerCreating" in condition(starting, "PodsReady")["message"]
    up = decided(one, job=job, owned=parts, pods=[pod(0), pod(1)])
    assert true(up) == {"Accepted", "PodsReady", "Reconciling"}, "its instance does not run yet"
    ready = decided(one, job=job, owned=parts, pods=[pod(0, ready=True), pod(1)])
    assert true(ready) == {"Accepted", "PodsReady", "Ready"}
    assert {event.reason for event in ready.events} == {"PodsReady", "Ready"}


def test_a_followers_image_that_is_not_there_is_told_in_the_pods_own_words(living: Living) -> None:
    one, job, parts = living
    waiting = {"waiting": {"reason": "ErrImagePull", "message": "no such image"}}
    decision = decided(one, job=job, owned=parts, pods=[pod(0), pod(1, waiting)])
    assert true(decision) == {"Accepted", "Reconciling", "Stalled"}
    assert "container mc, image app: ErrImagePull: no such image" in condition(decision, "Stalled")["message"]


def test_pods_that_a_quota_refuses_are_told(living: Living) -> None:
    one, job, parts = living
    event = {
        "metadata": {"name": "e", "uid": "e-1"},
        "involvedObject": {"kind": "Job", "name": "mc", "uid": "j-1"},
        "reason": "FailedCreate",
        "message": "exceeded quota: pods=0",
    }
    decision = decided(one, job=job, owned=parts, events=[event])
    assert "pods are refused: exceeded quota: pods=0" in condition(decision, "Stalled")["message"]


def test_a_follower_that_is_lost_does_not_make_a_running_instance_stalled(living: Living) -> None:
    one, job, parts = living
    lost = pod(1, {"terminated": {"exitCode": 76}}, phase="Failed")
    decision = decided(one, job=job, owned=parts, pods=[pod(0, ready=True), lost])
    assert true(decision) == {"Accepted", "Ready", "Reconciling"}


def test_suspended_is_no_failure(living: Living) -> None:
    one, job, parts = living
    job["spec"]["suspend"] = True
    decision = decided(one, job=job, owned=parts, pods=[pod(0)])
    assert true(decision) == {"Accepted", "Suspended"} and not any(event.warning for event in decision.events)


def test_pods_get_the_label_by_which_upstreams_users_find_one(living: Living) -> None:
    one, job, parts = living
    new = pod(1)
    del new["metadata"]["labels"]["job-index"]
    assert decided(one, job=job, owned=parts, pods=[pod(0), new]).actions == (LabelPod("mc-1-abcde", "p-1", "1"),)


def test_a_thousand_pods_get_their_labels_by_and_by(living: Living) -> None:
    one, job, parts = living
    job["spec"] |= {"completions": 1000, "parallelism": 1000}
    many = [pod(index) for index in range(1000)]
    for new in many:
        del new["metadata"]["labels"]["job-index"]
    decision = decided(one, job=job, owned=parts, pods=many)
    assert len(decision.actions) == 20 and decision.status is not None


# -- changes


def test_the_size_follows_the_spec_up_to_the_largest(living: Living) -> None:
    one, job, parts = living
    known = {**one, "status": decided(one).status}
    known["spec"] = {**one["spec"], "size": 4}
    assert decided(known, job=job, owned=parts).actions == (Resize("j-1", 4),)
    for size in (0, 5):
        known["spec"] = {**one["spec"], "size": size}
        decision = decided(known, job=job, owned=parts)
        assert decision.actions == ()
        assert f"spec.size: {size} is not from 1 to 4" in condition(decision, "Accepted")["message"]


def shrinking(living: Living, lead: dict[str, Any], *others: dict[str, Any], size: int = 1, now: str = NOW) -> Decision:
    one, job, parts = living
    known = {**one, "status": decided(one).status, "spec": {**one["spec"], "size": size}}
    return decided(known, now, job=job, owned=parts, pods=[lead, *others])


def told(size: int, since: str = NOW) -> Any:
    """A lead that has been told a size."""
    lead = pod(0, ready=True)
    lead["metadata"]["annotations"] |= {
        "flux-operator-executors/size": str(size),
        "flux-operator-executors/size-since": since,
    }
    return lead


def test_before_ranks_go_their_jobs_have_time_to_end(living: Living) -> None:
    lead, follower = pod(0, ready=True), pod(1)
    first = shrinking(living, lead, follower)
    assert first.actions == (Wish("mc-0-abcde", "p-0", 1, NOW),) and first.again_after == 60
    assert condition(first, "Ready") | {"status": "True", "reason": "Shrinking"} == condition(first, "Ready")
    waiting = shrinking(living, told(1), follower, now="2026-01-01T00:00:50Z")
    assert waiting.actions == () and waiting.again_after == 10
    gone = pod(1, {"terminated": {"exitCode": 76}}, phase="Failed")
    assert shrinking(living, told(1), gone).actions == (Resize("j-1", 1),), "its broker has ended"
    assert shrinking(living, told(1), follower, now=LATER).actions == (Resize("j-1", 1),), "time is up"
    assert shrinking(living, pod(0), follower).actions == (Resize("j-1", 1),), "nobody who could end anything runs"


def test_jobs_have_as_long_as_the_minicluster_says(living: Living) -> None:
    living[0]["metadata"]["annotations"] = {"flux-operator-executors/drain-seconds": "600"}
    assert shrinking(living, pod(0, ready=True), pod(1)).again_after == 600


def test_a_wish_that_is_taken_back_and_a_size_that_grows_again_are_told(living: Living) -> None:
    assert shrinking(living, told(1), pod(1), size=2).actions == (Wish("mc-0-abcde", "p-0", 2, NOW),)
    assert shrinking(living, told(1), pod(1), size=3).actions == (
        Wish("mc-0-abcde", "p-0", 3, NOW),
        Resize("j-1", 3),
    )
    assert shrinking(living, told(2), pod(1), size=2).actions == ()


def test_somebody_elses_parallelism_is_left_alone(living: Living) -> None:
    one, job, parts = living
    job["spec"]["parallelism"] = 1
    decision = decided(one, job=job, owned=parts, pods=[pod(0)])
    assert decision.actions == ()
    assert condition(decision, "PodsReady")["status"] == "True"


def test_another_change_of_a_living_spec_is_refused_with_its_fields(living: Living) -> None:
    one, job, parts = living
    changed = {**one, "spec": {**one["spec"], "containers": [{"image": "app", "command": "other"}], "tasks": 4}}
    decision = decided(changed, job=job, owned=parts, pods=[pod(0, ready=True), pod(1)])
    assert decision.actions == ()
    accepted = condition(decision, "Accepted")
    assert accepted["reason"] == "ChangeRefused"
    assert accepted["message"].startswith("spec.containers[0].command, spec.tasks: cannot be changed")
    assert condition(decision, "Ready")["status"] == "True", "it goes on"


def test_what_is_deleted_under_it_is_made_again(living: Living) -> None:
    one, job, parts = living
    left = {key: value for key, value in parts.items() if key[0] != "Service"}
    [action] = decided(one, job=job, owned=left, pods=[pod(0), pod(1)]).actions
    assert isinstance(action, Create) and action.manifest["kind"] == "Service"


def test_a_secret_that_was_deleted_is_made_again_when_a_pod_misses_it(living: Living) -> None:
    one, job, parts = living
    name = name_of_part(job, "Secret")
    event = {
        "metadata": {"name": "e", "uid": "e-1"},
        "involvedObject": {"kind": "Pod", "name": "mc-1-abcde", "uid": "p-1"},
        "reason": "FailedMount",
        "message": f'MountVolume.SetUp failed for volume "flux-curve" : secret "{name}" not found',
    }
    waits = {"waiting": {"reason": "ContainerCreating"}}
    new = pod(1, waits, phase="Pending")
    [action] = decided(one, job=job, owned=parts, pods=[pod(0, waits, phase="Pending"), new], events=[event]).actions
    assert isinstance(action, Create) and action.manifest["metadata"]["name"] == name
    assert decided(one, job=job, owned=parts, pods=[pod(0), pod(1)], events=[event]).actions == (), "it has it by now"


def name_of_part(job: dict[str, Any], kind: str) -> str:
    parts = job["metadata"]["annotations"]["flux-operator-executors/parts"].split()
    [found] = [one.partition("/")[2] for one in parts if one.startswith(f"{kind}/")]
    return str(found)


def without(kind: str, job: dict[str, Any]) -> dict[str, Any]:
    """A follower's pod whose variables are of an object that has been deleted."""
    name = name_of_part(job, kind)
    message = f'{kind.lower()} "{name}" not found'
    made: dict[str, Any] = pod(
        1, {"waiting": {"reason": "CreateContainerConfigError", "message": message}}, phase="Pending"
    )
    return made


def test_a_config_map_is_made_again_that_a_pods_variables_miss(living: Living) -> None:
    one, job, parts = living
    [action] = decided(one, job=job, owned=parts, pods=[pod(0), without("ConfigMap", job)]).actions
    assert isinstance(action, Create) and action.manifest["metadata"]["name"] == name_of_part(job, "ConfigMap")


def test_brokers_that_run_have_a_key_that_no_new_secret_has(living: Living) -> None:
    one, job, parts = living
    decision = decided(one, job=job, owned=parts, pods=[pod(0), without("Secret", job)])
    assert decision.actions == () and condition(decision, "Stalled")["reason"] == "KeyDeleted"
    assert "apply it again" in condition(decision, "PodsReady")["message"]
    # A key that the spec gives is the same each time.
    given = resource({"maxSize": 4, "flux": {"curveCert": "key"}})
    made = decided(given).actions
    job = the_job(made)
    [action] = decided(given, job=job, owned=owned(made), pods=[pod(0), without("Secret", job)]).actions
    assert isinstance(action, Create) and action.manifest["kind"] == "Secret"


def test_what_is_made_again_after_a_resize_knows_all_brokers() -> None:
    """Without maxSize, the brokers are as many as there were at the start."""
    one = resource({"size": 4})
    made = decided(one).actions
    job = the_job(made)
    smaller = resource({"size": 2}, status={"maximumSize": 4, "conditions": []})
    job["metadata"]["annotations"]["flux-operator-executors/recorded-size"] = "2"
    [action] = decided(smaller, job=job, owned=owned(made), pods=[pod(0), without("ConfigMap", job)]).actions
    assert isinstance(action, Create) and "mc-[0-3]" in action.manifest["data"]["broker.toml"]


def test_objects_of_another_spec_are_not_taken_for_this_ones(living: Living) -> None:
    """They are immutable, and may have been made before the API server refused the rest of an earlier spec."""

    def names(one: Any) -> set[str]:
        return {
            action.manifest["metadata"]["name"]
            for action in decided(one).actions
            if isinstance(action, Create) and action.manifest["kind"] in UNSEEN
        }

    script = {"containers": [{"image": "app", "command": "hostname", "commands": {"pre": "a"}}]}
    changed = [resource(), resource({"size": 4}), resource({"maxSize": 5}), resource(script)]
    found = [names(one) for one in changed]
    assert all(len(one) == 2 for one in found) and len(set.union(*found)) == 2 * len(changed)
    assert names(resource()) == found[0], "and the same ones of the same"


def test_the_largest_size_is_that_of_the_job_that_is_there() -> None:
    refused_before = resource({"size": 4}, status={"maximumSize": 2, "conditions": []})
    decision = decided(refused_before)
    assert decision.status is not None and decision.status["maximumSize"] == 4
    decision = decided(refused_before, job=the_job(decision.actions), owned=owned(decision.actions))
    assert decision.status is not None and decision.status["maximumSize"] == 4


def test_a_pod_whose_node_does_not_answer_is_not_ready(living: Living) -> None:
    one, job, parts = living
    lost = [{"type": "Ready", "status": "False"}, {"type": "ContainersReady", "status": "True"}]
    lead = pod(0, ready=True, conditions=lost)
    lead["spec"]["nodeName"] = "n1"
    decision = decided(one, job=job, owned=parts, pods=[lead, pod(1)])
    assert true(decision) == {"Accepted", "Reconciling", "Stalled"}
    assert "the node n1 of mc-0-abcde does not answer" in condition(decision, "PodsReady")["message"]


@pytest.mark.parametrize(
    "given, seconds", [("99999999999999", 30 * 86400), ("9" * 290, 30 * 86400), ("x", 60), ("5", 5)]
)
def test_a_time_to_drain_has_a_limit(given: str, seconds: float) -> None:
    one = resource({"size": 4}, metadata={"annotations": {"flux-operator-executors/drain-seconds": given}})
    made = decided(one).actions
    smaller = {**one, "spec": {**one["spec"], "size": 2}}
    pods = [pod(0, ready=True), *(pod(index) for index in (1, 2, 3))]
    decision = decided(smaller, job=the_job(made), owned=owned(made), pods=pods)
    assert decision.again_after == seconds


def test_a_moment_that_somebody_has_edited_is_no_error() -> None:
    one = resource({"size": 4})
    made = decided(one).actions
    smaller = {**one, "spec": {**one["spec"], "size": 2}}
    lead = pod(0, ready=True)
    lead["metadata"]["annotations"] |= {"flux-operator-executors/size": "2", "flux-operator-executors/size-since": "x"}
    pods = [lead, *(pod(index) for index in (1, 2, 3))]
    assert decided(smaller, job=the_job(made), owned=owned(made), pods=pods).again_after == 60


def test_a_job_of_upstreams_operator_is_adopted_status_and_size_only() -> None:
    one = resource({"containers": [{"image": "app", "command": "other"}], "maxSize": 3})
    made_by_upstream = {
        "metadata": {"name": "mc", "uid": "j-1", "ownerReferences": [{"kind": "MiniCluster", "uid": "u-1"}]},
        "spec": {"completions": 2, "parallelism": 2},
    }
    decision = decided(one, job=made_by_upstream, pods=[pod(0), pod(1)])
    assert decision.actions == () and true(decision) == {"Accepted", "PodsReady", "Ready"}
    bigger = {**one, "status": decision.status, "spec": {**one["spec"], "size": 3}}
    assert decided(bigger, job=made_by_upstream).actions == (Resize("j-1", 3),)


# -- the end


def ended(living: Living, **status: Any) -> Decision:
    one, job, parts = living
    return decided(one, job={**job, "status": status}, owned=parts, pods=[])


def test_the_jobs_end_is_its_end_and_it_never_runs_again(living: Living) -> None:
    done = ended(living, conditions=[{"type": "SuccessCriteriaMet", "status": "True"}])
    assert true(done) == {"Accepted", "Completed"}
    after = {**living[0], "status": done.status}
    assert decided(after) == Decision(), "its Job was deleted"
    changed = {**after, "metadata": {**after["metadata"], "generation": 2}}
    again = decided(changed)
    assert again.actions == () and again.status is not None
    assert {one["observedGeneration"] for one in again.status["conditions"]} == {2}
    assert decided({**changed, "status": again.status}) == Decision()


def test_a_lead_that_ended_well_has_completed_before_the_job_says_so(living: Living) -> None:
    one, job, parts = living
    lead = pod(0, {"terminated": {"exitCode": 0}}, phase="Succeeded")
    assert true(decided(one, job=job, owned=parts, pods=[lead, pod(1)])) == {"Accepted", "Completed"}


def test_a_failed_command_is_a_failure_in_the_pods_own_words(living: Living) -> None:
    one, job, parts = living
    failed = [{"type": "FailureTarget", "status": "True", "reason": "PodFailurePolicy", "message": "rule 1"}]
    lead = pod(0, {"terminated": {"exitCode": 3, "reason": "Error"}}, phase="Failed")
    decision = decided(one, job={**job, "status": {"conditions": failed}}, owned=parts, pods=[lead])
    assert true(decision) == {"Accepted", "Failed", "Stalled"}
    assert "pod mc-0-abcde, container mc ended with exit code 3" in condition(decision, "Failed")["message"]
    [event] = [one for one in decision.events if one.warning]
    assert event.reason == "Failed"


def test_cleanup_deletes_the_minicluster_itself() -> None:
    one = resource({"cleanup": True})
    actions = decided(one).actions
    done = {**the_job(actions), "status": {"conditions": [{"type": "Complete", "status": "True"}]}}
    decision = decided(one, job=done, owned=owned(actions))
    assert decision.actions == (DeleteMiniCluster("u-1"),) and decision.status is not None


def test_in_a_namespace_that_is_being_deleted_the_minicluster_goes_first(living: Living) -> None:
    one, job, parts = living
    decision = decided(one, job=job, owned=parts, pods=[pod(0, phase="Failed")], namespace_ends=True)
    assert decision.actions == (DeleteMiniCluster("u-1"),)


# -- the whole


class World:
    """An API server of one MiniCluster, as far as decisions go."""

    def __init__(self) -> None:
        self.resource = resource()
        self.job: dict[str, Any] | None = None
        self.parts: dict[tuple[str, str], dict[str, Any]] = {}
        self.created: list[str] = []

    def step(self, stop_after: int | None = None) -> bool:
        """One decision, of which only the first actions are done where the controller is killed; whether there was
        anything to do."""
        decision = decided(self.resource, job=self.job, owned=self.parts)
        for done, action in enumerate(decision.actions):
            if done == stop_after:
                return True
            assert isinstance(action, Create)
            kind = kind_of(action.manifest)
            name = f"{action.manifest['kind']} {action.manifest['metadata']['name']}"
            if name in self.created and action.manifest["kind"] in UNSEEN:
                continue  # AlreadyExists
            self.created.append(name)
            if kind is JOBS:
                self.job = the_job([action])
            elif action.manifest["kind"] not in UNSEEN:
                self.parts[action.manifest["kind"], action.manifest["metadata"]["name"]] = action.manifest
        if decision.status is not None and stop_after is None:
            self.resource = {**self.resource, "status": decision.status}
        return bool(decision.actions) or decision.status is not None


@settings(max_examples=30)
@given(st.lists(st.integers(0, 4), max_size=6))
def test_it_converges_wherever_the_controller_is_killed_with_one_job(kills: list[int]) -> None:
    world = World()
    for stop_after in kills:
        world.step(stop_after)
    steps = 0
    while world.step():
        steps += 1
        assert steps < 5
    kinds = sorted(one.split()[0] for one in world.created)
    assert kinds == ["ConfigMap", "Job", "Secret", "Service"]
