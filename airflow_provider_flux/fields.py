"""The fields of a connection of type ``flux``. Values only."""

from __future__ import annotations

#: Fields of the connection's form, kept in its extras: label and help.
FIELDS = {
    "provisioner": (
        "Provisioner",
        "direct or operator (Kubernetes), local (this machine), attach (the instance of FLUX_URI)",
    ),
    "config": ("Pipeline config", "Path of a FluxRun or MiniCluster YAML file on the workers, or the YAML text itself"),
    "namespace": ("Namespace", "Kubernetes namespace; default: the context's"),
    "kubeconfig": (
        "kubeconfig",
        "Path on workers and triggerers; default: as kubectl, or in a pod its service account",
    ),
    "context": ("Context", "Context in the kubeconfig; default: its current one"),
    "kubernetes_conn_id": ("Kubernetes connection", "Take kubeconfig, context and namespace from this connection"),
    "job_url": ("Job link", "URL of a job; {namespace}, {name}, {instance} and {job} are filled in"),
    "minicluster_url": ("MiniCluster link", "URL of a MiniCluster; {namespace} and {name} are filled in"),
}
