"""A whole cluster: the control plane, one node with the image loaded, and upstream's parts where they are given."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.cluster.testbed.binaries import coredns
from tests.cluster.testbed.control_plane import ControlPlane
from tests.cluster.testbed.image import Image, node_image
from tests.cluster.testbed.keeper import make_cgroups
from tests.cluster.testbed.missing import Missing
from tests.cluster.testbed.node import DNS_USER, GROUP, USER, Node
from tests.cluster.testbed.place import need_namespaces
from tests.cluster.testbed.processes import Program
from tests.cluster.testbed.runtime import need_runtime, prepared_store

CRD, OPERATOR, VIEW = "FLUXOP_TEST_CRD", "FLUXOP_TEST_OPERATOR", "FLUXOP_TEST_VIEW"


class Cluster(ControlPlane):
    """A ControlPlane with a node. Pods use ``image.name``; their uid is that of the image's user, 1000."""

    _isolated = True
    node: Node

    @classmethod
    def prepare(cls) -> None:
        need_namespaces()
        need_runtime()
        super().prepare()
        coredns()
        prepared_store(node_image())

    @property
    def image(self) -> Image:
        return node_image()

    def load_image(self, archive: Path) -> None:
        """Puts the image of another OCI or Docker archive on the node, by the name that it has there."""
        self.node.runtime.load_image(archive)

    def restart_kubelet(self) -> None:
        """Kills kubelet, starts it again, and returns when it knows its pods. They go on meanwhile."""
        self.node.kubelet.stop(signal.SIGKILL)
        self.node.start_kubelet(self.api)

    @property
    def crd(self) -> Path | None:
        """The MiniCluster CRD that ``FLUXOP_TEST_CRD`` names, for ``install_crd``; None when it is not given."""
        return _given(CRD)

    @property
    def operator(self) -> Path | None:
        """The Flux Operator's program that ``FLUXOP_TEST_OPERATOR`` names; None when it is not given."""
        return _given(OPERATOR)

    @property
    def view(self) -> Path | None:
        """The archive of a flux-view image that ``FLUXOP_TEST_VIEW`` names; None when it is not given."""
        return _given(VIEW)

    def operator_program(self) -> Program:
        """The operator as a process of the bed, as the administrator, to be started; its CRD has to be there."""
        assert self.operator is not None, f"{OPERATOR} is not set"
        return Program(self.place, "operator", [str(self.operator)], {"KUBECONFIG": str(self.kubeconfig)})

    def start_operator(self) -> Program:
        program = self.operator_program()
        program.start()
        return program

    def _start(self) -> None:
        make_cgroups(self.directory)
        kubelet = self.user_kubeconfig("kubelet", USER, GROUP)
        dns = self.user_kubeconfig("coredns", DNS_USER)
        self.node = Node(self.place, self.binaries, self.pki.directory, kubelet, dns)
        with ThreadPoolExecutor(1) as pool:
            # Beside the control plane's own start, of which half is waiting.
            runtime = pool.submit(self.node.start_runtime, prepared_store(self.image))
            super()._start()
            self._let_coredns_read()
            runtime.result()
        self.node.start(self.api)

    def _let_coredns_read(self) -> None:
        rbac = "/apis/rbac.authorization.k8s.io/v1"
        rules = [
            {
                "apiGroups": [""],
                "resources": ["endpoints", "services", "pods", "namespaces"],
                "verbs": ["list", "watch"],
            },
            {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
        ]
        self.api.post(f"{rbac}/clusterroles", {"metadata": {"name": "coredns"}, "rules": rules})
        binding = {
            "metadata": {"name": "coredns"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "coredns"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": DNS_USER}],
        }
        self.api.post(f"{rbac}/clusterrolebindings", binding)


def _given(variable: str) -> Path | None:
    value = os.environ.get(variable)
    if not value:
        return None
    path = Path(value).absolute()
    if not path.is_file():
        raise Missing(f"{variable}={value}: no such file")
    return path
