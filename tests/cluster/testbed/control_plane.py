"""A control plane: etcd, API server, controller manager and scheduler, with TLS, RBAC, admission and an audit log."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from types import TracebackType
from typing import Self

import yaml

from tests.cluster.testbed.addresses import IPV4, Family, host
from tests.cluster.testbed.api import Api
from tests.cluster.testbed.binaries import binaries
from tests.cluster.testbed.kubeconfig import write_kubeconfig
from tests.cluster.testbed.missing import need_commands
from tests.cluster.testbed.objects import Objects
from tests.cluster.testbed.pki import Authority
from tests.cluster.testbed.place import Place
from tests.cluster.testbed.processes import Program

_NAMES = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"]
# Does what the bed does itself; not in the audit log, where tests count their own requests.
BED_USER = "testbed"
# Bodies of the requests of people and programs; of secrets and tokens who asked for what only. The cluster's own parts:
# what they write, without bodies.
_AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "None", "nonResourceURLs": ["/*"]},
        {"level": "None", "users": [BED_USER]},
        {"level": "None", "resources": [{"group": "coordination.k8s.io"}]},
        {"level": "None", "userGroups": ["system:nodes"], "verbs": ["get", "list", "watch"]},
        {
            "level": "None",
            "users": ["system:kube-controller-manager", "system:kube-scheduler", "system:apiserver", "system:coredns"],
            "verbs": ["get", "list", "watch"],
        },
        {"level": "None", "userGroups": ["system:serviceaccounts:kube-system"], "verbs": ["get", "list", "watch"]},
        {
            "level": "Metadata",
            "resources": [{"group": "", "resources": ["secrets", "serviceaccounts/token", "tokenreviews"]}],
        },
        {"level": "Metadata", "users": ["system:kube-controller-manager", "system:kube-scheduler", "system:apiserver"]},
        {"level": "Metadata", "userGroups": ["system:nodes", "system:serviceaccounts:kube-system"]},
        {"level": "Request"},
    ],
}


class ControlPlane(Objects):
    """A running control plane; used as a context manager, at whose end nothing of it is left.

    Raises Missing when the machine lacks something, NotReached with the end of a log when a part does not start.
    """

    _isolated = False

    def __init__(self, *, stays: bool = False, family: Family = IPV4) -> None:
        self.prepare()
        self.binaries = binaries()
        self.place = Place(isolated=self._isolated, stays=stays, family=family)
        try:
            self.directory = self.place.directory
            self.server = f"https://{host(self.place.address)}:{443 if self._isolated else self.place.ports[0]}"
            self.audit_log = self.place.logs / "audit.log"
            self.kubeconfig = self.directory / "admin.kubeconfig"
            self._make_credentials()
            self._etcd, self._api_server, self._controllers, self._scheduler = self._programs()
            self._start()
        except BaseException:
            self.close()
            raise

    @classmethod
    def prepare(cls) -> None:
        """Makes what is made once and kept, minutes the first time. Raises Missing."""
        need_commands("etcd", "openssl")
        binaries()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends all and removes it. Its logs are kept in the directory that ``FLUXOP_TEST_LOGS`` names, if it does."""
        keep = os.environ.get("FLUXOP_TEST_LOGS")
        if keep:
            shutil.copytree(self.place.logs, Path(keep, f"{type(self).__name__}-{os.getpid()}"), dirs_exist_ok=True)
        self.place.close()

    def stop_api_server(self) -> None:
        """Kills the API server, which cuts every connection. (Asked kindly, it waits a minute for its watchers.)"""
        self._api_server.stop(signal.SIGKILL)

    def start_api_server(self) -> None:
        """Starts the API server, and returns when it is ready."""
        self._api_server.start()
        self._api_server.wait_for("ready", lambda: self.api.is_ok(f"{self.server}/readyz"))

    def restart_api_server(self) -> None:
        """Returns when the new one is ready."""
        self.stop_api_server()
        self.start_api_server()

    def _start(self) -> None:
        self._etcd.start()
        self.start_api_server()
        self._controllers.start()
        self._scheduler.start()
        for program, offset in ((self._controllers, 3), (self._scheduler, 4)):
            url = f"https://{host(self.place.address)}:{self.place.ports[offset]}/healthz"
            program.wait_for("healthy", lambda url=url: self.api.is_ok(url))  # type: ignore[misc]

    def _make_credentials(self) -> None:
        self.pki = Authority(self.directory / "pki")
        self.pki.server(
            "server", addresses=[self.place.address, "127.0.0.1", self.place.family.api_server], names=_NAMES
        )
        self.pki.key_pair("service-accounts")
        self.pki.client("kubelet-client", user="kube-apiserver", group="system:masters")
        self.user_kubeconfig("admin", "admin", "system:masters")
        self._own_kubeconfig = self.user_kubeconfig("bed", BED_USER, "system:masters")
        self.user_kubeconfig("controllers", "system:kube-controller-manager")
        self.user_kubeconfig("scheduler", "system:kube-scheduler")
        self.api = Api(self.server, self.pki.certificate, self._file("bed.crt"), self._file("bed.key"))

    def user_kubeconfig(self, name: str, user: str, group: str = "") -> Path:
        """A kubeconfig by which the API server knows ``user`` as a member of ``group``."""
        self.pki.client(name, user=user, group=group)
        files = {"client-certificate": f"{self._file(f'{name}.crt')}", "client-key": f"{self._file(f'{name}.key')}"}
        return write_kubeconfig(self.directory / f"{name}.kubeconfig", self.server, self.pki.certificate, files)

    def _file(self, name: str) -> Path:
        return self.pki.directory / name

    def _programs(self) -> tuple[Program, Program, Program, Program]:
        etcd, peers = (f"http://127.0.0.1:{self.place.ports[offset]}" for offset in (1, 2))
        policy = self.directory / "audit-policy.yaml"
        policy.write_text(yaml.safe_dump(_AUDIT_POLICY))
        ca, certificate, key = self.pki.certificate, self._file("server.crt"), self._file("server.key")
        serving = [f"--tls-cert-file={certificate}", f"--tls-private-key-file={key}"]
        accounts = self._file("service-accounts.key")
        return (
            self._program(
                "etcd",
                *("etcd", f"--data-dir={self.directory / 'etcd'}", "--unsafe-no-fsync", "--log-level=warn"),
                *(f"--listen-client-urls={etcd}", f"--advertise-client-urls={etcd}", f"--listen-peer-urls={peers}"),
                *(f"--initial-advertise-peer-urls={peers}", f"--initial-cluster=default={peers}"),
            ),
            self._program(
                "kube-apiserver",
                *(f"{self.binaries / 'kube-apiserver'}", f"--etcd-servers={etcd}", *serving),
                # In its own network it has that to itself, with the service's address.
                f"--bind-address={self.place.family.anywhere if self._isolated else self.place.address}",
                f"--secure-port={self.server.rpartition(':')[2]}",
                *([f"--advertise-address={self.place.address}"] if self._isolated else []),
                f"--client-ca-file={ca}",
                f"--service-cluster-ip-range={self.place.family.services}",
                "--service-account-issuer=https://kubernetes.default.svc",
                f"--service-account-key-file={self._file('service-accounts.pub')}",
                f"--service-account-signing-key-file={accounts}",
                "--authorization-mode=Node,RBAC",
                "--enable-admission-plugins=NodeRestriction",
                "--allow-privileged=true",
                f"--kubelet-certificate-authority={ca}",
                f"--kubelet-client-certificate={self._file('kubelet-client.crt')}",
                f"--kubelet-client-key={self._file('kubelet-client.key')}",
                "--kubelet-preferred-address-types=InternalIP",
                # Blocking: what a request did is in the log when its answer is there.
                *(f"--audit-policy-file={policy}", f"--audit-log-path={self.audit_log}", "--audit-log-mode=blocking"),
            ),
            self._program(
                "kube-controller-manager",
                *(f"{self.binaries / 'kube-controller-manager'}", *serving, "--leader-elect=false"),
                *(f"--bind-address={self.place.address}", f"--secure-port={self.place.ports[3]}"),
                f"--kubeconfig={self.directory / 'controllers.kubeconfig'}",
                *(f"--service-account-private-key-file={accounts}", f"--root-ca-file={ca}"),
                "--use-service-account-credentials=true",
                *("--kube-api-qps=200", "--kube-api-burst=400"),
                "--horizontal-pod-autoscaler-sync-period=2s",
            ),
            self._program(
                "kube-scheduler",
                *(f"{self.binaries / 'kube-scheduler'}", *serving, "--leader-elect=false"),
                *(f"--bind-address={self.place.address}", f"--secure-port={self.place.ports[4]}"),
                f"--kubeconfig={self.directory / 'scheduler.kubeconfig'}",
            ),
        )

    def _program(self, name: str, *argv: str) -> Program:
        return Program(self.place, name, list(argv))
