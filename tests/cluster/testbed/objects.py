"""What tests do with a cluster's objects: kubectl, namespaces, service accounts, the audit log."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.cluster.testbed.api import Api, ApiError
from tests.cluster.testbed.kubeconfig import write_kubeconfig
from tests.cluster.testbed.pki import Authority
from tests.cluster.testbed.waiting import wait_until

LIMIT = 60.0
RESTRICTED: Mapping[str, str] = {"pod-security.kubernetes.io/enforce": "restricted"}
#: Where the API has what is not Kubernetes' core.
_GROUPS = {
    "jobs": "/apis/batch/v1",
    "miniclusters": "/apis/flux-framework.org/v1alpha2",
    "workloads": "/apis/kueue.x-k8s.io/v1beta2",
}


class KubectlError(Exception):
    """kubectl's exit code is not 0; the text is what it wrote."""

    def __init__(self, message: str, code: int) -> None:
        self.code = code
        super().__init__(message)


class Objects:
    """Of a cluster whose API server answers at ``server``; as its administrator unless something else is said."""

    api: Api
    server: str
    kubeconfig: Path
    audit_log: Path
    binaries: Path
    directory: Path
    pki: Authority
    _own_kubeconfig: Path

    def kubectl(self, *arguments: str, input: str | None = None, kubeconfig: Path | None = None) -> str:
        """What kubectl prints. Raises KubectlError with its error."""
        done = subprocess.run(
            [str(self.binaries / "kubectl"), f"--kubeconfig={kubeconfig or self.kubeconfig}", *arguments],
            input=input or "",
            capture_output=True,
            text=True,
            check=False,
            # Its cache of what the API server has is the bed's own: another bed at the same address has other things.
            env={**os.environ, "KUBECACHEDIR": str(self.directory / "kubectl-cache"), "NO_PROXY": "*"},
        )
        if done.returncode:
            message = f"kubectl {' '.join(arguments)}: exit code {done.returncode}: {done.stderr.strip()}"
            raise KubectlError(message, done.returncode)
        return done.stdout

    def objects(self, kind: str, namespace: str, selector: str = "") -> list[dict[str, Any]]:
        """Those of a kind (as kubectl calls it: ``pods``), by a label selector if given.

        For what is asked again and again: a kubectl each would cost a tenth of a second of a core.
        """
        query = f"?{urlencode({'labelSelector': selector})}" if selector else ""
        return list(self.api.get(_path(kind, namespace) + query)["items"])

    def object(self, kind: str, name: str, namespace: str) -> dict[str, Any]:
        """One of them. Raises ApiError."""
        return dict(self.api.get(f"{_path(kind, namespace)}/{name}"))

    def left_in(self, namespace: str, *kinds: str) -> list[str]:
        """What a namespace has of some kinds beside what each has, as in ``pod/mine``.

        What goes within a second is not left: Kubernetes removes what belongs to a removed object a moment later.
        """
        end = time.monotonic() + 1.0
        while True:
            found = [(kind, one) for kind in kinds for one in self.objects(kind, namespace)]
            names = [f"{kind.removesuffix('s')}/{one['metadata']['name']}" for kind, one in found]
            left = [name for name in names if name != "configmap/kube-root-ca.crt"]
            if not left or time.monotonic() > end:
                return left
            time.sleep(0.05)

    def kill_in_pod(self, processes: str, pod: str, namespace: str, *, container: str | None = None) -> None:
        """SIGKILL to what ``pgrep`` finds first in a pod by these arguments.

        The container may end by that, and the shell that sends the signal with it, before it can say so.
        """
        chosen = [f"--container={container}"] if container else []
        command = f'pid=$(pgrep {processes} | head -1); [ -n "$pid" ] || exit 1; kill -9 $pid'
        try:
            self.kubectl("exec", pod, f"--namespace={namespace}", *chosen, "--", "sh", "-c", command)
        except KubectlError as error:
            if error.code != 128 + signal.SIGKILL:
                raise

    def create_namespace(self, prefix: str = "test", *, labels: Mapping[str, str] = RESTRICTED) -> str:
        """The name of a new namespace in which pods can be made; restricted unless other labels are given."""
        name = f"{prefix}-{secrets.token_hex(3)}"
        self.api.post("/api/v1/namespaces", {"metadata": {"name": name, "labels": dict(labels)}})
        # Without them no pod is admitted, or none starts.
        for path in ("serviceaccounts/default", "configmaps/kube-root-ca.crt"):
            wait_until(f"{path} in {name}", partial(self.has, f"/api/v1/namespaces/{name}/{path}"), LIMIT)
        return name

    def delete_namespace(self, name: str) -> None:
        """Begins to delete the namespace with all that is in it; pods without their grace period.

        The rest is the controllers' work, which takes seconds that no test needs to wait for.
        """
        self.api.delete(f"/api/v1/namespaces/{name}")
        pods = f"/api/v1/namespaces/{name}/pods"
        # In a namespace that ends, nothing replaces them. Without a node nobody else would confirm their end.
        self.api.request("DELETE", pods, {"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0})

    def service_account_kubeconfig(self, namespace: str, name: str, *, seconds: int = 3600) -> Path:
        """A kubeconfig with a token of that service account, which is made if it is not there. At least 600 seconds."""
        accounts = f"/api/v1/namespaces/{namespace}/serviceaccounts"
        if not self.has(f"{accounts}/{name}"):
            self.api.post(accounts, {"metadata": {"name": name}})
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": seconds},
        }
        token = self.api.post(f"{accounts}/{name}/token", request)["status"]["token"]
        path = self.directory / f"{namespace}-{name}-{secrets.token_hex(3)}.kubeconfig"
        return write_kubeconfig(path, self.server, self.pki.certificate, {"token": token}, namespace=namespace)

    def audit_events(self, namespace: str | None = None) -> list[dict[str, Any]]:
        """The audit log (audit.k8s.io/v1, stage ResponseComplete and others), oldest first; of a namespace if given."""
        return [event for event in self._audit() if namespace in (None, event.get("objectRef", {}).get("namespace"))]

    def has(self, path: str) -> bool:
        """Whether an object is there, by its path in the API."""
        try:
            self.api.get(path)
        except ApiError as error:
            if error.status != 404:
                raise
            return False
        return True

    def install_crd(self, path: Path) -> None:
        """Applies a CustomResourceDefinition and returns when the API server serves it."""
        # On the server's side: upstream's is larger than what an annotation holds.
        own = self._own_kubeconfig
        self.kubectl("apply", "--server-side", f"--filename={path}", kubeconfig=own)

        def established() -> bool:
            # Not `kubectl wait`: it fails where there is no status yet.
            found = json.loads(self.kubectl("get", f"--filename={path}", "--output=json", kubeconfig=own))
            conditions = found.get("status", {}).get("conditions") or []
            return any(one["type"] == "Established" and one["status"] == "True" for one in conditions)

        wait_until(f"{path.name} to be served", established, 60.0)

    def _audit(self) -> Iterator[dict[str, Any]]:
        if self.audit_log.exists():
            with self.audit_log.open() as log:
                yield from (json.loads(line) for line in log if line.endswith("\n"))


def _path(kind: str, namespace: str) -> str:
    return f"{_GROUPS.get(kind, '/api/v1')}/namespaces/{namespace}/{kind}"
