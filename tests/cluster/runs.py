"""Runs on the test bed: configs, sessions, and what is left of them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from executors import JobRequest, JobResult, RunConfig, RunId, Session, load_config, open_session
from tests.cluster.testbed.cluster import Cluster
from tests.cluster.testbed.control_plane import ControlPlane
from tests.cluster.testbed.waiting import wait_until

LIMIT = 60.0
#: What belongs to a MiniCluster.
KINDS = ("jobs", "pods", "services", "secrets", "configmaps")


def spec(image: str, *, size: int = 1, **more: object) -> dict[str, Any]:
    """A MiniCluster spec whose pods fit on the bed's node beside others; ``container`` adds to its container."""
    extra: Any = more.pop("container", {})
    container = {"image": image, "resources": {"requests": {"cpu": "100m"}, "limits": {"cpu": "1"}}, **extra}
    return {"size": size, "flux": {"container": {"disable": True}}, "containers": [container], **more}


def write_config(path: Path, minicluster: object, **run: object) -> Path:
    """A FluxRun file (JSON is YAML)."""
    document = {
        "apiVersion": "flux-operator-executors/v1",
        "kind": "FluxRun",
        "run": run,
        "minicluster": minicluster,
    }
    path.write_text(json.dumps(document))
    return path


class Runs:
    """Opens sessions in one namespace, by its own kubeconfig; closes what a test leaves open."""

    def __init__(self, bed: ControlPlane, namespace: str, directory: Path, image: str) -> None:
        self.bed = bed
        self.namespace = namespace
        self.image = image
        self.kubeconfig = bed.kubeconfig
        self.provisioner = "direct"
        self._directory = directory
        self._opened: list[Session] = []

    def config(self, minicluster: object = None, **run: object) -> RunConfig:
        given = {"provisioner": self.provisioner, "namespace": self.namespace, **run}
        file = self._directory / f"{uuid.uuid4().hex[:8]}.yaml"
        write_config(file, minicluster or spec(self.image), kubeconfig=str(self.kubeconfig), **given)
        return load_config(file, environ={})

    def open(
        self,
        minicluster: object = None,
        *,
        run_id: str | None = None,
        report_progress: Callable[[str], None] = lambda _: None,
        **run: object,
    ) -> Session:
        session = open_session(
            RunId("test", run_id or uuid.uuid4().hex[:8]),
            self.config(minicluster, **run),
            environ={},
            report_progress=report_progress,
        )
        self._opened.append(session)
        return session

    def close(self) -> None:
        for session in self._opened:
            session.close()

    def left(self) -> list[str]:
        """Names of the namespace's objects that are of a MiniCluster's kinds."""
        return self.bed.left_in(self.namespace, *KINDS)

    def wait_nothing_left(self) -> None:
        wait_until("nothing to be left", lambda: not self.left(), LIMIT)

    def pod(self, name: str, index: int) -> dict[str, Any]:
        """The youngest pod of an index."""
        selector = f"job-name={name},batch.kubernetes.io/job-completion-index={index}"
        pods = self.bed.objects("pods", self.namespace, selector)
        return max(pods, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))

    def logs(self, name: str, index: int) -> str:
        """What the youngest pod of an index has logged. A session is open before the API server knows that it runs."""
        pod = self.pod(name, index)["metadata"]["name"]
        in_namespace = f"--namespace={self.namespace}"
        self.bed.kubectl("wait", f"pod/{pod}", "--for=jsonpath={.status.phase}=Running", "--timeout=60s", in_namespace)
        return self.bed.kubectl("logs", pod, in_namespace)


def job(session: Session, *argv: str, **fields: object) -> JobResult:
    [handle] = session.submit([JobRequest(argv=argv, **fields)])  # type: ignore[arg-type]
    return handle.result(LIMIT)


def output_of(session: Session, *argv: str, **fields: object) -> str:
    [handle] = session.submit([JobRequest(argv=argv, **fields)])  # type: ignore[arg-type]
    result = handle.result(LIMIT)
    assert result.ok, (result, b"".join(handle.output("stderr")))
    return b"".join(handle.output()).decode()


def runs_on(cluster: Cluster, namespace: str, directory: Path) -> Runs:
    return Runs(cluster, namespace, directory, cluster.image.name)
