"""A node: a container runtime, CoreDNS and kubelet, in the namespaces of a bed's place."""

from __future__ import annotations

import os
from pathlib import Path

import yaml

from tests.cluster.testbed import keeper
from tests.cluster.testbed.addresses import host
from tests.cluster.testbed.api import Api
from tests.cluster.testbed.binaries import coredns
from tests.cluster.testbed.place import Place
from tests.cluster.testbed.processes import Program
from tests.cluster.testbed.runtime import SOCKET, Runtime

NAME = "testbed"
# Who kubelet and CoreDNS are for the API server.
USER, GROUP = f"system:node:{NAME}", "system:nodes"
DNS_USER = "system:coredns"


class Node:
    """Of the bed in ``place``; kubelet and CoreDNS speak to the API server by the kubeconfigs given."""

    def __init__(self, place: Place, binaries: Path, pki: Path, kubelet: Path, dns: Path) -> None:
        self._place = place
        self._directory = place.directory
        self._kubelet_url = f"https://{host(place.address)}:10250"
        self.runtime = Runtime(place, place.directory / "containerd")
        self.coredns = Program(place, "coredns", [str(coredns()), f"-conf={self._corefile(dns)}"])
        self.kubelet = Program(
            place,
            "kubelet",
            [
                *(str(binaries / "kubelet"), f"--config={self._kubelet_config(pki)}", f"--kubeconfig={kubelet}"),
                *(f"--hostname-override={NAME}", f"--node-ip={place.address}"),
                f"--root-dir={self._directory / 'kubelet'}",
            ],
        )

    def start_runtime(self, store: Path) -> None:
        self.runtime.share(store)
        self.runtime.start()

    def start(self, api: Api) -> None:
        """Returns when the node takes pods and names resolve. The runtime is there."""
        self.coredns.start()
        self.start_kubelet(api)
        self.coredns.wait_for("ready", lambda: api.is_ok(f"http://{host(self._place.address)}:8181/ready"))

    def start_kubelet(self, api: Api) -> None:
        """Returns when the node takes pods."""
        self.kubelet.start()
        self.kubelet.wait_for("answering", lambda: api.is_ok(f"{self._kubelet_url}/healthz"))
        self.kubelet.wait_for("node ready", lambda: _is_ready(api))
        # After a restart it learns of its pods again, and until then knows none of them.
        self.kubelet.wait_for("pods known", lambda: _pods(api, "/api/v1") <= _pods(api, self._kubelet_url))

    def _corefile(self, kubeconfig: Path) -> Path:
        address, family = self._place.address, self._place.family
        return self._write(
            "Corefile",
            f""".:53 {{
  bind {address}
  errors
  ready {host(address)}:8181
  kubernetes cluster.local {family.reverse_zone} {{
    kubeconfig {kubeconfig} testbed
    # A pod that is replaced has another address at once.
    ttl 1
  }}
}}
# As many clusters have it: what is asked for too soon is denied for half a minute.
.:53 {{
  bind {family.caching_dns}
  errors
  cache 30
  kubernetes cluster.local {family.reverse_zone} {{
    kubeconfig {kubeconfig} testbed
    ttl 30
  }}
}}
""",
        )

    def _kubelet_config(self, pki: Path) -> Path:
        dns = self._place.family.caching_dns if os.environ.get("FLUXOP_TEST_DNS") == "caching" else self._place.address
        resolv = self._write("resolv.conf", f"nameserver {dns}\n")
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
            "clusterDNS": [dns],
            "resolvConf": str(resolv),
            "containerRuntimeEndpoint": f"unix://{SOCKET}",
            "podLogsDir": str(self._directory / "pod-logs"),
            "volumePluginDir": str(self._directory / "volume-plugins"),
            "failSwapOn": False,
            # A developer's disk may be as full as it likes.
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


def _pods(api: Api, where: str) -> set[str]:
    """The uids of the node's pods that are known there."""
    query = f"?fieldSelector=spec.nodeName={NAME}" if where.startswith("/") else ""
    return {pod["metadata"]["uid"] for pod in api.get(f"{where}/pods{query}")["items"] or []}


def _is_ready(api: Api) -> bool:
    """Ready, and without the taint of one that was not."""
    node = next((n for n in api.get("/api/v1/nodes")["items"] if n["metadata"]["name"] == NAME), None)
    if node is None or node["spec"].get("taints"):
        return False
    return any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"].get("conditions", []))
