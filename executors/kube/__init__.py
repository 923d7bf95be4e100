"""The one place that talks to the Kubernetes API: access, requests, watches, exec streams.

What must not live here: what a MiniCluster consists of (`executors.render`), when its objects are made or deleted
(`executors.provision`), anything of the agent. The kubernetes package is not used (see `access`).
"""

from executors.kube.access import ClusterAccess
from executors.kube.api import Api, Kind, Watch, connect
from executors.kube.errors import (
    ApiError,
    BusyError,
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
    "BusyError",
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
