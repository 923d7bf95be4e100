"""The conditions of a MiniCluster's status: which there are, and how they are kept over time. Pure.

Ours, after the API's conventions; Reconciling and Stalled are kstatus' (which programs that apply and wait understand);
the last five are upstream's, by which its SDK and people's scripts wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from executors.kube.objects import Condition as WrittenCondition

ACCEPTED, PODS_READY, READY, SUSPENDED, COMPLETED, FAILED = (
    "Accepted", "PodsReady", "Ready", "Suspended", "Completed", "Failed",
)  # fmt: skip
RECONCILING, STALLED = "Reconciling", "Stalled"
REQUESTED, WAITING, RUNNING, MADE, FINISHED = (
    "JobRequested", "JobWaitingForResources", "JobRunning", "JobMiniClusterReady", "JobFinished",
)  # fmt: skip
#: The CRD's own limits (upstream's too), in characters.
_MESSAGE_LIMIT = 32768


@dataclass(frozen=True)
class Condition:
    """``status``: True, False, or None where it is not known."""

    type: str
    status: bool | None
    #: One word (CamelCase), for programs.
    reason: str
    #: For people. Never a secret.
    message: str = ""


def merged(
    before: Sequence[WrittenCondition], now: Sequence[Condition], generation: int, timestamp: str
) -> list[WrittenCondition]:
    """The conditions to write; times of those whose status is what it was stay, and strangers' conditions do."""
    there = {str(one.get("type")): one for one in before}
    made: list[WrittenCondition] = []
    for one in now:
        status = {True: "True", False: "False", None: "Unknown"}[one.status]
        old = there.pop(one.type, None)
        since = timestamp
        if old is not None and old.get("status") == status:
            since = str(old.get("lastTransitionTime") or timestamp)
        message = one.message
        if len(message) > _MESSAGE_LIMIT:
            message = message[: _MESSAGE_LIMIT - 4] + " ..."
        made.append(
            {
                "type": one.type,
                "status": status,
                "reason": one.reason,
                "message": message,
                "lastTransitionTime": since,
                "observedGeneration": generation,
            }
        )
    return [*made, *there.values()]


def holds(conditions: Sequence[WrittenCondition], kind: str) -> bool:
    """Whether a condition is True."""
    return any(condition.get("type") == kind and condition.get("status") == "True" for condition in conditions)


def find(conditions: Sequence[WrittenCondition], kind: str) -> WrittenCondition:
    """A condition, or {} where it is not there."""
    nothing: WrittenCondition = {}
    return next((condition for condition in conditions if condition.get("type") == kind), nothing)
