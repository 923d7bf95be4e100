"""The parts around the decisions of our Flux Operator: its queue, its caches, its CRD, how it reads specs."""

from __future__ import annotations

import itertools
import json
import threading
from typing import Any

import pytest

from executors.controller import conditions
from executors.controller.acting import Actor
from executors.controller.crd import crd
from executors.controller.deciding import Create, Decision, LabelPod
from executors.controller.loop import FOLLOWED, Controller, Options
from executors.controller.reading import Refused, changes, read, record
from executors.controller.store import Store, key_of
from executors.controller.trimming import trimmed
from executors.controller.work import WorkQueue
from executors.kube import ConflictError, InvalidError
from executors.kube.api import EVENTS, JOBS, MINICLUSTERS, PODS, SECRETS, SERVICES
from executors.kube.objects import Condition
from tests.support.upstream import crd_spec, directory, miniclusters

# -- the queue


def test_a_key_has_one_worker_at_a_time_and_comes_again_when_it_changed_meanwhile() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for key in ("a", "a", "b"):
        queue.add(key)
    assert [queue.get(), queue.get(), len(queue)] == ["a", "b", 0]
    queue.add("a")
    queue.add("a")
    assert len(queue) == 0, "somebody has it"
    queue.done("a")
    assert queue.get() == "a"
    queue.done("a")
    queue.done("b")
    queue.close()
    assert queue.get() is None


def test_failures_wait_longer_each_time_up_to_a_minute() -> None:
    queue: WorkQueue[str] = WorkQueue()
    waits = [queue.failed("a") for _ in range(12)]
    assert 0.1 < waits[0] < 0.3 and 50 < waits[-1] < 70
    assert all(later > earlier * 1.5 for earlier, later in itertools.pairwise(waits[:8]))
    queue.succeeded("a")
    assert queue.failed("a") < 0.3


def test_what_is_due_later_comes_by_itself() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add_after("slow", 0.05)
    queue.add_after("quick", 0.01)
    assert [queue.get(), queue.get()] == ["quick", "slow"]


def test_a_worker_outlives_a_moment_that_is_further_away_than_a_lock_can_wait() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add_after("never", 1e15)
    got: list[str | None] = []
    worker = threading.Thread(target=lambda: got.append(queue.get()), daemon=True)
    worker.start()
    queue.add("now")
    worker.join(10.0)
    assert got == ["now"]


# -- the caches


def job(version: str, **more: Any) -> Any:
    metadata = {"name": "mc", "namespace": "ns", "uid": "j", "resourceVersion": version}
    return {"metadata": metadata, "spec": {}, "status": {}, **more}


def test_an_older_word_does_not_replace_a_younger_one() -> None:
    store = Store()
    store.take(JOBS, job("9", spec={"parallelism": 2}))
    store.take(JOBS, job("8", spec={"parallelism": 1}))
    found = store.job(("ns", "mc"))
    assert found is not None and found["spec"] == {"parallelism": 2}


def test_the_end_of_a_job_that_was_deleted_at_once_is_not_missed() -> None:
    store = Store()
    store.take(JOBS, job("1"))
    store.take(JOBS, job("2", status={"conditions": [{"type": "Complete", "status": "True"}]}), deleted=True)
    assert store.job(("ns", "mc")) is None
    found = store.ended_job(("ns", "mc"))
    assert found is not None and found["status"]["conditions"][0]["type"] == "Complete"


@pytest.mark.parametrize("conditions", [[], [{"type": "Suspended", "status": "True"}],
                                        [{"type": "Suspended", "status": "False"}]])  # fmt: skip
def test_a_job_that_was_deleted_before_its_end_has_not_ended(conditions: list[dict[str, str]]) -> None:
    """Kueue suspends each Job once, so that each has such a condition."""
    store = Store()
    store.take(JOBS, job("1", status={"conditions": conditions}))
    store.take(JOBS, job("2", status={"conditions": conditions}), deleted=True)
    assert store.job(("ns", "mc")) is None and store.ended_job(("ns", "mc")) is None


def test_an_answer_from_before_its_end_does_not_bring_an_object_back() -> None:
    store = Store()
    store.take(JOBS, job("5"))
    store.take(JOBS, job("7"), deleted=True)
    store.take(JOBS, job("6", spec={"parallelism": 3}))
    assert store.job(("ns", "mc")) is None
    # One whose label was taken away and given back is there again.
    store.take(JOBS, job("8"))
    assert store.job(("ns", "mc")) is not None


def test_a_word_on_the_end_of_another_object_of_the_name_is_not_taken_for_this_ones() -> None:
    store = Store()
    new = job("5")
    new["metadata"]["uid"] = "new"
    store.take(JOBS, new)
    store.take(JOBS, job("4"), deleted=True)
    assert store.job(("ns", "mc")) is not None


@pytest.mark.parametrize(
    ("kind", "thing"),
    [
        (MINICLUSTERS, {"metadata": {"name": "my-mc", "namespace": "ns"}}),
        (JOBS, {"metadata": {"name": "my-mc", "namespace": "ns"}}),
        (PODS, {"metadata": {"name": "my-mc-0-abcde", "namespace": "ns", "labels": {"job-name": "my-mc"}}}),
        (SECRETS, {"metadata": {"name": "x", "namespace": "ns", "labels": {"app.kubernetes.io/name": "my-mc"}}}),
        (EVENTS, {"metadata": {"namespace": "ns"}, "involvedObject": {"kind": "Job", "name": "my-mc"}}),
        (EVENTS, {"metadata": {"namespace": "ns"}, "involvedObject": {"kind": "Pod", "name": "my-mc-12-abcde"}}),
    ],
)
def test_whose_an_object_is(kind: Any, thing: dict[str, Any]) -> None:
    assert key_of(kind, thing) == ("ns", "my-mc")


def test_what_is_kept_of_pods_is_small_and_of_secrets_is_nothing() -> None:
    pod: Any = {
        "metadata": {"name": "p", "namespace": "ns", "uid": "u", "managedFields": ["long"], "annotations": {"x": "y"}},
        "spec": {"containers": [{"name": "c", "image": "i", "env": [{"name": "TOKEN", "value": "secret"}]}]},
        "status": {"phase": "Running", "hostIP": "1.2.3.4"},
    }
    secret: Any = {"metadata": {"name": "s"}, "data": {"k": "v"}}
    assert json.dumps(trimmed(PODS, pod)).count("secret") == 0
    assert trimmed(PODS, pod)["metadata"].keys() == {"name", "namespace", "uid"}
    assert not any(one.kind is SECRETS for one in FOLLOWED)
    assert "data" not in trimmed(SECRETS, secret)


def test_what_is_in_the_way_is_known_until_it_is_looked_at_again() -> None:
    store, key = Store(), ("ns", "mc")
    service: Any = {"metadata": {"name": "web", "namespace": "ns", "uid": "s"}, "spec": {}}
    store.take_stranger(key, SERVICES, service)
    store.take_stranger(key, JOBS, job("1"))
    assert store.parts(key, {"Service": SERVICES}).keys() == {("Service", "web")}
    assert store.job(key) is not None
    assert [kind for kind, _ in store.strangers(key)] == [SERVICES, JOBS]
    store.forget_strangers(key)
    assert store.parts(key, {"Service": SERVICES}) == {} and store.job(key) is None


# -- conditions


def test_times_tell_when_a_condition_became_what_it_is_and_strangers_stay() -> None:
    before: list[Condition] = [
        {"type": "Ready", "status": "True", "lastTransitionTime": "then"},
        {"type": "example.org/Seen", "status": "True"},
    ]
    ready, *rest = conditions.merged(before, [conditions.Condition("Ready", True, "Running")], 3, "now")
    assert (ready["lastTransitionTime"], ready["observedGeneration"]) == ("then", 3)
    assert rest == [before[1]]
    [lost, _] = conditions.merged(before, [conditions.Condition("Ready", None, "Lost")], 3, "now")
    assert (lost["status"], lost["lastTransitionTime"]) == ("Unknown", "now")


# -- specs


def minicluster(**spec: Any) -> Any:
    return {"metadata": {"name": "mc", "namespace": "ns"}, "spec": {"containers": [{"command": "x"}], **spec}}


def test_what_says_nothing_is_no_problem() -> None:
    container = {"command": "x", "imagePullPolicy": "", "name": None}
    spec = read(minicluster(containers=[container], maxSize=0, minSize=0, tasks=0, pod={"dnsPolicy": ""}))
    assert (spec.size, spec.max_size, spec.tasks, spec.pod.dns_policy) == (1, 1, 0, "")


def test_every_problem_is_told_with_its_place() -> None:
    with pytest.raises(Refused) as refused:
        read({**minicluster(size=2, pod={"resources": {"cpu": "1"}}), "metadata": {"name": "Mc", "namespace": "ns"}})
    text = "\n".join(refused.value.problems)
    assert "spec.pod.resources: " in text and "metadata.name: 'Mc' must begin" in text


def test_changes_are_found_by_field_without_a_secret_in_the_record() -> None:
    before = minicluster(flux={"curveCert": "s3cret"}, size=2)
    recorded = record(before)
    assert "s3cret" not in recorded
    assert changes(recorded, before) == []
    after = minicluster(flux={"curveCert": "other"}, size=3, cleanup=True, tasks=2)
    assert changes(recorded, after) == ["flux.curveCert", "tasks"]
    assert changes("of another release", after) == []
    assert changes('{"form": 0, "fields": {"tasks": "x"}}', after) == []
    filled_in = minicluster(flux={"curveCert": "s3cret", "logLevel": 6}, size=2, tasks=1, logging={"quiet": False})
    assert changes(recorded, filled_in) == [], "by the CRD of another release"


# -- the CRD


def plain(schema: Any) -> Any:
    """A schema without what only describes it."""
    if isinstance(schema, dict) and not isinstance(schema.get("properties"), str):
        dropped = ("x-kubernetes-list-type", "x-kubernetes-map-type", "x-kubernetes-list-map-keys")
        return {
            name: plain(inner)
            for name, inner in schema.items()
            if name not in dropped and not (name == "description" and isinstance(inner, str))
        }
    return [plain(inner) for inner in schema] if isinstance(schema, list) else schema


def test_the_schema_of_the_spec_is_upstreams() -> None:
    [version] = crd()["spec"]["versions"]
    assert plain(version["schema"]["openAPIV3Schema"]["properties"]["spec"]) == plain(crd_spec())


def test_the_status_has_what_upstreams_crd_requires_and_scales_alike() -> None:
    import yaml

    theirs = yaml.safe_load((directory() / "crd.yaml").read_text())
    [old], [new] = theirs["spec"]["versions"], crd()["spec"]["versions"]
    assert old["subresources"] == new["subresources"]
    old_status, new_status = (one["schema"]["openAPIV3Schema"]["properties"]["status"] for one in (old, new))
    assert set(old_status["required"]) == set(new_status["required"])
    assert set(new_status["properties"]) - set(old_status["properties"]) == {"observedGeneration"}
    assert theirs["metadata"]["name"] == crd()["metadata"]["name"]


def test_every_example_of_upstreams_that_its_crd_takes_is_read() -> None:
    refused = {}
    for name, example in miniclusters().items():
        example["metadata"].setdefault("namespace", "ns")
        try:
            read(example)
        except Refused as err:
            refused[name] = err.problems
    # Two have a field that the CRD knows no longer (the API server drops it or, asked to, refuses it), one a volume
    # without a source: upstream makes no Job of these either.
    assert set(refused) == {
        "machine-learning__fireworks__minicluster",
        "machine-learning__tensorflow__minicluster",
        "tests__batch__minicluster",
    }, refused


# -- what is done


class Server:
    """An API server that has one Service already, which is somebody else's, or ``owner``'s."""

    def __init__(self, owner: str = "") -> None:
        self.created: list[str] = []
        self.owner = owner

    def create(self, kind: Any, namespace: str, manifest: dict[str, Any], *, manager: str) -> dict[str, Any]:
        assert manager == "flux-operator-executors"
        if manifest["kind"] == "Service":
            raise ConflictError(409, "AlreadyExists", "it is there")
        self.created.append(manifest["kind"])
        return manifest

    def get(self, kind: Any, namespace: str, name: str) -> dict[str, Any]:
        metadata = {"name": name, "namespace": namespace, "uid": "other", "ownerReferences": [{"uid": self.owner}]}
        return {"kind": "Service", "metadata": metadata}


def test_nothing_is_begun_behind_what_is_in_the_way() -> None:
    server, store = Server(), Store()
    actor = Actor(server, lambda *taken: store.take(*taken[:2]), store.take_stranger)  # type: ignore[arg-type]
    resource = minicluster()
    resource["metadata"] |= {"uid": "u-1", "generation": 1}
    assert actor.do(resource, Create({"kind": "Secret", "metadata": {"name": "s", "namespace": "ns"}}))
    assert not actor.do(resource, Create({"kind": "Service", "metadata": {"name": "mc", "namespace": "ns"}}))
    assert [kind for kind, _ in store.strangers(("ns", "mc"))] == [SERVICES]
    assert server.created == ["Secret"]


def test_what_is_ours_and_has_lost_its_labels_is_known_to_be_there() -> None:
    """No watch tells of it; it would be created, and found to be there, without an end."""
    server, store = Server(owner="u-1"), Store()
    actor = Actor(server, lambda *taken: store.take(*taken[:2]), store.take_stranger)  # type: ignore[arg-type]
    resource = minicluster()
    resource["metadata"] |= {"uid": "u-1", "generation": 1}
    assert actor.do(resource, Create({"kind": "Service", "metadata": {"name": "mc", "namespace": "ns"}}))
    assert store.parts(("ns", "mc"), {"Service": SERVICES}).keys() == {("Service", "mc")}


class RefusingServer:
    """Takes statuses, and no change of pods."""

    def __init__(self) -> None:
        self.statuses: list[Any] = []

    def patch(self, kind: Any, namespace: str, name: str, change: Any, subresource: str = "") -> Any:
        if kind is PODS:
            raise InvalidError(422, "Invalid", "an admission policy refuses labels")
        assert subresource == "status"
        self.statuses.append(change["status"])
        return {"metadata": {"name": name, "namespace": namespace, "uid": "u-1", "resourceVersion": "2"}}


def test_the_status_tells_what_is_although_an_action_is_refused() -> None:
    server = RefusingServer()
    controller = Controller(server, Options())  # type: ignore[arg-type]
    resource = minicluster()
    resource["metadata"] |= {"uid": "u-1", "generation": 1, "resourceVersion": "1"}
    status: Any = {"conditions": [], "size": 2}
    with pytest.raises(InvalidError):
        controller._carry_out(("ns", "mc"), resource, Decision((LabelPod("mc-0-x", "p", "0"),), status), "now")
    assert server.statuses == [status]


def test_a_worker_that_has_ended_is_no_health() -> None:
    controller = Controller(RefusingServer(), Options())  # type: ignore[arg-type]
    assert controller.is_alive()
    ended = threading.Thread(target=lambda: None)
    ended.start()
    ended.join()
    controller._workers.append(ended)
    assert not controller.is_alive()
    controller.stop()
    assert controller.is_alive(), "it was to end"
