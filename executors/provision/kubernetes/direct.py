"""Direct mode: an Indexed Job and what it needs, in one namespace; no CRD, no operator, no cluster-wide right."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

from executors.config import RunConfig
from executors.errors import ConfigError, ProvisionError
from executors.kube import ApiError, ConflictError, ForbiddenError, NotFoundError
from executors.kube.api import JOBS, SERVICES, kind_of
from executors.kube.objects import Job, KubernetesObject
from executors.provision.kubernetes import diagnosis
from executors.provision.kubernetes.certificate import make_certificate
from executors.provision.kubernetes.mode import job_end
from executors.provision.kubernetes.recipe import ATTEMPT_ANNOTATION, minicluster_of, program_of
from executors.provision.kubernetes.target import DELETE_LIMIT, Target
from executors.provision.kubernetes.version import check_version
from executors.render import MiniCluster, Program, owned_by, pod_patch_problems, pod_paths, render_direct
from executors.render.entry import relay_command
from executors.spec import MiniClusterSpec
from executors.validation import direct_problems, name_problems

#: Digits of an attempt's annotation in the names of its objects.
_TOKEN = 6
#: Answers where Kueue is installed; every user may ask.
_KUEUE = "/apis/kueue.x-k8s.io"
#: Seconds for whatever else looks after a queue's Jobs, where that is not so.
_QUEUE_PATIENCE = 15.0
#: Seconds between attempts to take the place of a Service that goes. A user who may create it need not see it go.
_LEFTOVER_PAUSE = 0.5

log = logging.getLogger(__name__)

Object = dict[str, Any]


class DirectMode:
    """See `executors.provision.kubernetes.mode.Mode`.

    The Job is the owner. It is created suspended, so that nothing can be left without an owner, and no pod waits for
    what is not there yet; any client that finds it suspended completes it.
    """

    name = "direct"
    owner_kind = JOBS
    deletion_policy = "Foreground"
    job_limit = 0.0

    def __init__(self, target: Target, config: RunConfig, spec: MiniClusterSpec) -> None:
        self._target = target
        self._run = config.run
        self.spec = replace(spec, pod_patch=config.run.pod_patch)
        self.queue_deadline = float("inf")

    def check(self) -> None:
        problems = [*direct_problems(self.spec), *name_problems(self._target.name, self.spec)]
        if not problems:
            # Nothing is asked of the cluster for it, so its namespace is not known yet.
            cluster = minicluster_of(self._target.name, "", self.spec)
            problems = pod_patch_problems(cluster, self._program(cluster))
        if problems:
            raise ConfigError(problems)
        check_version(self._target.api, "the provisioner direct: it needs", "use operator")

    def container(self) -> str:
        return self.spec.flux_container.name or self._target.name

    def relay_argv(self, patience: float) -> list[str]:
        return relay_command(patience)

    def resize_patch(self, size: int) -> Object:
        return {"spec": {"completions": size, "parallelism": size}}

    def manifests(self, attempt: str) -> list[Object]:
        """Those of the Job that this attempt, of this client or another one, has created."""
        cluster = minicluster_of(self._target.name, self._target.namespace, self.spec, attempt)
        named = replace(cluster, token=attempt[:_TOKEN])
        return render_direct(named, self._program(cluster), make_certificate(cluster.name))

    def _program(self, cluster: MiniCluster) -> Program:
        return program_of(self._run, cluster, pod_paths(self.spec, agent=True).agent_directory)

    def prepare(self, attempt: str) -> None:
        """The Job comes first."""

    def refused(self, err: NotFoundError) -> ProvisionError:
        return ProvisionError(f"the namespace {self._target.namespace} does not exist, or you may not use it: {err}")

    def complete(self, owner: KubernetesObject, *, created: bool) -> None:
        queue = diagnosis.queue_of(_job(owner))
        if not diagnosis.is_held(_job(owner)) and not queue:
            return
        for manifest in owned_by(self.manifests(owner["metadata"]["annotations"][ATTEMPT_ANNOTATION]), owner):
            if manifest["kind"] == "Job":
                continue
            try:
                self._target.create(kind_of(manifest), manifest)
            except ConflictError:
                # Another client completes the same MiniCluster, and the first certificate counts; or what users know
                # by its name is left of an earlier one.
                if manifest["kind"] == "Service":
                    self._replace_leftover(manifest, owner)
        if not queue:
            self._unsuspend()
        elif diagnosis.is_held(_job(owner)) and not self._has_kueue():
            self.queue_deadline = time.monotonic() + _QUEUE_PATIENCE

    def _replace_leftover(self, manifest: Object, owner: KubernetesObject) -> None:
        """Wait for the end of a Service whose Job has gone, and create the new one then."""
        name = manifest["metadata"]["name"]
        deadline = time.monotonic() + DELETE_LIMIT
        while self._is_leftover(manifest, owner):
            if time.monotonic() > deadline:
                where = f"{self._target.namespace}/{name}"
                raise ProvisionError(f"the Service {where} of an earlier run is not being removed; delete it")
            time.sleep(_LEFTOVER_PAUSE)
            try:
                self._target.create(SERVICES, manifest)
            except ConflictError:
                continue
            return

    def _is_leftover(self, manifest: Object, owner: KubernetesObject) -> bool:
        name = manifest["metadata"]["name"]
        try:
            there = self._target.api.get(SERVICES, self._target.namespace, name)
            now = self._target.get(JOBS)
        except NotFoundError:
            return True  # it has gone this moment; or the Job has, which the wait for it will notice
        except ForbiddenError as err:  # a right that nothing else needs
            log.debug("cannot tell whose Service %s is: %s", name, err)
            return False
        if now["metadata"]["uid"] != owner["metadata"]["uid"] or diagnosis.is_owned_by(there, now["metadata"]["uid"]):
            return False
        ours = [one for one in there["metadata"].get("ownerReferences") or [] if one.get("name") == self._target.name]
        if not ours and not diagnosis.is_leaving(there):
            log.warning(
                "the Service %s/%s belongs to somebody else, and is used unchanged", self._target.namespace, name
            )
            return False
        return True

    def _unsuspend(self) -> None:
        self._target.patch(JOBS, {"spec": {"suspend": False}})

    def _has_kueue(self) -> bool:
        """Whether there may be a controller that begins a Job of a queue."""
        try:
            self._target.api.request("GET", _KUEUE)
        except NotFoundError:
            return False
        except ApiError as err:  # it lets us see nothing: the Job stays its queue's
            log.debug("cannot tell whether Kueue is there: %s", err)
        return True

    def queue_timed_out(self, queue: str | None, report_progress: Callable[[str], None]) -> None:
        self.queue_deadline = float("inf")
        if queue is None:
            return
        report_progress(
            f"warning: the label {diagnosis.QUEUE_LABEL} names the queue {queue!r}, but Kueue is not in this cluster, "
            f"and nobody has admitted the Job within {_QUEUE_PATIENCE:g} s; it starts without Kueue"
        )
        self._unsuspend()

    def over(self, owner: KubernetesObject) -> str | None:
        return job_end(self._target, _job(owner), self.container())

    def dependents_gone(self, uid: str, deadline: float) -> bool:
        return True  # the Job is deleted in the foreground: it goes last

    def withdraw(self) -> None:
        """All that was created has its owner."""


def _job(owner: KubernetesObject) -> Job:
    """It is one, as `DirectMode.owner_kind` says."""
    return cast(Job, owner)
