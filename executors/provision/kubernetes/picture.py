"""All that is known of one MiniCluster that is coming up: its Job, its pods, their events. Pure.

What each object says is `diagnosis`; here is what they say together, in whatever order they came.
"""

from __future__ import annotations

from collections.abc import Sequence

from executors.kube.objects import Event, Job, Pod
from executors.provision.kubernetes import diagnosis
from executors.provision.kubernetes.diagnosis import Cause, Fatal, Finding, Pending


class Picture:
    """``container``: the broker's, in each pod."""

    def __init__(self, container: str, owner_uid: str, wanted: int) -> None:
        self._container = container
        self._owner_uid = owner_uid
        #: Pods that the Job wants. One that was there may have been made smaller since.
        self.wanted = wanted
        self.job: Job | None = None
        self._pods: dict[str, Pod] = {}
        #: All of the namespace: an event may come before the pod that it is about, on another stream.
        self._events: dict[str, Event] = {}

    # -- what comes

    def take_job(self, job: Job) -> None:
        self.job = job
        self.wanted = int(job["spec"]["completions"])

    def take_pod(self, pod: Pod, *, deleted: bool = False) -> None:
        if deleted:
            self._pods.pop(diagnosis.uid_of(pod), None)
        else:
            self._pods[diagnosis.uid_of(pod)] = pod

    def take_event(self, event: Event, *, deleted: bool = False) -> None:
        if not deleted:  # that Kubernetes keeps it no longer makes it no less true
            self._events[event["metadata"]["uid"]] = event

    # -- what is

    @property
    def pods(self) -> list[Pod]:
        """Those of this very Job: pods of an earlier one of its name may still be there."""
        uid = diagnosis.uid_of(self.job) if self.job is not None else self._owner_uid
        return [pod for pod in self._pods.values() if diagnosis.is_owned_by(pod, uid)]

    @property
    def events(self) -> list[Event]:
        """Those about the owner, its Job and their pods, by uid: names are used again, and events outlive them."""
        about = {self._owner_uid, *map(diagnosis.uid_of, self.pods)}
        if self.job is not None:
            about.add(diagnosis.uid_of(self.job))
        return [one for one in self._events.values() if diagnosis.about_uid(one) in about - {""}]

    def up(self, *, by_events: bool) -> list[Pod]:
        """Returns the pods whose brokers run, by their own state or (``by_events``) by the kubelet's event."""
        started = {diagnosis.started_pod(event, self._container) for event in self.events} if by_events else set()
        return [pod for pod in diagnosis.youngest(self.pods) if self._is_up(pod, started)]

    def _is_up(self, pod: Pod, started: set[str | None]) -> bool:
        if diagnosis.is_running(pod, self._container):
            return True
        return (
            diagnosis.uid_of(pod) in started
            and not diagnosis.over(pod)
            and diagnosis.broker_end(pod, self._container) is None
        )

    @property
    def held(self) -> Pending | None:
        return diagnosis.held(self.job, list(self._events.values())) if self.job is not None else None

    def end(self) -> Fatal | None:
        """Returns why it can never come up: its Job is over, or its lead broker has ended. None: it may."""
        if self.job is None:
            return None
        found = diagnosis.judge_job(self.job)
        if isinstance(found, Fatal):
            return found
        ended = diagnosis.lead_end(self.pods, self._container)
        return None if ended is None else Fatal(ended)

    def findings(self, *, lenient: bool = False, needed: int | None = None) -> list[Finding]:
        """Returns what keeps it from being up. ``lenient``: it was up before, and its Job replaces lost followers.

        ``needed``: so many brokers, the lead's among them, are enough (by default all). What keeps others is no more
        than time, as long as so many are left that nothing keeps.
        """
        held = self.held
        if held is not None:  # its pods are going, if there are any
            return [held]
        # A smaller one has the first ranks.
        current = {rank: pod for rank, pod in self._by_rank().items() if rank < self.wanted}
        events = self.events
        found: list[Finding] = []
        kept: set[int] = set()
        for index, pod in current.items():
            if diagnosis.is_running(pod, self._container):
                continue
            said = self._judge_pod(pod, events)
            said = list(map(_pending, said)) if lenient and index != 0 else said
            found += said
            if any(_keeps(one) for one in said) and not any(_cause(one) is Cause.SCALING for one in said):
                kept.add(index)
        if self.job is not None and len(current) < self.wanted:
            refused = diagnosis.judge_job_events(self.job, events)
            found.append(refused)
            if refused is not None:
                kept.update(set(range(self.wanted)) - current.keys())
        if needed is not None and 0 not in kept and self.wanted - len(kept) >= needed:
            found = [Pending(one.reason) if one is not None and _keeps(one) else one for one in found]
        return found if lenient else [*found, *self._judge_services(events)]

    def _by_rank(self) -> dict[int, Pod]:
        ranks = ((diagnosis.index_of(pod), pod) for pod in diagnosis.youngest(self.pods))
        return {rank: pod for rank, pod in ranks if rank is not None}

    def _judge_services(self, events: Sequence[Event]) -> list[Finding]:
        """What a user has to fix in the pod of ``services``, for which no broker waits."""
        said: list[Finding] = []
        for pod in diagnosis.youngest(self.pods):
            if diagnosis.index_of(pod) is None:
                said += self._judge_pod(pod, events)
        return [one for one in said if isinstance(one, Fatal) or _cause(one) is Cause.MOUNT]

    def _judge_pod(self, pod: Pod, events: Sequence[Event]) -> list[Finding]:
        own, told = diagnosis.judge_pod(pod, self._container), diagnosis.judge_pod_events(pod, events)
        # An autoscaler says more of the same.
        more = not isinstance(own, Fatal) and any(_cause(one) is Cause.ROOM for one in told)
        return told if more else [own, *told]

    def broker_of_rank(self, rank: int) -> tuple[Pod | None, Pending | Fatal | None]:
        """Returns the pod of a broker, and what keeps it from running; None for one that runs."""
        found = [pod for pod in diagnosis.youngest(self.pods) if diagnosis.index_of(pod) == rank]
        if not found:
            said = diagnosis.judge_job_events(self.job, self.events) if self.job is not None else None
            return None, said or Pending("no pod has been created yet")
        [pod] = found
        if diagnosis.is_running(pod, self._container):
            return pod, None
        said_of_it = self._judge_pod(pod, self.events)
        fatal = [one for one in said_of_it if isinstance(one, Fatal)]
        return pod, fatal[0] if fatal else reason_of(said_of_it)


def _cause(finding: Finding) -> Cause | None:
    return finding.cause if isinstance(finding, Pending) else None


def _keeps(finding: Finding) -> bool:
    """Whether it is what time alone does not cure."""
    return isinstance(finding, Fatal) or _cause(finding) in diagnosis.STUCK


def _pending(finding: Finding) -> Finding:
    return Pending(finding.reason) if isinstance(finding, Fatal) else finding


def reason_of(findings: Sequence[Finding]) -> Pending:
    """Returns which of several reasons is reported."""
    waits = [finding for finding in findings if isinstance(finding, Pending)]
    return min(waits, key=lambda one: one.cause) if waits else Pending("no pod has been created yet", Cause.TIME)
