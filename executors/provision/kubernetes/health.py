"""What has become of a MiniCluster that was up, and of one that did not come up, as far as the API server tells."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass

from executors import flux_version
from executors.errors import ExecutorsError, ProvisionError
from executors.kube import NotFoundError
from executors.kube.api import EVENTS, JOBS, PODS
from executors.kube.objects import Pod
from executors.provision.kubernetes import diagnosis
from executors.provision.kubernetes.mode import Mode
from executors.provision.kubernetes.picture import Picture
from executors.provision.kubernetes.target import Target
from executors.render import BROKER_PORT

log = logging.getLogger(__name__)

#: Brokers that are not there, of which each is explained, and lines of the log of each.
_EXPLAINED = 4
_LAST_WORDS = 3


@dataclass(frozen=True)
class Health:
    """Asks at each call; holds nothing that changes."""

    target: Target
    mode: Mode
    owner_uid: str
    #: The lead's pod as it was when the agent was reached; None: it was not.
    lead: Pod | None = None

    # -- the whole

    def gone(self) -> str | None:
        """Returns why it can never come back; None while it may, or while that is not known. Asked once."""
        try:
            owner = self.target.get(self.mode.owner_kind, once=True)
            if diagnosis.uid_of(owner) != self.owner_uid:
                return f"{self.target} was replaced by another one of the same name"
            if diagnosis.is_leaving(owner):
                return f"{self.target} is being deleted"
            return self._lead_gone()
        except NotFoundError:
            return f"{self.target} was deleted"
        except ExecutorsError as err:  # the API server is away, or lets us see nothing: that says nothing of the agent
            log.debug("cannot tell whether the MiniCluster is there: %s", err)
            return None

    def _lead_gone(self) -> str | None:
        if self.lead is None:
            return None
        name = diagnosis.name_of(self.lead)
        try:
            pod = self.target.api.get(PODS, self.target.namespace, name, once=True)
        except NotFoundError:
            return f"the lead broker's pod {name} is gone"
        ended = diagnosis.broker_end(pod, self.mode.container())
        if ended is not None:
            return "\n".join([f"the lead broker is lost: {ended}", *self._log_lines(name)])
        if diagnosis.is_leaving(pod):
            return f"the lead broker's pod {name} is being deleted"
        if diagnosis.over(pod):
            return f"the lead broker's pod {name} has ended"
        return None

    def lead_is_replaced(self) -> bool:
        """Returns whether the lead's pod goes, or went, and the Job makes another: that one had served nobody yet."""
        if self.lead is None:
            return False
        try:
            owner = self.target.get(self.mode.owner_kind)
            if diagnosis.uid_of(owner) != self.owner_uid or diagnosis.is_leaving(owner):
                return False
            if self.mode.over(owner) is not None:
                return False
            try:
                pod = self.target.api.get(PODS, self.target.namespace, diagnosis.name_of(self.lead))
            except NotFoundError:
                return True
        except ExecutorsError as err:  # the API server is away: the stream's own error is the one to be told
            log.debug("cannot tell whether the lead is being replaced: %s", err)
            return False
        return diagnosis.is_leaving(pod) or diagnosis.over(pod)

    # -- its brokers

    def size(self) -> tuple[int, int]:
        """Returns the number of pods that are wanted, and the greatest possible one. Raises ProvisionError."""
        job = self.target.get(JOBS)
        if self.owner_uid != diagnosis.uid_of(job) and not diagnosis.is_owned_by(job, self.owner_uid):
            raise ProvisionError(f"{self.target} has no Job yet")
        return int(job["spec"]["completions"]), self.mode.spec.max_size

    def unconnected(self, ranks: Collection[int]) -> list[str]:
        """Returns why wanted brokers are not among these, one line each. Raises ProvisionError."""
        picture = Picture(self.mode.container(), self.owner_uid, self.mode.spec.size)
        picture.take_job(self.target.get(JOBS))
        for pod in self.target.pods():
            picture.take_pod(pod)
        for event in self.target.api.list(EVENTS, self.target.namespace)["items"]:
            picture.take_event(event)
        missing = sorted(set(range(picture.wanted)) - set(ranks))
        if not missing:
            return []
        lines = [
            f"{len(missing)} of {picture.wanted} brokers of {self.target.namespace}/{self.target.name} are not "
            "connected to the lead; jobs that need them wait:"
        ]
        for rank in missing[:_EXPLAINED]:
            lines += [f"  rank {rank}: {line}" for line in self._why_unconnected(picture, rank)]
        if len(missing) > _EXPLAINED:
            lines.append(f"  and rank {', '.join(map(str, missing[_EXPLAINED:]))}")
        return lines

    def _why_unconnected(self, picture: Picture, rank: int) -> list[str]:
        pod, keeps = picture.broker_of_rank(rank)
        if pod is None or keeps is not None:
            return [keeps.reason if keeps is not None else "there is no pod"]
        name = diagnosis.name_of(pod)
        said = list(dict.fromkeys(self._log_lines(name)))[-_LAST_WORDS:] or [f"the log of {name} is empty"]
        cure = f"can it resolve the lead's name, and reach its port {BROKER_PORT} (NetworkPolicy)?"
        return [f"pod {name} runs, but its broker does not reach the lead's; {cure}", *said]

    def losses(self) -> dict[str, str]:
        """Returns how brokers beside the lead's have ended, by their pods' uids. Asked once. Raises ProvisionError."""
        lost = {}
        for pod in self.target.pods(once=True):
            ended = diagnosis.broker_end(pod, self.mode.container())
            rank = diagnosis.index_of(pod)
            if ended is not None and rank != 0:
                lost[diagnosis.uid_of(pod)] = f"the broker of rank {rank} was lost: {ended}"
        return lost

    # -- its start

    def start_failure(self, reason: str, picture: Picture) -> ProvisionError:
        """Returns the error of a start that failed, with what events and a broker's log say."""
        lines = [f"the MiniCluster {self.target.namespace}/{self.target.name} cannot start: {reason}"]
        lines += [f"  event: {line}" for line in diagnosis.warning_lines(picture.events)[-5:]]
        for pod in picture.pods:
            if diagnosis.over(pod) or diagnosis.broker_end(pod, self.mode.container()) is not None:
                logged = self._log_lines(diagnosis.name_of(pod))
                lines += logged
                old = self._too_old(logged)
                lines += [f"  {old}"] if old is not None else []
                break
        return ProvisionError("\n".join(lines))

    def _too_old(self, logged: list[str]) -> str | None:
        """What the entry script's last words on a broker that failed say of its version."""
        said = next((line.partition("this is Flux ")[2] for line in logged if "this is Flux " in line), "")
        return flux_version.problem(said, self.mode.spec, self.mode.name)

    def _log_lines(self, pod: str) -> list[str]:
        return self.target.log_lines(pod, self.mode.container())
