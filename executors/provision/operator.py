"""Operator mode: a MiniCluster resource, which the cluster's Flux Operator turns into pods."""

from __future__ import annotations

from typing import Any

from executors.errors import ProvisionError
from executors.kube import ConflictError, NotFoundError
from executors.kube.api import CONFIG_MAPS, JOBS, MINICLUSTERS
from executors.provision import diagnosis
from executors.provision.cluster import ClusterProvisioner
from executors.render import owned_by, render_resource
from executors.render.resource import OPERATOR_AGENT

Object = dict[str, Any]


class OperatorProvisioner(ClusterProvisioner):
    """The MiniCluster resource is the owner. Its pods mount the agent, so that is created first and owned then."""

    owner_kind = MINICLUSTERS
    mode = "operator"
    agent_directory = "/tmp/flux_operator_agent"
    job_limit = 20.0

    def _size_change(self, size: int) -> Object:
        return {"spec": {"size": size}}

    def _relay(self, patience: float) -> list[str]:
        socket = f"{self.agent_directory}/agent.sock"
        return ["flux", "python", OPERATOR_AGENT, "relay", socket, "--wait", str(patience)]

    def _manifests(self) -> list[Object]:
        return render_resource(self._minicluster(), self._program())

    def _create_before(self) -> None:
        agent = self._agent()
        name = agent["metadata"]["name"]
        try:
            self.api.create(CONFIG_MAPS, self._namespace, agent)
        except ConflictError:  # of another client of this run, or of one that died before it made the rest
            there = self.api.get(CONFIG_MAPS, self._namespace, name)
            if there.get("binaryData") != agent["binaryData"] and not there["metadata"].get("ownerReferences"):
                self.api.delete(CONFIG_MAPS, self._namespace, name, uid=there["metadata"]["uid"], policy="Background")
                self.api.create(CONFIG_MAPS, self._namespace, agent)

    def _complete(self, owner: Object) -> None:
        if not self._created:
            return
        [agent] = owned_by([self._agent()], owner)
        change = {"metadata": {"ownerReferences": agent["metadata"]["ownerReferences"]}}
        self.api.patch(CONFIG_MAPS, self._namespace, agent["metadata"]["name"], change)

    def _agent(self) -> Object:
        return next(one for one in self._manifests() if one["kind"] == "ConfigMap")

    def _over(self, owner: Object) -> str | None:
        try:
            job = self.api.get(JOBS, self._namespace, self._name)
        except NotFoundError:
            return None  # the operator is about to make it
        finding = diagnosis.of_job(job)
        return finding.reason if isinstance(finding, diagnosis.Fatal) else None

    def _refused(self, err: NotFoundError) -> ProvisionError:
        return ProvisionError(
            f"{self.api.server} knows no MiniClusters: the Flux Operator's CRD is not installed there; "
            f"have it installed, or use the provisioner direct, which needs neither ({err})"
        )
