"""The instances that this program has made in a namespace: one request per kind of object."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import cast

from executors.config import RunConfig
from executors.errors import ProvisionError
from executors.kube import Api, ClusterAccess, NotFoundError, connect
from executors.kube.api import JOBS, MINICLUSTERS, PODS
from executors.kube.objects import Job, KubernetesObject, MiniCluster, Pod
from executors.provision.base import Instance
from executors.provision.kubernetes import diagnosis
from executors.render import LABELS

_OURS = ",".join(f"{name}={value}" for name, value in LABELS.items())


def in_namespace(config: RunConfig, mode: str) -> list[Instance]:
    """Returns all that a mode (``direct``, ``operator``) has made in the configured namespace, by name.

    Raises ProvisionError.
    """
    api = connect(ClusterAccess(config.run.kubeconfig, config.run.context))
    namespace = config.run.namespace or api.namespace
    try:
        owners = _owners(api, namespace, mode)
        pods = api.list(PODS, namespace, labels="job-name")["items"] if owners else []
        jobs = {diagnosis.name_of(one): one for one in _jobs(api, namespace, mode, owners)}
    except NotFoundError as err:
        raise ProvisionError(
            f"{api.server} knows no MiniClusters: the Flux Operator's CRD is not installed ({err})"
        ) from err
    finally:
        api.close()
    found = [_instance(owner, jobs.get(diagnosis.name_of(owner)), pods, mode) for owner in owners]
    return sorted(found, key=lambda one: one.name)


def _owners(api: Api, namespace: str, mode: str) -> Sequence[KubernetesObject]:
    if mode == "direct":
        return api.list(JOBS, namespace, labels=_OURS)["items"]
    return api.list(MINICLUSTERS, namespace, labels=_OURS)["items"]


def _jobs(api: Api, namespace: str, mode: str, owners: Sequence[KubernetesObject]) -> Sequence[Job]:
    if mode == "direct" or not owners:
        return cast(Sequence[Job], owners)
    return api.list(JOBS, namespace)["items"]


def _instance(owner: KubernetesObject, job: Job | None, pods: list[Pod], mode: str) -> Instance:
    metadata = owner["metadata"]
    uid = job["metadata"]["uid"] if job is not None else ""
    container = _container(owner, job, mode)
    mine = [pod for pod in pods if diagnosis.is_owned_by(pod, uid)]
    current = diagnosis.youngest(mine)
    running = [pod for pod in current if diagnosis.is_running(pod, container)]
    size = job["spec"]["completions"] if job is not None else cast(MiniCluster, owner)["spec"].get("size", 1)
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
        waits = [one.reason for pod in current if (one := diagnosis.judge_pod(pod, container)) is not None]
        state, reason = "starting", waits[0] if waits else "no pod has been created yet"
    created = _seconds(metadata["creationTimestamp"])
    # Kubernetes sets it again each time that it begins a Job that was suspended.
    begun = (job.get("status") or {}).get("startTime") if job is not None else None
    return Instance(
        metadata["name"], mode, metadata["namespace"], state, reason, int(size), len(running), created,
        begun=_seconds(begun) if begun else created,
    )  # fmt: skip


def _seconds(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp).timestamp()


def _container(owner: KubernetesObject, job: Job | None, mode: str) -> str:
    """The name of the broker's container."""
    if mode == "operator":
        return str(owner["metadata"]["name"])
    assert job is not None  # the owner itself
    [name] = {
        rule["onExitCodes"]["containerName"]
        for rule in job["spec"]["podFailurePolicy"]["rules"]
        if "containerName" in rule.get("onExitCodes", {})
    }
    return name


def _end(job: Job | None, pods: list[Pod], container: str) -> str | None:
    """Why its Job, or its lead broker, will do no more work."""
    found = diagnosis.judge_job(job) if job is not None else None
    return found.reason if isinstance(found, diagnosis.Fatal) else diagnosis.lead_end(pods, container)
