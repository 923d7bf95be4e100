"""Which instances of ours there are in a namespace: one request per kind of object."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from executors.config import RunConfig
from executors.errors import ProvisionError
from executors.kube import Api, ClusterAccess, Kind, NotFoundError, connect
from executors.kube.api import JOBS, MINICLUSTERS, PODS
from executors.provision import diagnosis
from executors.provision.base import Instance
from executors.render import LABELS

_OURS = ",".join(f"{name}={value}" for name, value in LABELS.items())


def in_namespace(config: RunConfig, mode: str) -> list[Instance]:
    """All that a mode (``direct``, ``operator``) has made in the configured namespace, by name.

    Raises ProvisionError.
    """
    api = connect(ClusterAccess(config.run.kubeconfig, config.run.context))
    namespace = config.run.namespace or api.namespace
    try:
        owners = api.list(JOBS if mode == "direct" else MINICLUSTERS, namespace, labels=_OURS)["items"]
        pods = api.list(PODS, namespace, labels="job-name")["items"] if owners else []
        jobs = {diagnosis.name_of(one): one for one in _jobs(api, namespace, mode, owners)}
    except NotFoundError as err:
        raise ProvisionError(
            f"{api.server} knows no MiniClusters: the Flux Operator's CRD is not there ({err})"
        ) from err
    finally:
        api.close()
    found = [_instance(owner, jobs.get(diagnosis.name_of(owner)), pods, mode) for owner in owners]
    return sorted(found, key=lambda one: one.name)


def _jobs(api: Api, namespace: str, mode: str, owners: list[Any]) -> list[Any]:
    jobs: Kind = JOBS
    return owners if mode == "direct" or not owners else list(api.list(jobs, namespace)["items"])


def _instance(owner: Any, job: Any, pods: list[Any], mode: str) -> Instance:
    metadata = owner["metadata"]
    uid = job["metadata"]["uid"] if job is not None else ""
    container = _container(owner, job, mode)
    mine = [pod for pod in pods if diagnosis.is_owned_by(pod, uid)]
    current = diagnosis.youngest(mine)
    running = [pod for pod in current if diagnosis.is_running(pod, container)]
    size = int(job["spec"]["completions"]) if job is not None else int(owner["spec"].get("size", 1))
    over = _end(job, mine, container)
    held = diagnosis.held(job, []) if job is not None else None
    if metadata.get("deletionTimestamp"):
        state, reason = "ending", "it is being deleted"
    elif over is not None:
        state, reason = "ended", over
    elif held is not None:
        state, reason = "suspended", held.reason
    elif any(diagnosis.index_of(pod) == 0 for pod in running):
        state, reason = "running", ""
    else:
        waits = [one.reason for pod in current if (one := diagnosis.of_pod(pod, container)) is not None]
        state, reason = "starting", waits[0] if waits else "no pod has been created yet"
    created = _seconds(metadata["creationTimestamp"])
    # Kubernetes sets it anew each time that it begins a Job that was suspended.
    begun = (job.get("status") or {}).get("startTime") if job is not None else None
    return Instance(
        metadata["name"], mode, metadata["namespace"], state, reason, size, len(running), created,
        begun=_seconds(begun) if begun else created,
    )  # fmt: skip


def _seconds(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp).timestamp()


def _container(owner: Any, job: Any, mode: str) -> str:
    """The name of the broker's container."""
    if mode == "operator":
        return str(owner["metadata"]["name"])
    [name] = {
        rule["onExitCodes"]["containerName"]
        for rule in job["spec"]["podFailurePolicy"]["rules"]
        if "containerName" in rule.get("onExitCodes", {})
    }
    return str(name)


def _end(job: Any, pods: list[Any], container: str) -> str | None:
    """Why its Job, or its lead broker, will do no more work."""
    found = diagnosis.of_job(job) if job is not None else None
    return found.reason if isinstance(found, diagnosis.Fatal) else diagnosis.lead_end(pods, container)
