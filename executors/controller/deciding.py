"""What is to be done for one MiniCluster, and what its status is, from what is there. Pure.

no Job, and it has not ended     what belongs to it is made, its Job last
a Job that we made               its size follows the spec's; other changes of a living spec are refused
a Job that upstream's operator   adopted: status and size only
  or somebody else made for it
it has ended                     nothing is ever made again; with `cleanup` it is deleted
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from executors.controller import conditions as known
from executors.controller.conditions import Condition
from executors.controller.names import (
    DRAIN_ANNOTATION,
    INDEX_LABEL,
    ISOLATED_ANNOTATION,
    PARTS_ANNOTATION,
    RECORD_ANNOTATION,
    SINCE_ANNOTATION,
    SIZE_ANNOTATION,
)
from executors.controller.reading import Refused, changes, read, record
from executors.kube.objects import Condition as WrittenCondition
from executors.kube.objects import Event, Job, KubernetesObject, MiniClusterStatus, Pod
from executors.kube.objects import MiniCluster as Resource
from executors.provision.kubernetes import diagnosis
from executors.provision.kubernetes.diagnosis import Fatal, Finding, Pending
from executors.provision.kubernetes.picture import Picture, reason_of
from executors.render import ENTRY_SCRIPT, SELECTOR_LABEL, WISH_ANNOTATION, MiniCluster, Profile, render_operated
from executors.spec import MiniClusterSpec

Object = dict[str, Any]

#: Seconds that jobs have to end before their ranks go, unless the MiniCluster says otherwise; and at most.
_DRAIN_SECONDS, _LONGEST_DRAIN = 60.0, 30 * 86400.0
_LABELS_AT_ONCE = 20
#: Seconds after which an object of somebody else's is looked at again: only ours are watched.
_STRANGER_SECONDS = 10.0
#: Characters of a MiniCluster's uid, and of a digest of what its objects are made of.
_TOKEN = 8
#: What the controller creates without ever reading it: it is there, unless a pod misses it.
UNSEEN = ("Secret", "ConfigMap", "NetworkPolicy")


# -- what is there


@dataclass(frozen=True)
class Refusal:
    """The API server's word on an object that was to be made. ``generation``: of the spec that it was made of."""

    kind: str
    name: str
    message: str
    generation: int
    #: Whether the same may be taken later (a quota, an admission), without a change of the spec.
    passing: bool


@dataclass(frozen=True)
class Observed:
    """What is there of one MiniCluster, as far as it is known."""

    job: Job | None = None
    #: Trimmed (`trimming`).
    pods: Sequence[Pod] = ()
    events: Sequence[Event] = ()
    #: Metadata of what belongs to it by its labels, by kind and name.
    owned: Mapping[tuple[str, str], KubernetesObject] = field(default_factory=dict)
    #: Whether its namespace enforces restricted pod security, or everything is to be restricted.
    restricted: bool = False
    refusal: Refusal | None = None
    #: Whether its namespace is being deleted.
    namespace_ends: bool = False


# -- what is to be done


@dataclass(frozen=True)
class Create:
    """``manifest`` does not exist yet."""

    manifest: Object = field(repr=False)


@dataclass(frozen=True)
class Resize:
    uid: str
    size: int


@dataclass(frozen=True)
class Wish:
    """Tell a lead, by its pod, the size that it is to have."""

    name: str
    uid: str
    size: int
    #: A timestamp.
    since: str


@dataclass(frozen=True)
class LabelPod:
    name: str
    uid: str
    index: str


@dataclass(frozen=True)
class DeleteMiniCluster:
    uid: str


Action = Create | Resize | Wish | LabelPod | DeleteMiniCluster


@dataclass(frozen=True)
class Told:
    """An Event. ``warning``: something is wrong."""

    reason: str
    message: str
    warning: bool = False


@dataclass(frozen=True)
class Decision:
    actions: tuple[Action, ...] = ()
    #: The whole status; None: it stays as it is.
    status: MiniClusterStatus | None = None
    events: tuple[Told, ...] = ()
    #: Seconds after which it is to be decided again, if nothing has changed before; None: then nothing changes.
    again_after: float | None = None


@dataclass(frozen=True)
class _State:
    """Where a MiniCluster stands. ``reason`` and ``message`` are what its Ready condition says."""

    reason: str
    message: str = ""
    accepted: bool = True
    problems: str = ""
    pods_ready: bool = False
    pods_message: str = ""
    ready: bool = False
    suspended: bool = False
    completed: bool = False
    failed: bool = False
    #: Something is being done, or waited for.
    reconciling: bool = False
    #: It cannot proceed until somebody fixes something.
    stalled: bool = False
    there: bool = False


def decide(resource: Resource, observed: Observed, certificate: Callable[[str], str], now: str) -> Decision:
    """``certificate`` makes one for brokers of that name; ``now`` is a timestamp as the API has them."""
    metadata = resource["metadata"]
    if metadata.get("deletionTimestamp"):
        return Decision()  # what it owns goes after it
    if observed.namespace_ends:
        # Kubernetes deletes a namespace's pods before its Jobs, and a Job keeps a failed pod until it has replaced it,
        # which such a namespace does not allow: neither would ever go.
        return Decision((DeleteMiniCluster(str(metadata["uid"])),))
    before = (resource.get("status") or {}).get("conditions") or []
    if known.holds(before, known.COMPLETED) or known.holds(before, known.FAILED):
        return _ended(resource, observed)
    uid = str(metadata["uid"])
    job = observed.job
    if job is not None and not diagnosis.is_owned_by(job, uid):
        waits = _decision(resource, observed, _waits_for("Job", job), (), now)
        return replace(waits, again_after=_STRANGER_SECONDS)
    problems: list[str] = []
    spec: MiniClusterSpec | None = None
    try:
        spec = read(resource)
    except Refused as err:
        problems = err.problems
    if job is None:
        if spec is None:
            text = "; ".join(problems)
            state = _State("InvalidSpec", text, accepted=False, problems=text, stalled=True)
            return _decision(resource, observed, state, (), now)
        return _begin(resource, spec, observed, certificate, now)
    if diagnosis.is_leaving(job) and diagnosis.end_of_job(job) is None:
        state = _State("JobDeleted", "its Job was deleted, and is created again when it is gone", reconciling=True)
        return _decision(resource, observed, state, (), now)
    decision = _living(resource, job, observed, problems, now)
    if spec is None or not known.holds((decision.status or resource["status"])["conditions"], known.ACCEPTED):
        return decision
    return replace(decision, actions=(*_missing_parts(resource, spec, job, observed, certificate), *decision.actions))


# -- before there is a Job


def _begin(
    resource: Resource, spec: MiniClusterSpec, observed: Observed, certificate: Callable[[str], str], now: str
) -> Decision:
    metadata = resource["metadata"]
    refusal = observed.refusal
    if refusal is not None and not refusal.passing and refusal.generation == int(metadata.get("generation", 0)):
        text = f"{refusal.kind} {refusal.name} is refused: {refusal.message}"
        return _decision(resource, observed, _State("Refused", text, stalled=True), (), now)
    left = [pod for pod in observed.pods if diagnosis.index_of(pod) is not None]
    if left:  # of a Job that has gone: the new one's brokers would find these by their names
        text = (
            f"pods of an earlier Job still exist, for example {diagnosis.name_of(left[0])}; waiting until they are gone"
        )
        return _decision(resource, observed, _State("WaitingForLeftovers", text, reconciling=True), (), now)
    manifests = desired(resource, spec, observed.restricted, certificate)
    actions = []
    for manifest in manifests:
        there = observed.owned.get((manifest["kind"], manifest["metadata"]["name"]))
        if there is None:
            actions.append(Create(manifest))
        elif not diagnosis.is_owned_by(there, str(metadata["uid"])):
            waits = _decision(resource, observed, _waits_for(manifest["kind"], there), (), now)
            return replace(waits, again_after=_STRANGER_SECONDS)
    state = _State("Creating", "its objects are being created", reconciling=True)
    if refusal is not None:
        text = f"{refusal.kind} {refusal.name} is refused: {refusal.message}"
        state = _State("Refused", text, reconciling=True, stalled=True)
    return _decision(resource, observed, state, tuple(actions), now)


def desired(
    resource: Resource,
    spec: MiniClusterSpec,
    restricted: bool,
    certificate: Callable[[str], str],
    token: str | None = None,
) -> list[Object]:
    """All objects of a MiniCluster, its Job last, with what is recorded of the spec that they were made of. ``token``:
    of those that are there already."""
    metadata = resource["metadata"]
    name = str(metadata["name"])
    profile = Profile(of_resource=True, restricted=restricted)
    token = token or _token(resource, spec)
    cluster = MiniCluster(name, str(metadata["namespace"]), spec, token=token, profile=profile)
    isolated = (metadata.get("annotations") or {}).get(ISOLATED_ANNOTATION) == "true"
    made = render_operated(cluster, certificate(name), str(metadata["uid"]), isolated=isolated)
    job = made[-1]
    job["metadata"]["annotations"] = {
        **job["metadata"].get("annotations", {}),
        RECORD_ANNOTATION: record(resource),
        SIZE_ANNOTATION: str(spec.size),
        PARTS_ANNOTATION: " ".join(f"{one['kind']}/{one['metadata']['name']}" for one in made[:-1]),
    }
    return made


def _token(resource: Resource, spec: MiniClusterSpec) -> str:
    """The end of the names of what is created without ever being read: no other MiniCluster's can have it, nor the same
    one's of another spec or another release, so that what has such a name is what is wanted. The right to create
    Secrets is enough."""
    content = f"{record(resource)} {spec.size} {spec.max_size} {ENTRY_SCRIPT}"
    return str(resource["metadata"]["uid"])[:_TOKEN] + hashlib.sha256(content.encode()).hexdigest()[:_TOKEN]


def _missing_parts(
    resource: Resource, spec: MiniClusterSpec, job: Job, observed: Observed, certificate: Callable[[str], str]
) -> list[Action]:
    """What somebody has deleted of a MiniCluster that lives, made as it was: its spec is what was recorded."""
    if diagnosis.end_of_job(job) is not None:
        return []
    recorded = _parts_of(job)
    there = {f"{kind}/{name}" for kind, name in observed.owned}
    missing = {one for one in recorded if one not in there and not one.startswith(UNSEEN)}
    missing |= {one for one in recorded if one.startswith(UNSEEN) and _is_missed(one, observed)}
    if _lost_key(resource, job, observed):
        missing = {one for one in missing if not one.startswith("Secret/")}
    if not missing:
        return []
    # As many brokers as the others know, whatever the size is by now; and the names that the pods know.
    spec = replace(spec, max_size=max(spec.max_size, _maximum(resource, job)))
    secret = f"Secret/{resource['metadata']['name']}-curve-"
    token = next((one.removeprefix(secret) for one in recorded if one.startswith(secret)), None)
    made = desired(resource, spec, observed.restricted, certificate, token)
    return [Create(one) for one in made if f"{one['kind']}/{one['metadata']['name']}" in missing]


def _parts_of(job: Job) -> list[str]:
    """``KIND/NAME`` of what was made beside a Job."""
    return (job["metadata"].get("annotations") or {}).get(PARTS_ANNOTATION, "").split()


def _lost_key(resource: Resource, job: Job, observed: Observed) -> str | None:
    """The name of the Secret that a pod misses while brokers run that have its key: another one would be of no use."""
    name = str(resource["metadata"]["name"])
    if ((resource.get("spec") or {}).get("flux") or {}).get("curveCert"):
        return None  # everybody knows it
    if not any(diagnosis.is_running(pod, name) for pod in observed.pods):
        return None
    secrets = (one for one in _parts_of(job) if one.startswith("Secret/") and _is_missed(one, observed))
    return next((one.removeprefix("Secret/") for one in secrets), None)


def _waits_for(kind: str, there: KubernetesObject) -> _State:
    """An object has a name that we need, and is not this MiniCluster's."""
    name = diagnosis.name_of(there)
    owners = there["metadata"].get("ownerReferences") or []
    if diagnosis.is_leaving(there) or any(owner.get("kind") == "MiniCluster" for owner in owners):
        text = f"the {kind} {name} of an earlier or another MiniCluster still exists; waiting until it is gone"
        return _State("WaitingForLeftovers", text, reconciling=True)
    text = f"a {kind} {name} that belongs to no MiniCluster has this name; delete it, or rename this MiniCluster"
    return _State("NameTaken", text, stalled=True)


def _is_missed(part: str, observed: Observed) -> bool:
    """Whether the kubelet's word on a pod that waits is that an object is not found: on its volumes by an event, on its
    variables by the container's state."""
    kind, _, name = part.partition("/")
    words = f'{kind.lower()} "{name}" not found'
    pending = [pod for pod in observed.pods if pod.get("status", {}).get("phase") == "Pending"]
    waiting = {diagnosis.uid_of(pod) for pod in pending}
    said = [str(event.get("message")) for event in observed.events if diagnosis.about_uid(event) in waiting]
    for pod in pending:
        for one in pod.get("status", {}).get("containerStatuses") or []:
            said.append(str(((one.get("state") or {}).get("waiting") or {}).get("message")))
    return any(words in one for one in said)


# -- while there is one


def _living(resource: Resource, job: Job, observed: Observed, problems: list[str], now: str) -> Decision:
    name = str(resource["metadata"]["name"])
    picture = Picture(name, diagnosis.uid_of(job), int(job["spec"].get("completions") or 0))
    picture.take_job(job)
    for pod in observed.pods:
        picture.take_pod(pod)
    for event in observed.events:
        picture.take_event(event)
    annotations = job["metadata"].get("annotations") or {}
    adopted = RECORD_ANNOTATION not in annotations
    accepted, refused = True, ""
    if problems:
        accepted, refused = False, "; ".join(problems)
    elif not adopted:
        changed = changes(annotations[RECORD_ANNOTATION], resource)
        if changed:
            listed = ", ".join(f"spec.{one}" for one in changed)
            refused = (
                f"{listed}: cannot be changed while the MiniCluster exists; change it back, or delete the MiniCluster "
                "and apply it again"
            )
            accepted = False
    size = int((resource.get("spec") or {}).get("size", 1))
    resize, size_problem = _resize(resource, job, size)
    if size_problem:
        accepted, refused = False, "; ".join(filter(None, [refused, size_problem]))
    state = _state_of(picture, job, name, adopted)
    state = replace(state, accepted=accepted, problems=refused)
    key = None if state.completed or state.failed else _lost_key(resource, job, observed)
    if key is not None:
        text = (
            f"the Secret {key} with the brokers' key was deleted, so that brokers which begin cannot join; create it "
        )
        text += "again from a copy, or delete the MiniCluster and apply it again"
        state = replace(state, stalled=True, pods_message=f"{state.pods_message}; {text}")
        if not state.ready:
            state = replace(state, reason="KeyDeleted", message=text)
    actions: list[Action] = []
    again_after = None
    if resize is not None and not (state.completed or state.failed):
        actions, again_after = _resizing(resource, job, picture, resize, state.ready and not adopted, now)
        if not any(isinstance(action, Resize) for action in actions):
            limit = _drain_seconds(resource)
            text = f"ranks from {size} on are removed when their jobs have ended, and after {limit:g} s at the latest"
            state = replace(state, reason="Shrinking", message=text, reconciling=True)
    elif not adopted and state.ready:
        actions += _revoked(picture, _asked_size(job), now)
    actions += _labels(picture)
    if state.completed or state.failed:
        actions += _cleanup(resource)
    return replace(_decision(resource, observed, state, tuple(actions), now), again_after=again_after)


def _resize(resource: Resource, job: Job, size: int) -> tuple[Resize | None, str]:
    asked = _asked_size(job)
    if size == asked:
        return None, ""
    largest = _maximum(resource, job)
    if not 1 <= size <= largest:
        text = f"spec.size: {size} is not from 1 to {largest}, the maxSize of its start; it stays {asked}"
        return None, text
    return Resize(diagnosis.uid_of(job), size), ""


def _resizing(
    resource: Resource, job: Job, picture: Picture, resize: Resize, asks_lead: bool, now: str
) -> tuple[list[Action], float | None]:
    """What is done for another size: at once, or, before ranks go, after their jobs have ended. Seconds left for that.

    ``asks_lead``: there is one that hears.
    """
    pods = diagnosis.youngest(picture.pods)
    lead = next((pod for pod in pods if diagnosis.index_of(pod) == 0), None)
    if lead is None or not asks_lead:
        return [resize], None
    told = lead["metadata"].get("annotations") or {}
    wish = Wish(diagnosis.name_of(lead), diagnosis.uid_of(lead), resize.size, now)
    if resize.size > _asked_size(job):
        # Ranks that were drained are to be of use again.
        return [*([wish] if WISH_ANNOTATION in told else []), resize], None
    limit = _drain_seconds(resource)
    if told.get(WISH_ANNOTATION) != str(resize.size):
        return [wish], limit
    left = limit - _seconds_between(str(told.get(SINCE_ANNOTATION, now)), now)
    container = str(resource["metadata"]["name"])
    going = [pod for pod in pods if (diagnosis.index_of(pod) or 0) >= resize.size]
    if left <= 0 or not any(diagnosis.is_running(pod, container) for pod in going):
        return [resize], None
    return [], left


def _revoked(picture: Picture, size: int, now: str) -> list[Action]:
    """A lead that was told another size than the one that it has, and keeps."""
    for pod in diagnosis.youngest(picture.pods):
        told = (pod["metadata"].get("annotations") or {}).get(WISH_ANNOTATION)
        if diagnosis.index_of(pod) == 0 and told not in (None, str(size)):
            return [Wish(diagnosis.name_of(pod), diagnosis.uid_of(pod), size, now)]
    return []


def _drain_seconds(resource: Resource) -> float:
    given = str((resource["metadata"].get("annotations") or {}).get(DRAIN_ANNOTATION, ""))
    return min(float(given), _LONGEST_DRAIN) if re.fullmatch("[0-9]{1,300}", given) else _DRAIN_SECONDS


def _seconds_between(before: str, now: str) -> float:
    """0 where ``before`` is no timestamp: anybody who may edit a pod can have written it."""
    try:
        return (datetime.fromisoformat(now) - datetime.fromisoformat(before)).total_seconds()
    except (ValueError, TypeError):
        return 0.0


def _asked_size(job: Job) -> int:
    """The size that was asked of a Job last."""
    recorded = (job["metadata"].get("annotations") or {}).get(SIZE_ANNOTATION, "")
    return int(recorded) if recorded.isdecimal() else int(job["spec"].get("completions") or 1)


def _labels(picture: Picture) -> list[Action]:
    """Of pods without the label by which upstream's users find one."""
    found: list[Action] = []
    for pod in picture.pods:
        index = diagnosis.index_of(pod)
        has = INDEX_LABEL in (pod["metadata"].get("labels") or {})
        if index is not None and not has and not diagnosis.is_leaving(pod) and not diagnosis.over(pod):
            found.append(LabelPod(diagnosis.name_of(pod), diagnosis.uid_of(pod), str(index)))
    # Of a thousand pods the rest has its turn after the status.
    return found[:_LABELS_AT_ONCE]


def _state_of(picture: Picture, job: Job, container: str, adopted: bool) -> _State:
    end = diagnosis.end_of_job(job)
    if end is None and _lead_succeeded(picture.pods, container):
        end = True, ""  # the Job's controller says so in a moment
    lead = diagnosis.lead_end(picture.pods, container)
    if end is not None:
        completed, said = end
        if completed:
            return _State("Completed", "the lead's command ended with exit code 0", completed=True, there=True)
        return _State("Failed", lead or said, failed=True, stalled=True, there=True)
    held = picture.held
    if held is not None:
        return _State("Suspended", held.reason, suspended=True, there=True)
    up = picture.up(by_events=False)
    lost = [pod for pod in up if diagnosis.has_lost_node(pod)]
    up = [pod for pod in up if pod not in lost]
    wanted = int(job["spec"].get("parallelism") or 0)
    ready = any(diagnosis.index_of(pod) == 0 and _is_ready(pod, container, adopted) for pod in up)
    # Once its instance runs, followers that end are made again, and those that are late may come later.
    waits = [one for one in picture.findings(lenient=ready) if one is not None]
    fatal = next((wait for wait in waits if isinstance(wait, Fatal)), None)
    stuck = fatal is not None or any(isinstance(wait, Pending) and wait.cause in diagnosis.STUCK for wait in waits)
    said = fatal.reason if fatal is not None else _reason(waits)
    if lost:
        stuck = True
        said = f"the node {lost[0]['spec'].get('nodeName')} of {diagnosis.name_of(lost[0])} does not answer"
    pods_ready = len(up) >= wanted
    pods_message = f"{len(up)} of {wanted} pods run" + (f": {said}" if not pods_ready and said else "")
    common: dict[str, Any] = {"pods_ready": pods_ready, "pods_message": pods_message, "there": True}
    if lead is not None:
        # The Job's controller, or its kubelet, will decide in a moment.
        return _State("Ending", lead, reconciling=True, **common)
    if ready:
        text = "the lead broker's instance runs"
        return _State("Running", text, ready=True, reconciling=not pods_ready, **common)
    reason = "PodsFail" if fatal is not None else ("PodsWait" if stuck else "Starting")
    text = pods_message if not pods_ready else "the pods run, and the lead broker waits for its quorum of brokers"
    return _State(reason, text, reconciling=True, stalled=stuck, **common)


def _lead_succeeded(pods: Sequence[Pod], container: str) -> bool:
    """Whether a lead's command has ended well, by its pod's own word."""
    for pod in pods:
        if diagnosis.index_of(pod) == 0 and not diagnosis.is_leaving(pod):
            for one in pod.get("status", {}).get("containerStatuses") or []:
                ended = (one.get("state") or {}).get("terminated")
                if one["name"] == container and ended is not None and ended.get("exitCode") == 0:
                    return True
    return False


def _reason(findings: Sequence[Finding]) -> str:
    return reason_of(findings).reason if findings else ""


def _is_ready(pod: Pod, container: str, adopted: bool) -> bool:
    for one in pod.get("status", {}).get("containerStatuses") or []:
        if one["name"] == container:
            return bool(one.get("ready")) or (adopted and diagnosis.is_running(pod, container))
    return False


# -- after it


def _ended(resource: Resource, observed: Observed) -> Decision:
    """It never runs again, whatever is deleted or changed; only its generation has been seen."""
    status = resource.get("status") or {}
    generation = int(resource["metadata"].get("generation", 0))
    before = status.get("conditions") or []
    actions = tuple(_cleanup(resource))
    if actions or all(one.get("observedGeneration", generation) == generation for one in before):
        return Decision(actions)
    seen: list[WrittenCondition] = [{**one, "observedGeneration": generation} for one in before]
    written: MiniClusterStatus = {**status, "conditions": seen, "observedGeneration": generation}
    return Decision(status=written)


def _cleanup(resource: Resource) -> list[Action]:
    if not (resource.get("spec") or {}).get("cleanup"):
        return []
    return [DeleteMiniCluster(str(resource["metadata"]["uid"]))]


# -- the status


def _maximum(resource: Resource, job: Job | None) -> int:
    """The most pods that its brokers know: set at its start, and kept while its Job is there."""
    recorded = int((resource.get("status") or {}).get("maximumSize") or 0)
    if job is not None and recorded:
        # What stands there may be of an earlier Job still, and of a smaller spec.
        return max(recorded, _asked_size(job))
    spec = resource.get("spec") or {}
    return max(int(spec.get("size") or 0), int(spec.get("maxSize") or 0))


def _decision(resource: Resource, observed: Observed, state: _State, actions: tuple[Action, ...], now: str) -> Decision:
    metadata, old = resource["metadata"], resource.get("status") or {}
    generation = int(metadata.get("generation", 0))
    before = old.get("conditions") or []
    job = observed.job if state.there else None
    made = known.merged(before, _conditions(state, before), generation, now)
    size = int(job["spec"].get("parallelism") or 0) if job is not None else int(old.get("size") or 0)
    status: MiniClusterStatus = {
        "conditions": made,
        # All four are required by upstream's CRD.
        "jobid": diagnosis.uid_of(job) if job is not None else str(old.get("jobid") or ""),
        "maximumSize": (
            _maximum(resource, observed.job) if state.accepted or state.there else int(old.get("maximumSize") or 0)
        ),
        "selector": f"{SELECTOR_LABEL}={metadata['name']}",
        "size": size,
        "observedGeneration": generation,
    }
    if not _differs(old, status):
        return Decision(actions)
    return Decision(actions, status, tuple(_events(before, made)))


def _differs(old: MiniClusterStatus, status: MiniClusterStatus) -> bool:
    """``observedGeneration`` is in the conditions too, and upstream's CRD drops the other one."""
    names = ("conditions", "jobid", "maximumSize", "selector", "size")
    return any(old.get(name) != status.get(name) for name in names)


def _conditions(state: _State, before: Sequence[WrittenCondition]) -> list[Condition]:
    ended = state.completed or state.failed
    made = state.there and (state.pods_ready or state.completed or known.holds(before, known.MADE))
    reason, message = state.reason, state.message
    refused = "ChangeRefused" if state.there else "InvalidSpec"
    pods_reason = "AllRun" if state.pods_ready else (reason if reason != "Running" else "PodsWait")
    words = (reason, message)
    return [
        Condition(known.ACCEPTED, state.accepted, "Accepted" if state.accepted else refused, state.problems),
        Condition(known.PODS_READY, state.pods_ready, pods_reason, state.pods_message or message),
        Condition(known.READY, state.ready, *words),
        Condition(known.SUSPENDED, state.suspended, reason if state.suspended else "NotSuspended",
                  message if state.suspended else ""),
        Condition(known.COMPLETED, state.completed, reason if state.completed else "NotCompleted",
                  message if state.completed else ""),
        Condition(known.FAILED, state.failed, reason if state.failed else "NotFailed",
                  message if state.failed else ""),
        Condition(known.RECONCILING, state.reconciling, reason, message if state.reconciling else ""),
        Condition(known.STALLED, state.stalled, reason, message if state.stalled else ""),
        Condition(known.REQUESTED, True, known.REQUESTED, ""),
        Condition(known.WAITING, not (ended or state.pods_ready), known.WAITING, ""),
        Condition(known.RUNNING, state.ready, known.RUNNING, ""),
        Condition(known.MADE, made, known.MADE, ""),
        Condition(known.FINISHED, ended, known.FINISHED, ""),
    ]  # fmt: skip


def _events(before: Sequence[WrittenCondition], now: Sequence[WrittenCondition]) -> list[Told]:
    """What has become otherwise, one Event each. What only goes on is in the conditions."""
    found = []
    changed = {str(one["type"]) for one in now if known.find(before, str(one["type"])).get("status") != one["status"]}
    for kind in (known.SUSPENDED, known.COMPLETED, known.FAILED, known.PODS_READY, known.READY):
        one = known.find(now, kind)
        if kind in changed and one.get("status") == "True":
            found.append(Told(kind, str(one["message"]), warning=kind == known.FAILED))
    for kind in (known.ACCEPTED, known.STALLED):
        one, old = known.find(now, kind), known.find(before, kind)
        bad = "False" if kind == known.ACCEPTED else "True"
        told = one.get("status") == bad and (old.get("status") != bad or old.get("reason") != one.get("reason"))
        if told and not (kind == known.STALLED and one.get("reason") in ("InvalidSpec", "Failed")):
            found.append(Told(str(one["reason"]), str(one["message"]), warning=True))
    return found
