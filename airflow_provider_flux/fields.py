"""The fields of a connection of type ``flux``. Values only."""

from __future__ import annotations

#: Fields of the connection's form, kept in its extras: label and help.
FIELDS = {
    "provisioner": (
        "Provisioner",
        "direct or operator (Kubernetes), local (this machine), attach (an instance that is there)",
    ),
    "config": ("Pipeline config", "Path of a FluxRun or MiniCluster YAML file on the workers, or its content"),
    "namespace": ("Namespace", "Kubernetes namespace; default: the context's"),
    "kubeconfig": ("kubeconfig", "Path on workers and triggerers; default: the pod's service account, or kubectl's"),
    "context": ("Context", "Context in the kubeconfig; default: its current one"),
    "kubernetes_conn_id": ("Kubernetes connection", "Take kubeconfig, context and namespace from this connection"),
    "job_url": ("Job link", "URL of a job, with {namespace}, {name}, {instance} and {job} to be filled in"),
    "minicluster_url": ("MiniCluster link", "URL of a MiniCluster, with {namespace} and {name} to be filled in"),
}
