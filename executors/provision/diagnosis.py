"""What the state of pods, a Job and their events says about a MiniCluster that is coming up. Pure.

Three answers: nothing wrong (None), `Pending` (it may yet come: say why it takes so long), `Fatal` (it never will).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Object = Mapping[str, Any]


@dataclass(frozen=True)
class Pending:
    """Why a pod is not there yet. ``scaling``: an autoscaler is making room for it."""

    reason: str
    scaling: bool = False


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
_BAD_MOUNTS = {"FailedMount", "FailedAttachVolume"}


def name_of(thing: Object) -> str:
    return str(thing["metadata"]["name"])


def index_of(pod: Object) -> int | None:
    """The index of an Indexed Job's pod, which is the broker's rank."""
    text = pod["metadata"].get("annotations", {}).get("batch.kubernetes.io/job-completion-index")
    return int(text) if text is not None else None


def is_owned_by(thing: Object, uid: str) -> bool:
    return any(one.get("uid") == uid for one in thing["metadata"].get("ownerReferences") or [])


def is_running(pod: Object) -> bool:
    """Whether all containers of a pod run, so that programs can be started in it."""
    status = pod.get("status", {})
    if status.get("phase") != "Running" or pod["metadata"].get("deletionTimestamp"):
        return False
    containers = status.get("containerStatuses") or []
    return bool(containers) and all("running" in (one.get("state") or {}) for one in containers)


def started_pod(event: Object, container: str) -> str | None:
    """The uid of the pod whose ``container`` an event of the kubelet says to have started.

    It comes as it happens; the pod's own state follows when the kubelet looks next, up to a second later.
    """
    about = event.get("involvedObject", {})
    if event.get("reason") != "Started" or about.get("fieldPath") != f"spec.containers{{{container}}}":
        return None
    return str(about["uid"]) if about.get("uid") else None


def has_ended(pod: Object) -> bool:
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def of_pod(pod: Object) -> Finding:
    """A pod's own state."""
    status = pod.get("status", {})
    if status.get("phase") == "Failed":
        return Fatal(f"pod {name_of(pod)} failed: {_end_of(status)}")
    statuses = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
    for one in statuses:
        state = one.get("state") or {}
        waiting = state.get("waiting") or {}
        if waiting.get("reason") in _BAD_WAITS and not _is_too_early(waiting, pod):
            said = f": {waiting['message']}" if waiting.get("message") else ""
            last = (one.get("lastState") or {}).get("terminated")
            before = f" (before: {_terminated(last)})" if last else ""
            where = f"pod {name_of(pod)}, container {one['name']}, image {one.get('image') or '?'}"
            return Fatal(f"{where}: {waiting['reason']}{said}{before}")
    for condition in status.get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return Pending(f"pod {name_of(pod)} cannot be scheduled: {condition.get('message') or condition['reason']}")
    if not is_running(pod):
        waits = [(one.get("state") or {}).get("waiting", {}).get("reason") for one in statuses]
        return Pending(f"pod {name_of(pod)} is {', '.join(filter(None, waits)) or status.get('phase') or 'new'}")
    return None


def _is_too_early(waiting: Object, pod: Object) -> bool:
    """Whether the kubelet only has not seen a ConfigMap or Secret in time; it tries again by itself.

    Ours are there before the pod. One of the user's that is not found is a mistake.
    """
    message = str(waiting.get("message", ""))
    name = re.escape(str(pod["metadata"].get("labels", {}).get("job-name", "")))
    ours = rf'(configmap|secret) "{name}-(entrypoint|curve)(-[0-9a-f]+)?" not found'
    return message.startswith("failed to sync ") or re.fullmatch(ours, message) is not None


def of_event(event: Object) -> Finding:
    """An event of the Job, of the MiniCluster or of one of its pods."""
    reason, about = event.get("reason"), event.get("involvedObject", {})
    text = str(event.get("message") or "").strip()
    where = f"{about.get('kind', 'object').lower()} {about.get('name', '?')}"
    if reason in _SCALING:
        return Pending(f"{where}: {text}", scaling=True)
    if reason in _NOT_SCALING:
        return Fatal(f"{where} cannot be scheduled, and no node that could take it can be added: {text}")
    if about.get("kind") == "Job" and reason == "FailedCreate":
        return Fatal(f"{where}: pods are refused: {text}")
    if reason in _BAD_MOUNTS:
        # Its Secret or ConfigMap may have been made a moment after the pod; the kubelet looks again by itself.
        return Pending(f"{where}: {text}")
    return None


def of_job(job: Object) -> Finding:
    """The Job's own end."""
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


def relevant(event: Object, name: str, pods: Mapping[str, Object]) -> bool:
    """Whether an event of the namespace is about the MiniCluster ``name`` or one of its pods."""
    about = event.get("involvedObject", {})
    return about.get("name") in pods or (about.get("name") == name and about.get("kind") in ("Job", "MiniCluster"))


def lines_of(events: Sequence[Object]) -> list[str]:
    """Warnings for an error message, oldest first, each once."""
    found: dict[str, None] = {}
    for event in events:
        if event.get("type") == "Warning":
            about = event.get("involvedObject", {})
            found[
                f"{about.get('kind', '').lower()} {about.get('name')}: {event.get('reason')}: {event.get('message')}"
            ] = None
    return list(found)


def _end_of(status: Object) -> str:
    if status.get("reason"):  # Evicted, DeadlineExceeded, NodeLost ...
        return ": ".join(filter(None, (status.get("reason"), status.get("message"))))
    ends = []
    for one in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        ended = (one.get("state") or {}).get("terminated")
        if ended and ended.get("exitCode") != 0:
            ends.append(f"container {one['name']} {_terminated(ended)}")
    return "; ".join(ends) or "it gives no reason"


def _terminated(ended: Object) -> str:
    reason = ended.get("reason")
    said = f", {ended['message'].strip()}" if ended.get("message") else ""
    named = f" ({reason})" if reason and reason != "Error" else ""
    return f"ended with exit code {ended.get('exitCode')}{named}{said}"
