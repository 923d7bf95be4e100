"""How a MiniCluster is made: the protocol of the two modes, and the only thing that they do alike.

They differ in the object that everything else hangs on (the *owner*: a Job, or a MiniCluster resource) and in what has
to be created; both have an Indexed Job of the MiniCluster's name. A mode knows nothing of claims, waits and sessions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from executors.errors import ProvisionError
from executors.kube import Kind, NotFoundError
from executors.kube.objects import Job, KubernetesObject
from executors.provision.kubernetes import diagnosis
from executors.provision.kubernetes.diagnosis import Fatal
from executors.provision.kubernetes.target import Target
from executors.spec import MiniClusterSpec

Object = dict[str, Any]


class Mode(Protocol):
    """One way to make a MiniCluster. Belongs to one provisioner."""

    #: As ``run.provisioner`` names it.
    name: str
    owner_kind: Kind[Any]
    #: Foreground: the owner is gone when all that hangs on it is.
    deletion_policy: str
    #: Seconds for the Job to appear; 0: it is the owner.
    job_limit: float
    #: When (monotonic) a Job that no queue has admitted begins without; infinite: never.
    queue_deadline: float
    #: What is asked for; once a MiniCluster was only looked up, its own.
    spec: MiniClusterSpec

    def check(self) -> None:
        """Refuse what cannot be made, before anything is. Raises ConfigError, ProvisionError."""

    def container(self) -> str:
        """Returns the name of the broker's container in each pod."""

    def relay_argv(self, patience: float) -> list[str]:
        """Returns the agent's relay in the lead's container; ``patience``: seconds for an agent that is starting."""

    def resize_patch(self, size: int) -> Object:
        """Returns the change of the owner that asks for another number of pods."""

    def manifests(self, attempt: str) -> list[Object]:
        """Returns the objects to create; the owner is one of them."""

    def prepare(self, attempt: str) -> None:
        """Create what must be there before the owner. Raises NotFoundError, ProvisionError."""

    def refused(self, err: NotFoundError) -> ProvisionError:
        """Returns what it means that the owner's kind or namespace is not found."""

    def complete(self, owner: KubernetesObject, *, created: bool) -> None:
        """Create whatever the owner still lacks, and let it start. Idempotent. ``created``: by this client."""

    def over(self, owner: KubernetesObject) -> str | None:
        """Returns why an owner that is there will do no more work; None: it may. Raises ApiError."""

    def queue_timed_out(self, queue: str | None, report_progress: Callable[[str], None]) -> None:
        """After `queue_deadline`: begin a Job that ``queue`` has not admitted; None: nothing holds it."""

    def dependents_gone(self, uid: str, deadline: float) -> bool:
        """Wait until what hung on an owner that is gone is, too; False: not by the deadline (monotonic)."""

    def withdraw(self) -> None:
        """After a failed start: remove what `prepare` has created and nothing owns. Never raises."""


def job_end(target: Target, job: Job, container: str) -> str | None:
    """Returns why a Job will do no more work: it is over, or the lead broker is, beside whose container another may run
    for ever. None: it may. Raises ApiError."""
    finding = diagnosis.judge_job(job)
    if isinstance(finding, Fatal):
        return finding.reason
    mine = [pod for pod in target.pods() if diagnosis.is_owned_by(pod, diagnosis.uid_of(job))]
    return diagnosis.lead_end(mine, container)
