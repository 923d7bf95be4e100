"""The one place that talks to the Kubernetes API: access, requests, watches, exec streams.

What must not live here: what a MiniCluster consists of (`executors.render`), when its objects are made or deleted
(`executors.provision`), anything of the agent. `kubernetes` is imported in `access` only, when a cluster is used.
"""

from executors.kube.access import ClusterAccess
from executors.kube.api import Api, Kind, Watch, connect
from executors.kube.errors import (
    ApiError,
    ConflictError,
    ExpiredError,
    ForbiddenError,
    InvalidError,
    NotFoundError,
    UnreachableError,
)

__all__ = [
    "Api",
    "ApiError",
    "ClusterAccess",
    "ConflictError",
    "ExpiredError",
    "ForbiddenError",
    "InvalidError",
    "Kind",
    "NotFoundError",
    "UnreachableError",
    "Watch",
    "connect",
]
