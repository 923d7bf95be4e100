"""The conditions of a MiniCluster's status: which there are, and how they are kept over time. Pure.

Ours, after the API's conventions; Reconciling and Stalled are kstatus' (which whoever applies and waits understands);
the last five are upstream's, by which its SDK and people's scripts wait.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Object = Mapping[str, Any]

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


def merged(before: Sequence[Object], now: Sequence[Condition], generation: int, timestamp: str) -> list[dict[str, Any]]:
    """The conditions to write; times of those whose status is what it was stay, and strangers' conditions do."""
    there = {str(one.get("type")): one for one in before}
    made = []
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
    return [*made, *(dict(one) for one in there.values())]


def holds(conditions: Sequence[Object], kind: str) -> bool:
    """Whether a condition is True."""
    return any(one.get("type") == kind and one.get("status") == "True" for one in conditions)


def of(conditions: Sequence[Object], kind: str) -> Object:
    """A condition, or {} where it is not there."""
    return next((one for one in conditions if one.get("type") == kind), {})
