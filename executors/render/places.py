"""Where our own files are in a pod, and how they come there.

As a rule by volumes. But a pod with any volume at all starts some 0.3 s later, since the kubelet looks only that often
whether its volumes are there; so where nothing else needs one, the few texts come by environment variables (out of the
same ConfigMap and Secret), and the entry script writes them into the container's own file system.

A MiniCluster resource always has volumes: the directory that upstream's users know, and the size that it is to have.
Both are made on the node. A ConfigMap and a Secret, though, the kubelet gets from the API server, which refuses them
now and then, since it has not yet noticed that the pod is that node's; the kubelet asks again a second later. A volume
needs them at once, a variable when the pod's sandbox is there. So a resource's texts come by variables too, where
nobody but the broker's container reads them.
"""

from __future__ import annotations

from dataclasses import dataclass

from executors.render.minicluster import MiniCluster, Program
from executors.render.names import CERTIFICATE_KEY
from executors.render.patch import needs_mounts
from executors.spec import Commands, Container, MiniClusterSpec

#: Bytes of a user's part of broker.toml. Linux takes 128 KiB as one variable, and each byte may become six in it.
_LARGEST = 20 * 1024


@dataclass(frozen=True)
class PodPaths:
    """Paths below ``root``, which is empty where the state's directory is a volume.

    ``texts``: below it the entry script writes what it has from variables; empty where that is mounted.
    """

    root: str
    texts: str

    @property
    def files(self) -> str:
        """Our files that nobody writes to: entry script, broker.toml, agent, hooks."""
        return f"{self.texts}/flux_operator"

    @property
    def entry(self) -> str:
        return f"{self.files}/entry.sh"

    @property
    def agent_archive(self) -> str:
        return f"{self.files}/agent.pyz"

    @property
    def broker_config(self) -> str:
        return f"{self.files}/broker.toml"

    @property
    def secret(self) -> str:
        """The Secret's. Flux refuses a certificate that others may read, so the entry script copies it."""
        return f"{self.texts}/flux_operator_curve"

    @property
    def wish(self) -> str:
        """The size that a resource's lead is to have, as a file; empty where nobody has said anything."""
        return f"{self.root}/flux_operator_wish/size"

    @property
    def state(self) -> str:
        """What the brokers and the agent write. Its directories belong to the pod's user."""
        return f"{self.root}/run/flux_operator"

    @property
    def agent_directory(self) -> str:
        """The agent's ``--directory``; its socket is agent.sock in it."""
        return f"{self.state}/agent"

    @property
    def certificate(self) -> str:
        return f"{self.state}/flux/{CERTIFICATE_KEY}"

    @property
    def broker_uri(self) -> str:
        return f"local://{self.state}/flux/local"

    @property
    def broker_state(self) -> str:
        """The database of the broker's content (lead only)."""
        return f"{self.state}/flux/state"

    @property
    def broker_run(self) -> str:
        """Sockets and jobs' temporary files; /tmp may be read-only."""
        return f"{self.state}/flux/run"


MOUNTED = PodPaths("", "")
#: Everybody may write to /var/tmp (FHS 3.0, 5.15), and jobs clear it less often than /tmp.
UNMOUNTED = PodPaths("/var/tmp", "/var/tmp")
#: The state's directory is a volume of the node's own, and our files are written into it.
CARRIED = PodPaths("", MOUNTED.state)


def pod_paths(spec: MiniClusterSpec, *, agent: bool, resource: bool = False) -> PodPaths:
    """``agent``: the lead runs our agent, no command of the spec's; ``resource``: it is a MiniCluster resource's."""
    if resource:
        return CARRIED if _needs_no_files(spec) and not _has_files(spec.flux_container) else MOUNTED
    return UNMOUNTED if agent and _needs_no_volume(spec) and not needs_mounts(spec.pod_patch) else MOUNTED


def places_for(cluster: MiniCluster, program: Program | None) -> PodPaths:
    """Those of what is rendered."""
    return pod_paths(cluster.spec, agent=program is not None, resource=cluster.profile.of_resource)


def _needs_no_volume(spec: MiniClusterSpec) -> bool:
    container = spec.flux_container
    # A sandboxed runtime may keep the container's own file system in memory.
    plain = not spec.pod.runtime_class_name
    writable = not container.security_context.get("readOnlyRootFilesystem")
    return _needs_no_files(spec) and plain and writable and not container.volumes


def _needs_no_files(spec: MiniClusterSpec) -> bool:
    """Whether nobody but the broker's container reads our files, and they are small enough for variables."""
    container = spec.flux_container
    alone = len(spec.containers) == 1 and spec.flux.container.disable
    small = len(spec.flux.broker_config.encode()) + len(spec.flux.burst_hostlist) < _LARGEST
    # What these start has the container's environment, with the certificate, and may go on for long.
    hooks = has_texts(container.commands) or container.post_start or container.pre_stop
    return alone and small and not hooks


def _has_files(container: Container) -> bool:
    """Whether what it runs is a file of the ConfigMap."""
    return container.batch or container.batch_raw or bool(container.commands.script)


def has_texts(commands: Commands) -> bool:
    """Whether there are shell texts of the user's, which are files of the ConfigMap."""
    texts = (commands.init, commands.pre, commands.broker_pre, commands.worker_pre, commands.service_pre, commands.post)
    return any(texts)
