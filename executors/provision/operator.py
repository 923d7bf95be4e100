"""Operator mode: a MiniCluster resource, which the cluster's Flux Operator turns into pods."""

from __future__ import annotations

import logging
import math
import time
from typing import Any

from executors.api_rules import api_problems
from executors.errors import ConfigError, ExecutorsError, ProvisionError
from executors.kube import ConflictError, Kind, NotFoundError
from executors.kube.api import CONFIG_MAPS, JOBS, MINICLUSTERS, PODS
from executors.provision import diagnosis
from executors.provision.cluster import ATTEMPT_ANNOTATION, DELETE_LIMIT, ClusterProvisioner
from executors.provision.watching import Change, Follower, Listed, Wanted
from executors.render import owned_by, render_resource
from executors.render.resource import OPERATOR_AGENT

log = logging.getLogger(__name__)

Object = dict[str, Any]

#: Seconds for upstream's script to do so. The relay itself notices a client that leaves; this does not.
_VIEW_LIMIT = 120.0
#: Before the relay, where Flux comes by a view: what an exec starts has the image's environment, not that of upstream's
#: script, and may be there before that script has put the view's programs into their places. Looks five times a second.
_RELAY_OF_A_VIEW = """PATH=$1/view/bin:$PATH tries=$2
export PATH
shift 2
until [ -S "$0" ] || [ "$tries" -le 0 ]; do tries=$((tries - 1)); sleep 0.2; done
exec "$@"
"""
_AGENT_DIRECTORY = "/tmp/flux_operator_agent"
#: To make the agent's ConfigMap where others make and remove it too.
_ATTEMPTS = 10


class OperatorProvisioner(ClusterProvisioner):
    """The MiniCluster resource is the owner. Its pods mount the agent, so that is created first and owned then."""

    owner_kind = MINICLUSTERS
    mode = "operator"
    job_limit = 20.0
    # In the foreground, upstream's operator would make anew what is deleted before its resource.
    deletion_policy = "Background"
    #: Of the agent's ConfigMap, when this object has created it and nothing owns it yet.
    _made = ""

    def ensure(self) -> None:
        if self._config.run.pod_patch:
            cure = "the Flux Operator makes the pods, and its v1alpha2 has no place for it; use the provisioner direct"
            raise ConfigError([f"run.podPatch: cannot be honoured by the provisioner operator: {cure}"])
        problems = api_problems(self._spec)
        if problems:  # the operator would say so in its own log, where few look
            raise ConfigError(problems)
        super().ensure()

    def _agent_directory(self) -> str:
        return _AGENT_DIRECTORY

    def _container(self) -> str:
        return self._name  # whatever the spec calls it

    def _size_change(self, size: int) -> Object:
        return {"spec": {"size": size}}

    def _relay(self, patience: float) -> list[str]:
        socket = f"{_AGENT_DIRECTORY}/agent.sock"
        words = ["flux", "python", OPERATOR_AGENT, "relay", socket, "--wait", str(patience)]
        view = self._spec.flux.container
        if view.disable:
            return words
        tries = str(math.ceil(min(patience, _VIEW_LIMIT) * 5))
        return ["/bin/sh", "-c", _RELAY_OF_A_VIEW, socket, view.mount_path, tries, *words]

    def _manifests(self) -> list[Object]:
        return render_resource(self._minicluster(), self._program())

    def _wait_gone(self, limit: float) -> bool:
        """The resource goes first, then its Job, and with that the pods. Another one of its name is not waited for."""
        deadline = time.monotonic() + limit
        if not super()._wait_gone(limit):
            return False
        wanted = [Wanted(PODS, labels=f"job-name={self._name}"), Wanted(JOBS, fields=f"metadata.name={self._name}")]
        listed: set[Kind] = set()
        jobs: dict[str, Object] = {}
        pods: dict[str, Object] = {}
        others: set[str] = set()
        with Follower(self.api, self._namespace, wanted) as follower:
            for change in follower.changes(lambda: deadline):
                if change is None:
                    return False
                if isinstance(change, Listed):
                    listed.add(change.kind)
                else:
                    uid = change.object["metadata"]["uid"]
                    if change.kind is JOBS and not diagnosis.is_owned_by(change.object, self._uid):
                        others.add(uid)
                    elif change.deleted:
                        (jobs if change.kind is JOBS else pods).pop(uid, None)
                    else:
                        (jobs if change.kind is JOBS else pods)[uid] = change.object
                # Our Job may be gone before its pods, so that these are known by being no other's.
                left = [pod for pod in pods.values() if not any(diagnosis.is_owned_by(pod, uid) for uid in others)]
                if len(listed) == len(wanted) and not jobs and not left:
                    return True
        return False

    def _create_before(self) -> None:
        self._wait_for_leftovers()
        agent = self._agent()
        agent["metadata"]["annotations"] = {ATTEMPT_ANNOTATION: self._attempt}
        name = agent["metadata"]["name"]
        for _ in range(_ATTEMPTS):
            try:
                self._made = self._create(CONFIG_MAPS, agent)["metadata"]["uid"]
                return
            except ConflictError:  # of another client of this run, or of one that died before it made the rest
                pass
            try:
                there = self.api.get(CONFIG_MAPS, self._namespace, name)
                if there["metadata"].get("annotations", {}).get(ATTEMPT_ANNOTATION) == self._attempt:
                    self._made = there["metadata"]["uid"]  # by a request whose answer was lost
                    return
                if self._is_of_use(there, agent):
                    return
                self.api.delete(CONFIG_MAPS, self._namespace, name, uid=there["metadata"]["uid"], policy="Background")
            except (NotFoundError, ConflictError):
                continue  # it went by itself
        raise ProvisionError(f"the ConfigMap {self._namespace}/{name} of an earlier run does not go; delete it")

    def _wait_for_leftovers(self) -> None:
        """Wait for the end of a Job whose MiniCluster has gone: upstream's operator takes it for that of a new one."""
        field = f"metadata.name={self._name}"
        for job in self.api.list(JOBS, self._namespace, fields=field)["items"]:
            if not any(one["kind"] == "MiniCluster" for one in job["metadata"].get("ownerReferences", [])):
                raise ProvisionError(
                    f"a Job {self._namespace}/{self._name} that is no MiniCluster's is in the way; end it "
                    "(flux-minicluster down --provisioner direct, if it is a run's), or name another run"
                )
            break
        else:
            return
        deadline = time.monotonic() + DELETE_LIMIT
        found: dict[Kind, Object | None] = {}
        with Follower(self.api, self._namespace, [Wanted(kind, fields=field) for kind in (JOBS, MINICLUSTERS)]) as both:
            for change in both.changes(lambda: deadline):
                if change is None:
                    raise ProvisionError(
                        f"the Job {self._namespace}/{self._name} of an earlier MiniCluster is not gone after "
                        f"{DELETE_LIMIT:g} s"
                    )
                if isinstance(change, Change):
                    found[change.kind] = None if change.deleted else change.object
                elif not change.count:
                    found[change.kind] = None
                if len(found) < 2:
                    continue
                job, owner = found[JOBS], found[MINICLUSTERS]
                if job is None or (owner is not None and diagnosis.is_owned_by(job, owner["metadata"]["uid"])):
                    return

    def _is_of_use(self, there: Object, agent: Object) -> bool:
        """Whether an agent's ConfigMap that is there will stay: that of a MiniCluster that is gone goes any moment."""
        owners = {owner["uid"] for owner in there["metadata"].get("ownerReferences", [])}
        if there["metadata"].get("deletionTimestamp"):
            return False
        if not owners:
            return bool(there.get("binaryData") == agent["binaryData"])
        try:
            owner = self.api.get(MINICLUSTERS, self._namespace, self._name)
        except NotFoundError:
            return False
        return owner["metadata"]["uid"] in owners

    def abandon(self) -> None:
        super().abandon()
        if self._made:
            try:
                name = self._agent()["metadata"]["name"]
                self.api.delete(CONFIG_MAPS, self._namespace, name, uid=self._made, policy="Background")
            except NotFoundError:
                pass  # its owner, which it has after all, took it along
            except ExecutorsError as err:  # another client's MiniCluster has it by now, or the API server is away
                log.warning("the agent's ConfigMap could not be removed: %s", err)

    def _complete(self, owner: Object) -> None:
        if not self._created:
            self._made = ""
            return
        [agent] = owned_by([self._agent()], owner)
        change = {"metadata": {"ownerReferences": agent["metadata"]["ownerReferences"]}}
        try:
            self.api.patch(CONFIG_MAPS, self._namespace, agent["metadata"]["name"], change)
        except NotFoundError:
            # It was that of the MiniCluster before, which went between the two. The pods wait for it.
            self._create(CONFIG_MAPS, agent)
        self._made = ""

    def _agent(self) -> Object:
        return next(one for one in self._manifests() if one["kind"] == "ConfigMap")

    def _over(self, owner: Object) -> str | None:
        try:
            job = self.api.get(JOBS, self._namespace, self._name)
        except NotFoundError:
            return None  # the operator is about to make it
        if not diagnosis.is_owned_by(job, owner["metadata"]["uid"]):
            return None  # or that of an earlier one goes first
        return self._job_over(job)

    def _refused(self, err: NotFoundError) -> ProvisionError:
        return ProvisionError(
            f"{self.api.server} knows no MiniClusters: the Flux Operator's CRD is not installed there; "
            f"have it installed, or use the provisioner direct, which needs neither ({err})"
        )
