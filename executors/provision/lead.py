"""The lead broker's container of any MiniCluster: of a run of ours, of our Flux Operator, or of upstream's."""

from __future__ import annotations

from typing import Any

from executors.config import RunConfig
from executors.errors import ProvisionError
from executors.kube import ClusterAccess, connect
from executors.kube.api import PODS
from executors.provision import diagnosis
from executors.render.entry import FAILURES
from executors.transport import PodExecEndpoint

#: Upstream's pods, and all that have a view, tell by a file where Flux is.
_SCRIPT = """view=${FLUXOP_VIEW:-/mnt/flux}
if [ -r "$view/flux-view.sh" ]; then . "$view/flux-view.sh"; fi
FLUX_URI=${FLUX_URI:-${fluxsocket:-}}
export FLUX_URI
if [ $# = 0 ]; then
    if command -v bash >/dev/null 2>&1; then set -- bash; else set -- sh; fi
fi
exec "$@"
"""


def lead_of(config: RunConfig, name: str, argv: tuple[str, ...], *, tty: bool) -> PodExecEndpoint:
    """Where a command runs with FLUX_URI set (without one: a shell), in the lead of the MiniCluster ``name``.

    Raises ProvisionError where no lead runs.
    """
    access = ClusterAccess(config.run.kubeconfig, config.run.context)
    api = connect(access)
    try:
        namespace = config.run.namespace or api.namespace
        labels = f"job-name={name},{diagnosis.INDEX}=0"
        pods = api.list(PODS, namespace, labels=labels)["items"]
    finally:
        api.close()
    for pod in pods:
        container = _container(pod, name)
        if diagnosis.is_running(pod, container):
            command = ("/bin/sh", "-c", _SCRIPT, "shell", *argv)
            return PodExecEndpoint(access, namespace, diagnosis.name_of(pod), container, command, tty)
    if pods:
        what = f"its lead broker does not run: {', '.join(map(_phase, pods))}"
    else:
        what = "there is no lead broker's pod of a MiniCluster of that name; `kubectl get mc,jobs` shows what there is"
    raise ProvisionError(f"{name} in the namespace {namespace}: {what}")


def _container(pod: Any, name: str) -> str:
    containers = pod["spec"]["containers"]
    for one in containers:
        if one["name"] == name or any(env["name"] == FAILURES for env in one.get("env", [])):
            return str(one["name"])
    return str(containers[0]["name"])


def _phase(pod: Any) -> str:
    return f"{diagnosis.name_of(pod)} is {pod['status'].get('phase', 'Unknown')}"
