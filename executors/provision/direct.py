"""Direct mode: an Indexed Job and what it needs, in one namespace; no CRD, no operator, no cluster-wide right."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from executors.config import RunConfig
from executors.errors import ConfigError, ProvisionError
from executors.kube import Api, ApiError, ConflictError, ForbiddenError, NotFoundError
from executors.kube.api import JOBS, SERVICES, kind_of
from executors.provision import diagnosis
from executors.provision.certificate import make_certificate
from executors.provision.cluster import ATTEMPT_ANNOTATION, DELETE_LIMIT, ClusterProvisioner
from executors.provision.picture import Picture
from executors.render import owned_by, places_of, pod_patch_problems, render_direct
from executors.render.entry import relay_command
from executors.validation import direct_problems, name_problems

#: ``successPolicy`` and ``backoffLimitPerIndex`` are on by default since then.
OLDEST = (1, 31)
#: Digits of an attempt's mark in the names of its objects.
_TOKEN = 6
#: Answers where Kueue is installed; every user may ask.
_KUEUE = "/apis/kueue.x-k8s.io"
#: Seconds for whatever else looks after a queue's Jobs, where that is not so.
_QUEUE_PATIENCE = 15.0
#: Seconds between attempts to take the place of a Service that goes. Who may create it need not see it go.
_LEFTOVER_PAUSE = 0.5

log = logging.getLogger(__name__)

Object = dict[str, Any]


def check_version(api: Api, who_needs: str, cure: str) -> None:
    """Raises ProvisionError where Jobs do not know what ours are made of, ApiError."""
    found = api.request("GET", "/version")
    try:
        version = version_of(found)
    except (KeyError, ValueError):
        raise ProvisionError(f"{api.server} does not answer like a Kubernetes API server: {found!r}") from None
    if version < OLDEST:
        raise ProvisionError(
            f"Kubernetes {version[0]}.{version[1]} at {api.server} is too old for {who_needs} "
            f"successPolicy and backoffLimitPerIndex, of {OLDEST[0]}.{OLDEST[1]} or newer; {cure}"
        )


def version_of(answer: Mapping[str, Any]) -> tuple[int, int]:
    """Major and minor of what ``/version`` answers; some vendors write ``31+``. Raises KeyError or ValueError."""
    return int(answer["major"]), int(str(answer["minor"]).rstrip("+"))


class DirectProvisioner(ClusterProvisioner):
    """The Job is the owner. It is created suspended, so that nothing can be left without an owner, and no pod waits
    for what is not there yet; whoever finds it suspended completes it."""

    owner_kind = JOBS
    mode = "direct"

    def __init__(self, run_name: str, config: RunConfig, reason: str) -> None:
        super().__init__(run_name, config, reason)
        self._spec = replace(self._spec, pod_patch=config.run.pod_patch)

    def ensure(self) -> None:
        problems = [*direct_problems(self._spec), *name_problems(self._name, self._spec)]
        if not problems:
            problems = pod_patch_problems(self._minicluster(), self._program())
        if problems:
            raise ConfigError(problems)
        self._check_version()
        super().ensure()

    def _agent_directory(self) -> str:
        return places_of(self._spec, agent=True).agent_directory

    def _size_change(self, size: int) -> Object:
        return {"spec": {"completions": size, "parallelism": size}}

    def _relay(self, patience: float) -> list[str]:
        return relay_command(patience)

    def _manifests(self) -> list[Object]:
        return self._manifests_of(self._attempt)

    def _manifests_of(self, attempt: str) -> list[Object]:
        """Those of the Job that this attempt, ours or another client's, has created."""
        cluster = replace(self._minicluster(), token=attempt[:_TOKEN])
        return render_direct(cluster, self._program(), make_certificate(self._name))

    def _complete(self, owner: Object) -> None:
        queue = diagnosis.queue_of(owner)
        if not diagnosis.is_held(owner) and not queue:
            return
        for manifest in owned_by(self._manifests_of(owner["metadata"]["annotations"][ATTEMPT_ANNOTATION]), owner):
            if manifest["kind"] == "Job":
                continue
            try:
                self._create(kind_of(manifest), manifest)
            except ConflictError:
                # Another client completes the same MiniCluster, and the first certificate counts; or what users know
                # by its name is left of an earlier one.
                if manifest["kind"] == "Service":
                    self._replace_leftover(manifest, owner)
        if not queue:
            self._unsuspend()
        elif diagnosis.is_held(owner) and not self._has_kueue():
            self._release_at = time.monotonic() + _QUEUE_PATIENCE

    def _replace_leftover(self, manifest: Object, owner: Object) -> None:
        """Wait for the end of a Service whose Job has gone, and create ours then."""
        name = manifest["metadata"]["name"]
        deadline = time.monotonic() + DELETE_LIMIT
        while self._is_leftover(manifest, owner):
            if time.monotonic() > deadline:
                raise ProvisionError(f"the Service {self._namespace}/{name} of an earlier run does not go; delete it")
            time.sleep(_LEFTOVER_PAUSE)
            try:
                self._create(SERVICES, manifest)
            except ConflictError:
                continue
            return

    def _is_leftover(self, manifest: Object, owner: Object) -> bool:
        name = manifest["metadata"]["name"]
        try:
            there = self.api.get(SERVICES, self._namespace, name)
            now = self.api.get(JOBS, self._namespace, self._name)
        except NotFoundError:
            return True  # it has gone this moment; or the Job has, which whoever waits for it will hear
        except ForbiddenError as err:  # a right that nothing else needs
            log.debug("cannot tell whose Service %s is: %s", name, err)
            return False
        if now["metadata"]["uid"] != owner["metadata"]["uid"] or diagnosis.is_owned_by(there, now["metadata"]["uid"]):
            return False
        ours = [one for one in there["metadata"].get("ownerReferences") or [] if one.get("name") == self._name]
        if not ours and not diagnosis.is_leaving(there):
            log.warning("the Service %s/%s is somebody else's, and is used as it is", self._namespace, name)
            return False
        return True

    def _unsuspend(self) -> None:
        self.api.patch(JOBS, self._namespace, self._name, {"spec": {"suspend": False}})

    def _has_kueue(self) -> bool:
        """Whether there can be anybody who would begin a Job of a queue."""
        try:
            self.api.request("GET", _KUEUE)
        except NotFoundError:
            return False
        except ApiError as err:  # it lets us see nothing: the Job stays its queue's
            log.debug("cannot tell whether Kueue is there: %s", err)
        return True

    def _release_unqueued(self, picture: Picture, announce: Callable[[str], None]) -> None:
        if time.monotonic() < self._release_at:
            return
        self._release_at = float("inf")
        if picture.job is None or picture.held is None:
            return
        queue = diagnosis.queue_of(picture.job)
        announce(
            f"warning: the label {diagnosis.QUEUE_LABEL} names the queue {queue!r}, but Kueue is not in this cluster, "
            f"and nobody has admitted the Job within {_QUEUE_PATIENCE:g} s; it begins without"
        )
        self._unsuspend()

    def _over(self, owner: Object) -> str | None:
        return self._job_over(owner)

    def _check_version(self) -> None:
        check_version(self.api, "the provisioner direct: it needs", "use operator")
