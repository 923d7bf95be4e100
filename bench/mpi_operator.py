"""Kubeflow's MPI Operator beside ours: FLUXOP_TEST_MPI_OPERATOR names its program, FLUXOP_TEST_MPI_CRD its CRD."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.common import NotHere
from tests.cluster.testbed.cluster import Cluster
from tests.cluster.testbed.processes import Program

#: A launcher hangs that begins before the cluster's DNS knows its workers and itself; MPI Operator's images wait, too.
_LAUNCH = (
    "hosts=$(cut -d: -f1 /etc/mpi/hostfile); for host in $hosts; do "
    'until getent hosts "$host" "$(hostname).${host#*.}" >/dev/null; do sleep 0.1; done; done; exec "$@"'
)
_PROGRAM, _CRD = "FLUXOP_TEST_MPI_OPERATOR", "FLUXOP_TEST_MPI_CRD"


def start(cluster: Cluster) -> Program | None:
    """As the administrator; None where it is not given."""
    given = [os.environ.get(variable, "") for variable in (_PROGRAM, _CRD)]
    if not any(given):
        return None
    if not all(Path(path).is_file() for path in given):
        raise NotHere(f"{_PROGRAM} and {_CRD} name two files")
    program, crd = given
    cluster.install_crd(Path(crd))
    argv = [program, "--lock-namespace=default", "--kube-api-qps=100", "--kube-api-burst=200"]
    running = Program(cluster.place, "mpi-operator", argv, {"KUBECONFIG": str(cluster.kubeconfig)})
    running.start()
    return running


class MPIJob:
    """Of two workers with a rank each, as examples/lammps/mpijob.yaml."""

    kind = "mpijobs.kubeflow.org"
    path = "/apis/kubeflow.org/v2beta1/namespaces/{}/mpijobs"
    writer = "training.kubeflow.org/job-name={},training.kubeflow.org/job-role=launcher"
    pods = "training.kubeflow.org/job-name={}"
    ends = ("Succeeded", "Failed")

    def __init__(self, image: str, command: Sequence[str], resources: Mapping[str, Any]) -> None:
        container = {"image": image, "workingDir": "/opt/hns", "securityContext": {"runAsUser": 0}}
        launch = ["/bin/sh", "-c", _LAUNCH, "launch", "mpirun", "-n", "2", *command]
        launcher = {**container, "name": "launcher", "command": launch}
        worker = {**container, "name": "worker", "resources": resources}
        self.document = {
            "apiVersion": "kubeflow.org/v2beta1",
            "kind": "MPIJob",
            "metadata": {"name": f"lammps-{uuid.uuid4().hex[:6]}"},
            "spec": {
                "slotsPerWorker": 1,
                "mpiImplementation": "MPICH",
                "runPolicy": {"cleanPodPolicy": "Running"},
                "mpiReplicaSpecs": {
                    "Launcher": {"replicas": 1, "template": {"spec": {"containers": [launcher]}}},
                    "Worker": {"replicas": 2, "template": {"spec": {"containers": [worker]}}},
                },
            },
        }
