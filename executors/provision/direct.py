"""Direct mode: an Indexed Job and what it needs, in one namespace; no CRD, no operator, no cluster-wide right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from executors.errors import ConfigError, ProvisionError
from executors.kube import ConflictError
from executors.kube.api import JOBS, kind_of
from executors.provision import diagnosis
from executors.provision.certificate import make_certificate
from executors.provision.cluster import ATTEMPT_ANNOTATION, ClusterProvisioner
from executors.render import owned_by, places_of, render_direct
from executors.render.entry import relay_command
from executors.validation import direct_problems, name_problems

#: ``successPolicy`` and ``backoffLimitPerIndex`` are on by default since then.
OLDEST = (1, 31)
#: Digits of an attempt's mark in the names of its objects.
_TOKEN = 6

Object = dict[str, Any]


def version_of(answer: Mapping[str, Any]) -> tuple[int, int]:
    """Major and minor of what ``/version`` answers; some vendors write ``31+``. Raises KeyError or ValueError."""
    return int(answer["major"]), int(str(answer["minor"]).rstrip("+"))


class DirectProvisioner(ClusterProvisioner):
    """The Job is the owner. It is created suspended, so that nothing can be left without an owner, and no pod waits
    for what is not there yet; whoever finds it suspended completes it."""

    owner_kind = JOBS
    mode = "direct"

    def ensure(self) -> None:
        problems = [*direct_problems(self._spec), *name_problems(self._name, self._spec)]
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
        if not owner["spec"].get("suspend"):
            return
        for manifest in owned_by(self._manifests_of(owner["metadata"]["annotations"][ATTEMPT_ANNOTATION]), owner):
            if manifest["kind"] == "Job":
                continue
            try:
                self.api.create(kind_of(manifest), self._namespace, manifest)
            except ConflictError:
                pass  # another client completes the same MiniCluster; the first certificate counts
        self.api.patch(JOBS, self._namespace, self._name, {"spec": {"suspend": False}})

    def _over(self, owner: Object) -> str | None:
        finding = diagnosis.of_job(owner)
        return finding.reason if isinstance(finding, diagnosis.Fatal) else None

    def _check_version(self) -> None:
        found = self.api.request("GET", "/version")
        try:
            version = version_of(found)
        except (KeyError, ValueError):
            raise ProvisionError(f"{self.api.server} does not answer like a Kubernetes API server: {found!r}") from None
        if version < OLDEST:
            raise ProvisionError(
                f"Kubernetes {version[0]}.{version[1]} at {self.api.server} is too old for the provisioner direct: it "
                f"needs successPolicy and backoffLimitPerIndex, of {OLDEST[0]}.{OLDEST[1]} or newer; use operator"
            )
