"""Names that objects, the entry script and the provisioners share."""

from __future__ import annotations

from executors.render.minicluster import MiniCluster

#: Ours among an object's labels; the name of the MiniCluster is in app.kubernetes.io/name.
LABELS = {"app.kubernetes.io/managed-by": "flux-operator-executors"}
#: The same of what our Flux Operator makes, which no run's client takes for a run's.
OPERATOR_LABELS = {"app.kubernetes.io/managed-by": "flux-operator-executors-controller"}
#: By which upstream's status tells an autoscaler what to look at; the services' pod does not have it.
SELECTOR_LABEL = "hpa-selector"
NAME_LABEL = "app.kubernetes.io/name"
HASH_ANNOTATION = "flux-operator-executors/spec-hash"

CERTIFICATE_KEY = "curve.cert"
#: Of what Flux's job shell does, in every pod beside the agent, which looks for it there by this name.
SHELL_KEY = "shell.lua"

#: On a resource's lead: the size that it is to have. The lead reads it as a file, so that nobody has to enter the pod.
WISH_ANNOTATION = "flux-operator-executors/size"

#: Port of the brokers' overlay network.
BROKER_PORT = 8050

#: Exit code of a lead that finds that it is not the first one (podFailurePolicy makes the Job fail).
LEAD_LOST = 75
#: Exit code of every follower, so that its index never counts as completed.
FOLLOWER_ENDED = 76
#: Exit code of a lead that was told to end before any client came: the Job makes another as if it had never been.
UNSERVED = 77


def config_map_name(cluster: MiniCluster) -> str:
    return _own(cluster, f"{cluster.name}-entrypoint")


def files_volume_name(cluster: MiniCluster) -> str:
    """As upstream's; a volume's name may be no longer than a label."""
    return f"{cluster.name}-entrypoint"


def secret_name(cluster: MiniCluster) -> str:
    return _own(cluster, f"{cluster.name}-curve")


def network_policy_name(cluster: MiniCluster) -> str:
    return _own(cluster, f"{cluster.name}-brokers")


def service_name(cluster: MiniCluster) -> str:
    """The headless Service, which is also the pods' subdomain."""
    return cluster.spec.headless_name or _known(cluster, cluster.name)


def _own(cluster: MiniCluster, name: str) -> str:
    return f"{name}-{cluster.token}" if cluster.token else name


def _known(cluster: MiniCluster, name: str) -> str:
    """The same of what users of a MiniCluster resource know by its name."""
    return name if cluster.profile.of_resource else _own(cluster, name)


def services_pod_name(cluster: MiniCluster) -> str:
    """That of an earlier Job of this name may still be going. Others know the pod by its host name."""
    return _known(cluster, services_host_name(cluster))


def services_host_name(cluster: MiniCluster) -> str:
    return f"{cluster.name}-services"


def agent_config_map_name(cluster: MiniCluster) -> str:
    """Operator mode."""
    return f"{cluster.name}-agent"


def flux_container_name(cluster: MiniCluster) -> str:
    if cluster.profile.of_resource:  # as upstream does, whatever the spec calls it
        return cluster.name
    return cluster.spec.flux_container.name or cluster.name


def port_service_name(cluster: MiniCluster, container: str) -> str:
    """The Service of a container beside the broker's. Upstream calls it after the container alone."""
    return container if cluster.profile.of_resource else f"{cluster.name}-{container}"
