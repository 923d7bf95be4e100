"""A node: containerd with runc, CoreDNS and kubelet, in the namespaces of a bed's place."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml

from tests.cluster.testbed import keeper
from tests.cluster.testbed.api import Api
from tests.cluster.testbed.cache import output_of
from tests.cluster.testbed.oci import write_archive
from tests.cluster.testbed.place import Place
from tests.cluster.testbed.processes import Program

NAME = "testbed"
USER = f"system:node:{NAME}"
CNI_PLUGINS = Path("/usr/lib/cni")
_PAUSE = "localhost/pause:1"
_SOCKET = "/run/containerd/containerd.sock"
_CAP_SYS_RESOURCE = 24


class Node:
    """Of the bed in ``place``; its programs speak to the API server by the kubeconfigs given."""

    def __init__(self, place: Place, binaries: Path, pki: Path, kubelet: Path, coredns: Path) -> None:
        self._place = place
        self._directory = place.directory
        self._binaries = binaries
        self.containerd = Program(place, "containerd", ["containerd", f"--config={self._containerd_config()}"])
        self.coredns = Program(
            place, "coredns", [str(binaries / "coredns"), f"-conf={self._corefile(coredns)}", "-dns.port=53"]
        )
        self.kubelet = Program(
            place,
            "kubelet",
            [
                *(str(binaries / "kubelet"), f"--config={self._kubelet_config(pki)}", f"--kubeconfig={kubelet}"),
                *(f"--hostname-override={NAME}", f"--node-ip={place.address}"),
                f"--root-dir={self._directory / 'kubelet'}",
            ],
        )

    def start_runtime(self) -> None:
        """containerd, with the image that holds a pod's namespaces."""
        self.containerd.start()
        self.containerd.wait_for("answering", self._runtime_answers)
        layer, archive = self._directory / "pause.layer", self._directory / "pause.tar"
        output_of(["tar", "-C", str(self._binaries), "-cf", str(layer), "pause"], what="packing the pause image")
        write_archive(_PAUSE, layer, archive, entrypoint=["/pause"])
        self.load_image(archive)

    def _runtime_answers(self) -> bool:
        try:
            self._place.run("ctr", f"--address={_SOCKET}", "version")
        except RuntimeError:
            return False
        return True

    def load_image(self, archive: Path) -> None:
        """Puts the image of an OCI or Docker archive on the node."""
        self._place.run("ctr", f"--address={_SOCKET}", "--namespace=k8s.io", "images", "import", str(archive))

    def start(self, api: Api) -> None:
        """The rest, until the node takes pods and names resolve."""
        self.coredns.start()
        self.start_kubelet(api)
        self.coredns.wait_for("ready", lambda: api.is_ok(f"http://{self._place.address}:8181/ready"))

    def start_kubelet(self, api: Api) -> None:
        self.kubelet.start()
        self.kubelet.wait_for("node ready", lambda: _is_ready(api))

    def _containerd_config(self) -> Path:
        # Pods get a network card at the bed's bridge, and an address above those that the bed has itself.
        network, _, _ = self._place.network.partition("/")
        first = re.sub(r"\.0\.0$", ".1.0", network)
        ipam = {
            "type": "host-local",
            "ranges": [[{"subnet": self._place.network, "rangeStart": first, "gateway": self._place.address}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        }
        bridge = {"type": "bridge", "bridge": "pods", "isGateway": False, "ipMasq": False, "ipam": ipam}
        cni = self._directory / "cni"
        cni.mkdir()
        plugins = {"cniVersion": "0.4.0", "name": "pods", "plugins": [bridge]}
        (cni / "10-pods.conflist").write_text(json.dumps(plugins))
        return self._write(
            "containerd.toml",
            f"""version = 2
root = "{self._directory / "containerd"}"
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs"]
[grpc]
  address = "{_SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{_PAUSE}"
  # Where we may not lower the value, runc must not be asked to.
  restrict_oom_score_adj = {"false" if _may_lower_oom_score() else "true"}
  # In the bed's own mounts, and gone with them.
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{CNI_PLUGINS}"
    conf_dir = "{cni}"
""",
        )

    def _corefile(self, kubeconfig: Path) -> Path:
        address = self._place.address
        return self._write(
            "Corefile",
            f""".:53 {{
  bind {address}
  errors
  ready {address}:8181
  kubernetes cluster.local in-addr.arpa {{
    kubeconfig {kubeconfig} testbed
    # A pod that is replaced has another address at once.
    ttl 1
  }}
}}
""",
        )

    def _kubelet_config(self, pki: Path) -> Path:
        resolv = self._write("resolv.conf", f"nameserver {self._place.address}\n")
        config = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": self._place.address,
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(pki / "ca.crt")},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": str(pki / "server.crt"),
            "tlsPrivateKeyFile": str(pki / "server.key"),
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{keeper.link_name(self._directory)}",
            "clusterDomain": "cluster.local",
            "clusterDNS": [self._place.address],
            "resolvConf": str(resolv),
            "containerRuntimeEndpoint": f"unix://{_SOCKET}",
            "podLogsDir": str(self._directory / "pod-logs"),
            "volumePluginDir": str(self._directory / "volume-plugins"),
            "failSwapOn": False,
            # A developer's disk may be as full as it likes; the machine's memory is the kernel's to guard.
            "evictionHard": {
                **dict.fromkeys(["nodefs.available", "nodefs.inodesFree", "imagefs.available"], "0%"),
                "memory.available": "100Mi",
            },
            "imageGCHighThresholdPercent": 100,
            "serializeImagePulls": False,
            "maxPods": 250,
        }
        return self._write("kubelet.yaml", yaml.safe_dump(config))

    def _write(self, name: str, text: str) -> Path:
        path = self._directory / name
        path.write_text(text)
        return path


def _is_ready(api: Api) -> bool:
    node = next((n for n in api.get("/api/v1/nodes")["items"] if n["metadata"]["name"] == NAME), None)
    if node is None or node["spec"].get("taints"):
        return False
    return any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"].get("conditions", []))


def _may_lower_oom_score() -> bool:
    status = Path("/proc/self/status").read_text()
    effective = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
    return effective is not None and bool(int(effective[1], 16) >> _CAP_SYS_RESOURCE & 1)
