"""The lead broker's container of any MiniCluster: a run's, this project's Flux Operator's, or upstream's."""

from __future__ import annotations

from os import terminal_size

from executors.config import RunConfig
from executors.errors import ProvisionError
from executors.kube import ClusterAccess, connect
from executors.kube.api import PODS
from executors.kube.objects import Pod
from executors.provision.kubernetes import diagnosis
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

#: The exec stream's own message about the size overtakes neither the program's start nor the first keys: a program that
#: asks at once would be told 0 by 0. Where there is no stty, that message is all there is.
_SIZE = "stty rows {0.lines} cols {0.columns} 2>/dev/null\n"


def lead_of(config: RunConfig, name: str, argv: tuple[str, ...], *, terminal: terminal_size | None) -> PodExecEndpoint:
    """Returns where a command runs with FLUX_URI set (without one: a shell), in the lead of the MiniCluster ``name``.

    ``terminal`` is the size of the terminal that somebody looks at, None where nobody does.
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
            script = (_SIZE.format(terminal) if terminal else "") + _SCRIPT
            command = ("/bin/sh", "-c", script, "shell", *argv)
            return PodExecEndpoint(access, namespace, diagnosis.name_of(pod), container, command, tty=bool(terminal))
    if pods:
        what = f"its lead broker does not run: {', '.join(map(_phase, pods))}"
    else:
        what = "no MiniCluster of that name has a pod with a lead broker; see `kubectl get mc,jobs`"
    raise ProvisionError(f"{name} in the namespace {namespace}: {what}")


def _container(pod: Pod, name: str) -> str:
    containers = pod["spec"]["containers"]
    for container in containers:
        if container["name"] == name or any(env["name"] == FAILURES for env in container.get("env", [])):
            return container["name"]
    return containers[0]["name"]


def _phase(pod: Pod) -> str:
    return f"{diagnosis.name_of(pod)} is {pod['status'].get('phase', 'Unknown')}"
