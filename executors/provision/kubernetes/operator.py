"""Operator mode: a MiniCluster resource, which the cluster's Flux Operator turns into pods."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import Any

from executors.api_rules import api_problems
from executors.config import RunConfig
from executors.errors import ConfigError, ExecutorsError, ProvisionError
from executors.kube import ConflictError, Kind, NotFoundError
from executors.kube.api import CONFIG_MAPS, JOBS, MINICLUSTERS, PODS
from executors.kube.objects import ConfigMap, KubernetesObject
from executors.provision.kubernetes import diagnosis
from executors.provision.kubernetes.mode import job_end
from executors.provision.kubernetes.recipe import ATTEMPT_ANNOTATION, minicluster_of, program_of
from executors.provision.kubernetes.target import DELETE_LIMIT, Target
from executors.provision.kubernetes.watching import Change, Listed
from executors.render import owned_by, render_resource
from executors.render.resource import OPERATOR_AGENT
from executors.spec import MiniClusterSpec

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


class OperatorMode:
    """See `executors.provision.kubernetes.mode.Mode`.

    The MiniCluster resource is the owner. Its pods mount the agent, so that is created first and owned then.
    """

    name = "operator"
    owner_kind = MINICLUSTERS
    #: An operator's replica takes 20 s to take over from one that was lost, and one whose pod is gone must start first.
    job_limit = 60.0
    # In the foreground, upstream's operator would create again what is deleted before its resource.
    deletion_policy = "Background"
    #: It is the operator's to begin a Job.
    queue_deadline = float("inf")

    def __init__(self, target: Target, config: RunConfig, spec: MiniClusterSpec) -> None:
        self._target = target
        self._run = config.run
        self.spec = spec
        #: Of the agent's ConfigMap, when this object has created it and nothing owns it yet; "": not so.
        self._unowned_config_map = ""

    def check(self) -> None:
        if self._run.pod_patch:
            cure = "the Flux Operator makes the pods, and its v1alpha2 has no field for it; use the provisioner direct"
            raise ConfigError([f"run.podPatch: is not supported by the provisioner operator: {cure}"])
        problems = api_problems(self.spec)
        if problems:  # the operator would say so in its own log, where few look
            raise ConfigError(problems)

    def container(self) -> str:
        return self._target.name  # whatever the spec calls it

    def relay_argv(self, patience: float) -> list[str]:
        socket = f"{_AGENT_DIRECTORY}/agent.sock"
        words = ["flux", "python", OPERATOR_AGENT, "relay", socket, "--wait", str(patience)]
        view = self.spec.flux.container
        if view.disable:
            return words
        tries = str(math.ceil(min(patience, _VIEW_LIMIT) * 5))
        return ["/bin/sh", "-c", _RELAY_OF_A_VIEW, socket, view.mount_path, tries, *words]

    def resize_patch(self, size: int) -> Object:
        return {"spec": {"size": size}}

    def manifests(self, attempt: str) -> list[Object]:
        cluster = minicluster_of(self._target.name, self._target.namespace, self.spec, attempt)
        return render_resource(cluster, program_of(self._run, cluster, _AGENT_DIRECTORY))

    def _agent(self, attempt: str = "") -> Object:
        return next(one for one in self.manifests(attempt) if one["kind"] == "ConfigMap")

    def _delete_agent(self, name: str, uid: str) -> None:
        self._target.api.delete(CONFIG_MAPS, self._target.namespace, name, uid=uid, policy="Background")

    # -- before the owner

    def prepare(self, attempt: str) -> None:
        self._wait_for_leftovers()
        agent = self._agent(attempt)
        agent["metadata"]["annotations"] = {ATTEMPT_ANNOTATION: attempt}
        name = agent["metadata"]["name"]
        for _ in range(_ATTEMPTS):
            try:
                self._unowned_config_map = self._target.create(CONFIG_MAPS, agent)["metadata"]["uid"]
                return
            except ConflictError:  # of another client of this run, or of one that died before it made the rest
                pass
            try:
                there = self._target.api.get(CONFIG_MAPS, self._target.namespace, name)
                if there["metadata"].get("annotations", {}).get(ATTEMPT_ANNOTATION) == attempt:
                    self._unowned_config_map = there["metadata"]["uid"]  # by a request whose answer was lost
                    return
                if self._is_of_use(there, agent):
                    return
                self._delete_agent(name, there["metadata"]["uid"])
            except (NotFoundError, ConflictError):
                continue  # it went by itself
        raise ProvisionError(
            f"the ConfigMap {self._target.namespace}/{name} of an earlier run is not being removed; delete it"
        )

    def _wait_for_leftovers(self) -> None:
        """Wait for the end of a Job whose MiniCluster has gone: upstream's operator takes it for that of a new one."""
        where = f"{self._target.namespace}/{self._target.name}"
        there = self._target.api.list(JOBS, self._target.namespace, fields=f"metadata.name={self._target.name}")
        for earlier in there["items"]:
            if not any(one["kind"] == "MiniCluster" for one in earlier["metadata"].get("ownerReferences", [])):
                raise ProvisionError(
                    f"a Job {where} that belongs to no MiniCluster has this name; end it "
                    "(flux-minicluster down --provisioner direct, if it belongs to a run), or use another run name"
                )
            break
        else:
            return
        found: dict[Kind[Any], Any] = {}
        wanted = [self._target.watched(kind) for kind in (JOBS, MINICLUSTERS)]
        for kind, thing in self._target.follow(wanted, time.monotonic() + DELETE_LIMIT):
            found[kind] = thing
            if len(found) == len(wanted):
                job, owner = found[JOBS], found[MINICLUSTERS]
                if job is None or (owner is not None and diagnosis.is_owned_by(job, diagnosis.uid_of(owner))):
                    return
        raise ProvisionError(f"the Job {where} of an earlier MiniCluster is not gone after {DELETE_LIMIT:g} s")

    def _is_of_use(self, there: ConfigMap, agent: Object) -> bool:
        """Whether an agent's ConfigMap that is there will stay: that of a MiniCluster that is gone goes any moment."""
        owners = {owner["uid"] for owner in there["metadata"].get("ownerReferences", [])}
        if there["metadata"].get("deletionTimestamp"):
            return False
        if not owners:
            return bool(there.get("binaryData") == agent["binaryData"])
        try:
            owner = self._target.get(MINICLUSTERS)
        except NotFoundError:
            return False
        return owner["metadata"]["uid"] in owners

    def refused(self, err: NotFoundError) -> ProvisionError:
        return ProvisionError(
            f"{self._target.api.server} knows no MiniClusters: the Flux Operator's CRD is not installed there; "
            f"ask to have it installed, or use the provisioner direct, which does not need it ({err})"
        )

    # -- with the owner

    def complete(self, owner: KubernetesObject, *, created: bool) -> None:
        if not created:
            self._unowned_config_map = ""
            return
        [agent] = owned_by([self._agent()], owner)
        change = {"metadata": {"ownerReferences": agent["metadata"]["ownerReferences"]}}
        try:
            self._target.api.patch(CONFIG_MAPS, self._target.namespace, agent["metadata"]["name"], change)
        except NotFoundError:
            # It was that of the MiniCluster before, which went between the two. The pods wait for it.
            self._target.create(CONFIG_MAPS, agent)
        self._unowned_config_map = ""

    def queue_timed_out(self, queue: str | None, report_progress: Callable[[str], None]) -> None:
        """Never: see `queue_deadline`."""

    def over(self, owner: KubernetesObject) -> str | None:
        try:
            job = self._target.get(JOBS)
        except NotFoundError:
            return None  # the operator is about to make it
        if not diagnosis.is_owned_by(job, owner["metadata"]["uid"]):
            return None  # or that of an earlier one goes first
        return job_end(self._target, job, self.container())

    # -- after it

    def dependents_gone(self, uid: str, deadline: float) -> bool:
        """The resource goes first, then its Job, and with that the pods. Another one of its name is not waited for."""
        remains = Remains(uid)
        with self._target.watch([self._target.watched_pods(), self._target.watched(JOBS)]) as watcher:
            for change in watcher.changes(lambda: deadline):
                if change is None:
                    return False
                if remains.are_gone_after(change):
                    return True
        raise AssertionError("the changes never end by themselves")

    def withdraw(self) -> None:
        if self._unowned_config_map:
            try:
                name = self._agent()["metadata"]["name"]
                self._delete_agent(name, self._unowned_config_map)
            except NotFoundError:
                pass  # its owner, which it has after all, took it along
            except ExecutorsError as err:  # another client's MiniCluster has it by now, or the API server is away
                log.warning("the agent's ConfigMap could not be removed: %s", err)


class Remains:
    """The Job and the pods of a MiniCluster that is gone: changes are folded in until none is left. Pure."""

    def __init__(self, owner_uid: str) -> None:
        self._owner_uid = owner_uid
        self._listed: set[Kind[Any]] = set()
        self._left: dict[Kind[Any], dict[str, KubernetesObject]] = {JOBS: {}, PODS: {}}
        #: Uids of Jobs of the same name that are another owner's.
        self._others: set[str] = set()

    def are_gone_after(self, change: Change | Listed) -> bool:
        if isinstance(change, Listed):
            self._listed.add(change.kind)
        else:
            uid = diagnosis.uid_of(change.object)
            if change.kind is JOBS and not diagnosis.is_owned_by(change.object, self._owner_uid):
                self._others.add(uid)
            elif change.deleted:
                self._left[change.kind].pop(uid, None)
            else:
                self._left[change.kind][uid] = change.object
        # Its Job may be gone before its pods, so these are known by being no other's.
        pods = [
            pod for pod in self._left[PODS].values() if not any(diagnosis.is_owned_by(pod, uid) for uid in self._others)
        ]
        return len(self._listed) == len(self._left) and not self._left[JOBS] and not pods
