"""What the state of pods, a Job and their events says about a MiniCluster that is coming up. Pure.

Three answers: nothing wrong (None), `Pending` (it may yet come: say why it takes so long), `Fatal` (it never will).

A pod is judged by its broker's container and by what keeps that from starting. Whatever else runs in it (a service
mesh's proxy, a certificate fetcher) may end, fail, or never end.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum

from executors.kube.objects import (
    ContainerStatus,
    Event,
    Job,
    KubernetesObject,
    Pod,
    PodStatus,
    Terminated,
    Waiting,
)
from executors.render.names import UNSERVED


class Cause(IntEnum):
    """What is waited for. Of several, the smallest is reported."""

    #: The Job is suspended: a queue has not admitted it, or somebody holds it.
    HELD = 1
    #: A quota, or an admission.
    REFUSED = 2
    #: A volume that is not there.
    MOUNT = 3
    #: A container that has to come first fails again and again.
    BLOCKED = 4
    #: No node can take the pod.
    ROOM = 5
    #: An autoscaler is making room.
    SCALING = 6
    #: Nothing but time.
    TIME = 7


#: What a moment may cure, and longer than `run.scheduleTimeout` nobody wants to wait for.
STUCK = frozenset({Cause.REFUSED, Cause.MOUNT, Cause.BLOCKED, Cause.ROOM})


@dataclass(frozen=True)
class Pending:
    """Why a pod is not there yet."""

    reason: str
    cause: Cause = Cause.TIME


@dataclass(frozen=True)
class Fatal:
    """Why it never will be."""

    reason: str


Finding = Pending | Fatal | None

#: Reasons of a waiting container (kubelet) that time alone does not cure.
_BAD_WAITS = {
    "ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError",
    "RegistryUnavailable", "SignatureValidationFailed", "CreateContainerConfigError", "CreateContainerError",
    "RunContainerError", "PreStartHookError", "PostStartHookError", "CrashLoopBackOff",
}  # fmt: skip
#: What autoscalers say about a pod: they make room for it, or they can't.
_SCALING = {"TriggeredScaleUp", "Nominated", "ScaleUpTriggered"}
_NOT_SCALING = {"NotTriggerScaleUp"}
#: Events of a pod that keep it from ever starting, if they persist.
_BAD_MOUNTS = {"FailedMount", "FailedAttachVolume", "FailedMapVolume"}
#: The same before its volumes are looked at; as a rule it goes by itself.
_SANDBOX = {"FailedCreatePodSandBox"}
#: What the kubelet says of a pod whose volumes are mounted: images come after them.
_BEYOND_MOUNTS = {"Pulling", "Pulled", "Created", "Started", "BackOff"}
#: An Indexed Job's pod has its index there, as an annotation and as a label.
INDEX = "batch.kubernetes.io/job-completion-index"
#: Kueue's label of a Job, and its word on a Job's Workload, whose own events say what it waits for.
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
_WORKLOAD = re.compile(r"Created Workload: (?:[^/\s]+/)?(\S+)")


def name_of(thing: KubernetesObject) -> str:
    return str(thing["metadata"]["name"])


def uid_of(thing: KubernetesObject) -> str:
    return str(thing["metadata"].get("uid", ""))


def index_of(pod: Pod) -> int | None:
    """Returns the index of an Indexed Job's pod, which is the broker's rank."""
    text = pod["metadata"].get("annotations", {}).get(INDEX)
    return int(text) if text is not None else None


def is_owned_by(thing: KubernetesObject, uid: str) -> bool:
    return any(one.get("uid") == uid for one in thing["metadata"].get("ownerReferences") or [])


def is_leaving(thing: KubernetesObject) -> bool:
    return bool(thing["metadata"].get("deletionTimestamp"))


def is_running(pod: Pod, container: str) -> bool:
    """Returns whether a pod's broker runs, so that programs can be started beside it."""
    broker = _broker(pod, container)
    return broker is not None and "running" in (broker.get("state") or {}) and not is_leaving(pod) and not over(pod)


def has_lost_node(pod: Pod) -> bool:
    """Returns whether Kubernetes has not heard of a pod's node for a while (40 s).

    It says so in the pod's own condition, and leaves what was said of its containers as it was.
    """
    return _condition(pod, "Ready") == "False" and _condition(pod, "ContainersReady") == "True"


def end_of_job(job: Job) -> tuple[bool, str] | None:
    """Returns whether a Job has completed, or why it has failed; None: neither."""
    for condition in (job.get("status") or {}).get("conditions") or []:
        if condition.get("status") == "True":
            if condition.get("type") in ("Complete", "SuccessCriteriaMet"):
                return True, ""
            if condition.get("type") in ("Failed", "FailureTarget"):
                said = ": ".join(filter(None, (condition.get("reason"), condition.get("message"))))
                return False, f"job {name_of(job)} failed" + (f" ({said})" if said else "")
    return None


def started_pod(event: Event, container: str) -> str | None:
    """Returns the uid of the pod whose ``container`` an event of the kubelet says to have started.

    It comes as it happens; the pod's own state follows when the kubelet looks next, up to a second later.
    """
    about = event.get("involvedObject", {})
    if event.get("reason") != "Started" or about.get("fieldPath") != f"spec.containers{{{container}}}":
        return None
    return str(about["uid"]) if about.get("uid") else None


def over(pod: Pod) -> bool:
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def broker_end(pod: Pod, container: str) -> str | None:
    """Returns how the broker in a pod has ended for good; None: it has not, or the Job replaces it unused."""
    broker = _broker(pod, container)
    ended = (broker.get("state") or {}).get("terminated") if broker is not None else None
    if not ended:
        status = pod.get("status", {})
        return f"pod {name_of(pod)} failed: {_end_of(status)}" if status.get("phase") == "Failed" else None
    if ended.get("exitCode") == UNSERVED or _comes_back(pod, ended):
        return None
    limit = _memory_limit(pod, container) if ended.get("reason") == "OOMKilled" else ""
    said = f"{_terminated(ended)}{limit}"
    reason = pod.get("status", {}).get("reason")
    return f"pod {name_of(pod)}, container {container} {said}" + (f"; {_end_of(pod['status'])}" if reason else "")


def lead_end(pods: Sequence[Pod], container: str) -> str | None:
    """Returns how the lead broker has ended for good: of the youngest pod with index 0."""
    leads = [pod for pod in pods if index_of(pod) == 0]
    return broker_end(max(leads, key=_age_key), container) if leads else None


def youngest(pods: Sequence[Pod]) -> list[Pod]:
    """Returns the youngest pod of each index that is not being deleted: an older one that failed was replaced."""
    newest: dict[int | None, Pod] = {}
    for pod in sorted(pods, key=_age_key):
        if not is_leaving(pod):
            newest[index_of(pod)] = pod
    return list(newest.values())


def _age_key(pod: Pod) -> str:
    return str(pod["metadata"].get("creationTimestamp", ""))


def judge_pod(pod: Pod, container: str) -> Finding:
    """A pod's own state."""
    status = pod.get("status", {})
    ended = broker_end(pod, container)
    if ended is not None:
        return Fatal(ended)
    if over(pod):
        return Pending(f"pod {name_of(pod)} was told to end before any client connected, and is replaced")
    broker = _broker(pod, container)
    first = status.get("initContainerStatuses") or []
    for one in [*first, *([broker] if broker is not None else [])]:
        waiting = (one.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") in _BAD_WAITS and not _is_too_early(waiting, pod):
            said = f": {waiting['message']}" if waiting.get("message") else ""
            last = (one.get("lastState") or {}).get("terminated")
            before = f" (before: {_terminated(last)})" if last else ""
            where = f"pod {name_of(pod)}, container {one['name']}, image {one.get('image') or '?'}"
            text = f"{where}: {waiting['reason']}{said}{before}"
            if waiting["reason"] == "CrashLoopBackOff" and one is not broker:
                # A sidecar that is to run before all others; some fail until what they ask is there.
                return None if is_running(pod, container) else Pending(text, Cause.BLOCKED)
            return Fatal(text)
    for condition in status.get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            text = f"pod {name_of(pod)} cannot be scheduled: {condition.get('message') or condition['reason']}"
            return Pending(text, Cause.ROOM)
    if not is_running(pod, container):
        waits = [(one.get("state") or {}).get("waiting", {}).get("reason") for one in _statuses(status)]
        return Pending(f"pod {name_of(pod)} is {', '.join(filter(None, waits)) or status.get('phase') or 'new'}")
    return None


def _statuses(status: PodStatus) -> list[ContainerStatus]:
    return [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]


def _broker(pod: Pod, container: str) -> ContainerStatus | None:
    return next((one for one in pod.get("status", {}).get("containerStatuses") or [] if one["name"] == container), None)


def _comes_back(pod: Pod, ended: Terminated) -> bool:
    """Whether the kubelet starts a container again; not in direct mode, but upstream's pods say OnFailure."""
    policy = pod.get("spec", {}).get("restartPolicy", "Never")
    return not over(pod) and (policy == "Always" or (policy == "OnFailure" and ended.get("exitCode") != 0))


def _memory_limit(pod: Pod, container: str) -> str:
    for one in pod.get("spec", {}).get("containers", []):
        limit = one.get("resources", {}).get("limits", {}).get("memory")
        if one["name"] == container and limit:
            return f"; its memory limit is {limit}"
    return ""


def _is_too_early(waiting: Waiting, pod: Pod) -> bool:
    """Whether the kubelet only has not seen a ConfigMap or Secret in time; it tries again by itself.

    Ours are there before the pod, or a moment later. One of the user's that is not found is a mistake.
    """
    message = str(waiting.get("message", ""))
    name = re.escape(str(pod["metadata"].get("labels", {}).get("job-name", "")))
    ours = rf'(configmap|secret) "{name}-(entrypoint|curve)(-[0-9a-f]+)?" not found'
    return message.startswith("failed to sync ") or re.fullmatch(ours, message) is not None


# -- events


def about_uid(event: Event) -> str:
    """Returns the uid of what an event is about: another Job or pod has its name later, while old events are kept."""
    return str(event.get("involvedObject", {}).get("uid") or "")


def when(event: Event) -> float:
    """Returns when an event happened last, in seconds since the epoch; 0 where it does not say."""
    told = [(event.get("series") or {}).get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime")]
    given = next(filter(None, [*told, event.get("metadata", {}).get("creationTimestamp")]), None)
    return datetime.fromisoformat(given).timestamp() if given else 0.0


def judge_pod_events(pod: Pod, events: Sequence[Event]) -> list[Finding]:
    """Returns what events say of a pod that is not up, as far as it still holds: each stage ends with the next."""
    told = sorted((event for event in events if about_uid(event) == uid_of(pod)), key=when)
    reasons = {one.get("reason") for one in told}
    found: list[Finding] = []
    if not _has_node(pod):
        room = [one for one in told if one.get("reason") in _SCALING | _NOT_SCALING]
        return [_judge_autoscaler(room[-1])] if room else []
    if not (reasons & _BEYOND_MOUNTS or _condition(pod, "PodReadyToStartContainers") == "True"):
        for reason_set, cause in ((_BAD_MOUNTS, Cause.MOUNT), (_SANDBOX, Cause.TIME)):
            last = [one for one in told if one.get("reason") in reason_set][-1:]
            # Its Secret or ConfigMap may have been made a moment after the pod; the kubelet looks again by itself.
            found += [Pending(_text(one), cause) for one in last]
    return found


def _judge_autoscaler(event: Event) -> Finding:
    if event.get("reason") in _SCALING:
        return Pending(_text(event), Cause.SCALING)
    where, _, text = _text(event).partition(": ")
    # It looks again, and what the pod's own state says of nodes may change: others end, and nodes come by other ways.
    return Pending(f"{where} cannot be scheduled, and no node that could take it can be added: {text}", Cause.ROOM)


def judge_job_events(job: Job, events: Sequence[Event]) -> Finding:
    """Returns what events say of a Job that has fewer pods than it wants: its controller tries again by itself."""
    refused = [event for event in events if about_uid(event) == uid_of(job) and event.get("reason") == "FailedCreate"]
    if not refused:
        return None
    where, _, text = _text(max(refused, key=when)).partition(": ")
    return Pending(f"{where}: pods are refused: {text}", Cause.REFUSED)


def _text(event: Event) -> str:
    about = event.get("involvedObject", {})
    return f"{about.get('kind', 'object').lower()} {about.get('name', '?')}: {str(event.get('message') or '').strip()}"


def _has_node(pod: Pod) -> bool:
    return bool(pod.get("spec", {}).get("nodeName")) or _condition(pod, "PodScheduled") == "True"


def _condition(pod: Pod, kind: str) -> str:
    for condition in pod.get("status", {}).get("conditions") or []:
        if condition.get("type") == kind:
            return str(condition.get("status"))
    return ""


# -- the Job


def judge_job(job: Job) -> Finding:
    """Returns how the Job itself has ended; None: it has not."""
    for condition in (job.get("status") or {}).get("conditions") or []:
        if condition.get("status") != "True":
            continue
        what = {
            "Failed": "failed",
            "FailureTarget": "failed",
            "Complete": "is complete",
            "SuccessCriteriaMet": "is complete",
        }.get(condition.get("type", ""))
        if what is not None:
            said = ": ".join(filter(None, (condition.get("reason"), condition.get("message"))))
            return Fatal(f"job {name_of(job)} {what}" + (f" ({said})" if said else ""))
    return None


def is_held(job: Job) -> bool:
    return bool(job.get("spec", {}).get("suspend"))


def queue_of(job: Job) -> str:
    """Returns the Kueue queue that a Job is for, "" for none. An administrator may have set it: the spec cannot say."""
    return str((job["metadata"].get("labels") or {}).get(QUEUE_LABEL, ""))


def held(job: Job, events: Sequence[Event]) -> Pending | None:
    """Returns who keeps a Job suspended, and why, as far as that is known; None: it is not suspended."""
    if not is_held(job):
        return None
    queue = queue_of(job)
    if queue:
        text = f"Kueue has not admitted it (queue {queue}){_kueues_word(job, events)}"
    else:
        text = f"{_holder(job) or 'somebody'} keeps it suspended"
    return Pending(f"job {name_of(job)} is suspended: {text}", Cause.HELD)


def _kueues_word(job: Job, events: Sequence[Event]) -> str:
    """What its events say; a queue that is not there, or is stopped, is reported by the Workload's status alone."""
    mine = sorted((event for event in events if about_uid(event) == uid_of(job)), key=when)
    made = [found for one in mine if (found := _WORKLOAD.match(str(one.get("message") or "")))]
    told = [one for one in mine if one.get("reason") == "Stopped"]
    if made:
        told += [
            event
            for event in events
            if event.get("involvedObject", {}).get("kind") == "Workload"
            and event["involvedObject"].get("name") == made[-1].group(1)
        ]
    said = str(max(told, key=when).get("message") or "").strip() if told else ""
    if said or not made:
        return f": {said}" if said else ""
    return f"; `kubectl describe workload {made[-1].group(1)}` tells why"


def _holder(job: Job) -> str:
    """The program that has written ``suspend`` last."""
    wrote = [
        one
        for one in job["metadata"].get("managedFields") or []
        if "f:suspend" in (one.get("fieldsV1") or {}).get("f:spec", {})
    ]
    return str(max(wrote, key=lambda one: str(one.get("time", ""))).get("manager", "")) if wrote else ""


# -- words


def warning_lines(events: Sequence[Event]) -> list[str]:
    """Warnings for an error message, oldest first, each once."""
    found: dict[str, None] = {}
    for event in events:
        if event.get("type") == "Warning":
            about = event.get("involvedObject", {})
            found[
                f"{about.get('kind', '').lower()} {about.get('name')}: {event.get('reason')}: {event.get('message')}"
            ] = None
    return list(found)


def _end_of(status: PodStatus) -> str:
    if status.get("reason"):  # Evicted, DeadlineExceeded, NodeLost ...
        return ": ".join(filter(None, (status.get("reason"), status.get("message"))))
    ends = []
    for one in _statuses(status):
        ended = (one.get("state") or {}).get("terminated")
        if ended and ended.get("exitCode") != 0:
            ends.append(f"container {one['name']} {_terminated(ended)}")
    return "; ".join(ends) or "it gives no reason"


def _terminated(ended: Terminated) -> str:
    reason = ended.get("reason")
    said = f", {ended['message'].strip()}" if ended.get("message") else ""
    named = f" ({reason})" if reason and reason not in ("Error", "Completed") else ""
    return f"ended with exit code {ended.get('exitCode')}{named}{said}"
