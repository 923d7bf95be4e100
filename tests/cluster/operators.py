"""Our own Flux Operator on the test bed: installed, with exactly its rights, and running as a process of the bed."""

from __future__ import annotations

import json
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import yaml

from executors.controller.manifests import NAME, NAMESPACE, manifests
from tests.cluster.runs import KINDS
from tests.cluster.testbed.cluster import Cluster
from tests.cluster.testbed.control_plane import ControlPlane
from tests.cluster.testbed.processes import Program
from tests.cluster.testbed.waiting import wait_until

LIMIT = 60.0
CRD_NAME = "miniclusters.flux-framework.org"
LEASES = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases"


@contextmanager
def installed(cluster: ControlPlane, directory: Path) -> Iterator[Path]:
    """The manifests, but for the Deployment; the kubeconfig of the controller's service account."""
    found = [one for one in manifests() if one["kind"] != "Deployment"]
    file = directory / "crd.yaml"
    file.write_text(yaml.safe_dump(next(one for one in found if one["kind"] == "CustomResourceDefinition")))
    rest = directory / "operator.yaml"
    rest.write_text(yaml.safe_dump_all([one for one in found if one["kind"] != "CustomResourceDefinition"]))
    cluster.kubectl("apply", "--server-side", f"--filename={rest}")
    cluster.install_crd(file)
    try:
        yield cluster.service_account_kubeconfig(NAMESPACE, NAME)
    finally:
        cluster.kubectl("delete", "crd", CRD_NAME)
        # Until its namespace is gone, in which the next one's objects could not be made.
        cluster.kubectl("delete", f"--filename={rest}", f"--timeout={LIMIT:g}s")


def operator_program(cluster: ControlPlane, kubeconfig: Path, name: str = "flux-operator", *arguments: str) -> Program:
    """One replica, to be started."""
    command = shutil.which("flux-operator", path=str(Path(sys.executable).parent))
    assert command is not None, "this package is not installed in the tests' environment"
    argv = [command, "run", "--log-format=text", *arguments]
    return Program(cluster.place, name, argv, {"KUBECONFIG": str(kubeconfig), "NO_PROXY": "*"})


@contextmanager
def running(cluster: ControlPlane, directory: Path) -> Iterator[None]:
    """Installed, and one replica that leads, with the rights that it is published with."""
    with installed(cluster, directory) as kubeconfig:
        program = operator_program(cluster, kubeconfig)
        program.start()
        try:
            wait_for_leader(cluster)
            yield
        finally:
            program.stop()


def deploy(cluster: Cluster, namespace: str, directory: Path) -> None:
    """What is published, in a namespace that is there, and ready; but for the image: the node's, with this package from
    this machine.
    """
    found = manifests(namespace, cluster.image.name)
    pod = found[-1]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    container["command"] = ["python3", "-c", "from executors.controller.main import main; main()"]
    container["env"] = [{"name": "PYTHONPATH", "value": "/package:/metadata"}]
    container["volumeMounts"], pod["volumes"] = [], []
    where = Path(str(distribution("flux-operator-executors").locate_file("")))
    metadata = next(where.glob("flux_operator_executors-*.dist-info"))
    places = {
        "package": (Path(__file__).parents[2] / "executors", "/package/executors"),
        "metadata": (metadata, f"/metadata/{metadata.name}"),
    }
    for volume, (source, target) in places.items():
        pod["volumes"].append({"name": volume, "hostPath": {"path": str(source)}})
        container["volumeMounts"].append({"name": volume, "mountPath": target, "readOnly": True})
    file = directory / "operator.yaml"
    file.write_text(yaml.safe_dump_all(found))
    cluster.kubectl("apply", f"--filename={file}")
    ready = ("rollout", "status", f"deployment/{NAME}", f"--timeout={LIMIT:g}s")
    cluster.kubectl(f"--namespace={namespace}", *ready)


def wait_for_leader(cluster: ControlPlane) -> str:
    """Who holds the Lease."""

    def holder() -> str:
        items = cluster.api.get(LEASES)["items"]
        return str(items[0]["spec"].get("holderIdentity") or "") if items else ""

    wait_until("a leader", lambda: bool(holder()), LIMIT)
    return holder()


class MiniClusters:
    """MiniCluster resources in one namespace; ``image`` for those that a Cluster's own image is not meant for."""

    def __init__(self, cluster: ControlPlane, namespace: str, image: str | None = None) -> None:
        self.cluster = cluster
        self.namespace = namespace
        if image is None:
            assert isinstance(cluster, Cluster)
            image = cluster.image.name
        self.image = image

    def kubectl(self, *arguments: str, **more: Any) -> str:
        return self.cluster.kubectl(f"--namespace={self.namespace}", *arguments, **more)

    def apply(self, name: str, command: str = "hostname", *, size: int = 1, **spec: Any) -> None:
        """``container`` adds to its container."""
        container = {
            "image": self.image,
            "command": command,
            "resources": {"requests": {"cpu": "100m"}},
            **spec.pop("container", {}),
        }
        document = {
            "apiVersion": "flux-framework.org/v1alpha2",
            "kind": "MiniCluster",
            "metadata": {"name": name},
            "spec": {
                "size": size,
                "logging": {"quiet": True},
                "flux": {"container": {"disable": True}},
                "containers": [container],
                **spec,
            },
        }
        self.kubectl("apply", "--filename=-", input=json.dumps(document))

    def free_name(self) -> str:
        return f"mc-{secrets.token_hex(3)}"

    def get(self, name: str, kind: str = "miniclusters") -> Any:
        return self.cluster.object(kind, name, self.namespace)

    def condition(self, name: str, kind: str) -> dict[str, Any]:
        """{} where it is not there yet."""
        conditions = self.get(name).get("status", {}).get("conditions", [])
        return next((dict(one) for one in conditions if one["type"] == kind), {})

    def wait(self, name: str, kind: str, status: str = "True") -> dict[str, Any]:
        """As people do; the condition."""
        try:
            self.kubectl("wait", f"miniclusters/{name}", f"--for=condition={kind}={status}", f"--timeout={LIMIT:g}s")
        except Exception as err:
            raise AssertionError(f"{err}\n{json.dumps(self.get(name).get('status'), indent=1)}") from None
        return self.condition(name, kind)

    def lead_log(self, name: str) -> str:
        return self.kubectl("logs", f"--selector=job-name={name},job-index=0", "--tail=-1")

    def events(self, name: str) -> list[tuple[str, str]]:
        """Reasons and messages of what was told of a MiniCluster."""
        items = self.cluster.objects("events", self.namespace)
        about = [one for one in items if one["involvedObject"].get("kind") == "MiniCluster"]
        return [(one["reason"], one["message"]) for one in about if one["involvedObject"]["name"] == name]

    def left(self) -> list[str]:
        return self.cluster.left_in(self.namespace, "miniclusters", *KINDS)

    def wait_nothing_left(self) -> None:
        # The garbage collector looks for new kinds every half minute.
        wait_until("nothing to be left", lambda: not self.left(), 2 * LIMIT)
