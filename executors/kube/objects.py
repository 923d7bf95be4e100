"""Kubernetes objects as they are read: the fields that this project looks at, and no others.

What is optional in the API may be missing; lists and mappings may be null too, so that readers write ``or []``. What is
created is rendered as plain JSON instead (`executors.render`), of which Kubernetes checks every field itself.
"""

from __future__ import annotations

from typing import Any, Generic, Required, TypedDict, TypeVar

T = TypeVar("T")


class OwnerReference(TypedDict, total=False):
    kind: str
    name: str
    uid: str


class ManagedFields(TypedDict, total=False):
    """Who has written which fields last."""

    manager: str
    time: str
    fieldsV1: dict[str, Any]


class Metadata(TypedDict, total=False):
    name: Required[str]
    namespace: str
    uid: str
    resourceVersion: str
    generation: int
    creationTimestamp: str
    deletionTimestamp: str
    labels: dict[str, str]
    annotations: dict[str, str]
    ownerReferences: list[OwnerReference]
    managedFields: list[ManagedFields]


class KubernetesObject(TypedDict, total=False):
    """What every object has; all that is read of Services, ConfigMaps, Namespaces and the like."""

    kind: str
    metadata: Required[Metadata]


class ListMetadata(TypedDict):
    resourceVersion: str


class ObjectList(TypedDict, Generic[T]):
    metadata: ListMetadata
    items: list[T]


class Condition(TypedDict, total=False):
    """``status``: True, False or Unknown."""

    type: str
    status: str
    reason: str
    message: str
    lastTransitionTime: str
    observedGeneration: int


# -- pods


class Waiting(TypedDict, total=False):
    reason: str
    message: str


class Terminated(TypedDict, total=False):
    exitCode: int
    reason: str
    message: str


class ContainerState(TypedDict, total=False):
    """Exactly one of these."""

    waiting: Waiting
    running: dict[str, str]
    terminated: Terminated


class ContainerStatus(TypedDict, total=False):
    name: Required[str]
    image: str
    ready: bool
    state: ContainerState
    lastState: ContainerState


class PodStatus(TypedDict, total=False):
    phase: str
    reason: str
    message: str
    conditions: list[Condition]
    initContainerStatuses: list[ContainerStatus]
    containerStatuses: list[ContainerStatus]


class EnvVar(TypedDict):
    name: str


class Amounts(TypedDict, total=False):
    """Quantities by resource."""

    requests: dict[str, str]
    limits: dict[str, str]


class Container(TypedDict, total=False):
    name: Required[str]
    env: list[EnvVar]
    resources: Amounts


class PodSpec(TypedDict, total=False):
    nodeName: str
    restartPolicy: str
    containers: list[Container]


class Pod(KubernetesObject, total=False):
    spec: PodSpec
    status: PodStatus


# -- Jobs


class ExitCodes(TypedDict, total=False):
    containerName: str


class FailureRule(TypedDict, total=False):
    onExitCodes: ExitCodes


class FailurePolicy(TypedDict):
    rules: list[FailureRule]


class JobSpec(TypedDict, total=False):
    completions: int
    parallelism: int
    suspend: bool
    podFailurePolicy: FailurePolicy


class JobStatus(TypedDict, total=False):
    startTime: str
    conditions: list[Condition]


class Job(KubernetesObject, total=False):
    spec: JobSpec
    status: JobStatus


# -- events


class ObjectReference(TypedDict, total=False):
    kind: str
    name: str
    uid: str
    #: ``spec.containers{name}`` where it is about one container.
    fieldPath: str


class EventSeries(TypedDict, total=False):
    lastObservedTime: str


class Event(KubernetesObject, total=False):
    """``type``: Normal or Warning."""

    involvedObject: ObjectReference
    type: str
    reason: str
    message: str
    series: EventSeries
    lastTimestamp: str
    eventTime: str


# -- what else is looked at


class ConfigMap(KubernetesObject, total=False):
    binaryData: dict[str, str]


class Version(TypedDict, total=False):
    """What ``/version`` answers."""

    major: str
    minor: str
    gitVersion: str


class ScopeSelector(TypedDict, total=False):
    scopeName: Required[str]
    operator: str
    values: list[str]


class ScopeSelectors(TypedDict, total=False):
    matchExpressions: list[ScopeSelector]


class QuotaSpec(TypedDict, total=False):
    hard: dict[str, str]
    scopes: list[str]
    scopeSelector: ScopeSelectors


class QuotaStatus(TypedDict, total=False):
    hard: dict[str, str]
    used: dict[str, str]


class ResourceQuota(KubernetesObject, total=False):
    spec: QuotaSpec
    status: QuotaStatus


class LimitItem(TypedDict, total=False):
    """Quantities by resource; ``type``: Container or Pod."""

    type: Required[str]
    min: dict[str, str]
    max: dict[str, str]
    default: dict[str, str]
    defaultRequest: dict[str, str]
    maxLimitRequestRatio: dict[str, str]


class LimitRangeSpec(TypedDict):
    limits: list[LimitItem]


class LimitRange(KubernetesObject):
    spec: LimitRangeSpec


# -- the Flux Operator's


class MiniClusterStatus(TypedDict, total=False):
    jobid: str
    size: int
    maximumSize: int
    selector: str
    observedGeneration: int
    conditions: list[Condition]


class MiniCluster(KubernetesObject, total=False):
    """``spec`` is a document of `executors.spec`."""

    spec: dict[str, Any]
    status: MiniClusterStatus


class LeaseSpec(TypedDict, total=False):
    """Times are timestamps with microseconds; the duration is in seconds."""

    holderIdentity: str
    leaseDurationSeconds: int
    leaseTransitions: int
    acquireTime: str
    renewTime: str


class Lease(KubernetesObject, total=False):
    spec: LeaseSpec
