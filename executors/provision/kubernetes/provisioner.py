"""The provisioner of MiniClusters on Kubernetes: get it or create it, wait for it, lose it, delete it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection

from executors.config import RunConfig
from executors.errors import ConfigError, ProvisionError
from executors.kube.api import EVENTS, JOBS
from executors.kube.objects import Pod
from executors.provision.kubernetes import diagnosis
from executors.provision.kubernetes.health import Health
from executors.provision.kubernetes.mode import Mode
from executors.provision.kubernetes.owner import Claim, OwnerStore
from executors.provision.kubernetes.published import published_spec
from executors.provision.kubernetes.startup import Expected, QueueTimeout, Ready, Startup
from executors.provision.kubernetes.target import Target
from executors.provision.kubernetes.timeouts import StartTimeouts
from executors.provision.kubernetes.watching import Wanted
from executors.spec import MiniClusterSpec, default_document, parse_spec
from executors.transport import Endpoint, PodExecEndpoint

log = logging.getLogger(__name__)


_A_WEEK = 7 * 86400.0


class ClusterProvisioner:
    """See `executors.provision.base.Provisioner`. Glues: a mode makes it, the store owns it, `Startup` waits for it."""

    def __init__(
        self,
        mode: Callable[[Target, RunConfig, MiniClusterSpec], Mode],
        run_name: str,
        config: RunConfig,
        reason: str,
    ) -> None:
        self._run = config.run
        self._reason = reason
        self._target = Target(config.run, run_name)
        self._mode = mode(self._target, config, config.minicluster or parse_spec(default_document()))
        self._owner = OwnerStore(self._target, self._mode)
        #: The lead's pod, once it was ready.
        self._lead: Pod | None = None
        #: The lead's container has started, its pod's state does not say so yet.
        self._tentative = False
        #: Since when (`time.monotonic`) it is waited for, however often.
        self._began = time.monotonic()
        #: Seconds for an agent that is starting.
        self._patience = config.run.start_timeout or 3600.0

    def describe(self) -> str:
        size = self._mode.spec.size
        what = f"a MiniCluster of {size} pod{'s' if size > 1 else ''}"
        if self.adopted():
            what = "the run's own MiniCluster, running already"
        where = f"{self._target.namespace}/{self._target.name} at {self._target.api.server}"
        return f"provisioner: {self._mode.name} ({self._reason}): {what}, {where}"

    def inherits_environment(self) -> bool:
        return False

    # -- get it

    def ensure(self) -> None:
        self._mode.check()
        self._began = time.monotonic()
        if self._lead is not None:
            # It was ready and took this client no more: it ends, or has ended.
            self._owner.wait_ended()
            self._lead = None
        owner = self._owner.get_or_create()
        self._mode.complete(owner, created=self._owner.ownership.claim is Claim.CREATED)

    def find(self, patience: float) -> None:
        self._began = time.monotonic()
        owner = self._owner.find()
        self._patience = patience
        self._mode.spec = published_spec(owner["metadata"].get("annotations", {})) or self._mode.spec

    def adopted(self) -> bool:
        return self._owner.ownership.is_shared

    # -- wait for it

    def wait_ready(self, report_progress: Callable[[str], None] = log.info) -> Endpoint:
        expected = self._expected()
        limit = self._patience if expected.found else self._run.start_timeout
        timeouts = StartTimeouts(limit, self._run.schedule_timeout, self._mode.job_limit, report_progress, self._began)
        startup = Startup(expected, timeouts, self._mode.queue_deadline)
        wanted = [self._target.watched_pods(), Wanted(EVENTS), self._target.watched(JOBS)]
        with self._target.watch(wanted) as watcher:
            for change in watcher.changes(startup.next_look):
                startup.take(change)
                try:
                    step = startup.look()
                    if isinstance(step, QueueTimeout):
                        self._mode.queue_timed_out(step.queue, report_progress)
                        step = startup.look()
                except ProvisionError as err:
                    raise self._health().start_failure(str(err), startup.picture) from None
                if isinstance(step, Ready):
                    return self._endpoint(step)
        raise AssertionError("the changes never end by themselves")

    def _expected(self) -> Expected:
        spec, ownership = self._mode.spec, self._owner.ownership
        return Expected(
            where=str(self._target),
            container=self._mode.container(),
            owner_uid=ownership.uid,
            job_is_owner=self._mode.owner_kind is JOBS,
            size=spec.size,
            enough=spec.min_size or spec.size,
            adopted=ownership.is_shared,
            found=ownership.claim is Claim.FOUND,
            # Once: where it was too early, the pods' states say why.
            by_events=ownership.claim is Claim.CREATED and not self._tentative,
        )

    def _endpoint(self, ready: Ready) -> Endpoint:
        self._lead, self._tentative = ready.lead, ready.tentative
        return PodExecEndpoint(
            access=self._target.access,
            namespace=self._target.namespace,
            pod=diagnosis.name_of(ready.lead),
            container=self._mode.container(),
            argv=tuple(self._mode.relay_argv(self._patience)),
        )

    def endpoint_is_tentative(self) -> bool:
        return self._tentative or self._health().lead_is_replaced()

    def patience(self) -> float:
        # So long it waits for us; an API server that is being upgraded, or a laptop's network, may take minutes.
        return self._run.orphan_timeout or self._run.max_lifetime or _A_WEEK

    # -- what becomes of it

    def _health(self) -> Health:
        return Health(self._target, self._mode, self._owner.ownership.uid, self._lead)

    def gone(self) -> str | None:
        return self._health().gone()

    def in_use(self) -> str | None:
        return None  # nothing of it is seen from here

    def lacks(self, ranks: Collection[int]) -> bool:
        return not set(range(self.size()[0])) <= set(ranks)

    def unconnected(self, ranks: Collection[int]) -> list[str]:
        return self._health().unconnected(ranks)

    def losses(self) -> dict[str, str]:
        return self._health().losses()

    def size(self) -> tuple[int, int]:
        return self._health().size()

    def resize(self, size: int) -> None:
        most = self._mode.spec.max_size
        if not 1 <= size <= most:
            raise ConfigError([f"size: {size} is not from 1 to {most}, the minicluster.maxSize of its start"])
        self._target.patch(self._mode.owner_kind, self._mode.resize_patch(size))

    # -- leave it, end it

    def detach(self) -> None:
        self._target.close()

    def abandon(self) -> None:
        self._owner.abandon()
        self._mode.withdraw()
        self.detach()

    def delete(self) -> None:
        self._owner.delete()
        self.detach()
