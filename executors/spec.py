"""A v1alpha2 MiniCluster spec: its one description, by which documents are checked, completed and read. Pure.

Every field of the Flux Operator's CRD stands here once, in its section's class: its name (in snake case), its type,
and its default where the CRD has one (tests compare them). From this follow `SPEC`, hence validation, the JSON Schema
and our own CRD, and the typed spec that is rendered; ``document`` keeps what was given, word for word.
What must not live here: Kubernetes objects (`executors.render`), and what can be honoured by whom
(`executors.validation`).
"""

# Without ``from __future__ import annotations``: they are read, and as texts would have to be compiled for it.
import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

from executors.described import at, beside, document_type, read_by, read_part, upstream
from executors.errors import SpecError
from executors.schema import (
    FLAG,
    FLUX_DECIDES,
    HIDDEN,
    INT64,
    QUANTITY,
    TEXT,
    JSONValue,
    list_of,
    map_of,
    needed,
    object_of,
    one_of,
    shape_problems,
    whole,
)

#: Image of a container that names none: Flux's own, of a version that has all that is used here.
DEFAULT_IMAGE = "docker.io/fluxrm/flux-core:bookworm-v0.88.0"

Hidden = Annotated[str, HIDDEN]
Count = Annotated[int, whole(0)]
Size = Annotated[int, whole(1)]
Seconds = Annotated[int, whole(1, INT64)]
Port = Annotated[int, whole(1, 65535)]
Quantity = Annotated[str | int, QUANTITY]

# What is handed to Kubernetes as it is given: its fields are checked, and not typed.
_ID = whole(0, INT64)
_USER = {
    "runAsGroup": _ID,
    "runAsNonRoot": FLAG,
    "runAsUser": _ID,
    "seLinuxOptions": object_of(level=TEXT, role=TEXT, type=TEXT, user=TEXT),
    "seccompProfile": object_of(
        localhostProfile=TEXT, type=needed(one_of("RuntimeDefault", "Localhost", "Unconfined"))
    ),
}
_WINDOWS = object_of(gmsaCredentialSpec=TEXT, gmsaCredentialSpecName=TEXT, hostProcess=FLAG, runAsUserName=TEXT)
_SECURITY = object_of(
    allowPrivilegeEscalation=FLAG,
    capabilities=object_of(add=list_of(TEXT), drop=list_of(TEXT)),
    privileged=FLAG,
    procMount=one_of("Default", "Unmasked"),
    readOnlyRootFilesystem=FLAG,
    **_USER,
    windowsOptions=_WINDOWS,
)
_POD_SECURITY = object_of(
    fsGroup=_ID,
    fsGroupChangePolicy=one_of("OnRootMismatch", "Always"),
    **_USER,
    supplementalGroups=list_of(_ID),
    sysctls=list_of(object_of(name=needed(TEXT), value=needed(TEXT))),
    windowsOptions=_WINDOWS,
)
SecurityContext = Annotated[Mapping[str, JSONValue], _SECURITY]
Toleration = Annotated[
    Mapping[str, str],
    object_of(
        effect=one_of("NoSchedule", "PreferNoSchedule", "NoExecute"),
        key=TEXT,
        operator=one_of("Exists", "Equal"),
        value=TEXT,
    ),
]


@dataclass(frozen=True)
class Resources:
    """Kubernetes quantities as given: ``{"cpu": "2", "memory": "4Gi"}``."""

    requests: Mapping[str, Quantity] = field(default_factory=dict)
    limits: Mapping[str, Quantity] = field(default_factory=dict)


@dataclass(frozen=True)
class Volume:
    """One volume and where it is mounted; exactly one source is set in a volume that can be rendered."""

    name: str = beside()
    path: str = ""
    read_only: bool = upstream(False)
    claim_name: str = ""
    config_map_name: str = ""
    secret_name: str = ""
    host_path: str = ""
    empty_dir: bool = upstream(False)
    empty_dir_medium: str = ""
    empty_dir_size_limit: str = ""
    csi_driver: str = ""
    csi_driver_attributes: Mapping[str, str] = field(default_factory=dict)
    #: Key -> path, of a ConfigMap.
    items: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Commands:
    """Shell texts of the user's around the broker, and words before it (``prefix``)."""

    init: str = ""
    pre: str = ""
    broker_pre: str = ""
    worker_pre: str = ""
    service_pre: str = ""
    post: str = ""
    prefix: str = ""
    script: str = ""


def _volumes(given: Mapping[str, JSONValue]) -> tuple[Volume, ...]:
    return tuple(read_part(Volume, one, name=name) for name, one in given.items())


def _secrets(given: Mapping[str, JSONValue]) -> dict[str, tuple[str, str]]:
    return {name: (one["name"], one["key"]) for name, one in given.items()}


@dataclass(frozen=True)
class Container:
    """A container of the brokers' pods, or of the service pod."""

    name: str = ""
    image: str = upstream("ghcr.io/rse-ops/accounting:app-latest", of_run=DEFAULT_IMAGE, empty="")
    #: Where not given: Always with ``pull_always``, else IfNotPresent.
    image_pull_policy: Annotated[str, one_of("Always", "IfNotPresent", "Never")] = "IfNotPresent"
    image_pull_secret: str = ""
    pull_always: bool = upstream(False)
    run_flux: bool = False
    command: str = ""
    commands: Commands = field(default_factory=Commands)
    launcher: bool = False
    #: With ``batch_raw`` too.
    batch: bool = False
    batch_raw: bool = False
    logs: str = ""
    environment: Mapping[str, Hidden] = field(default_factory=dict, repr=False)
    #: Variable -> (name of a Secret, its key).
    secrets: Annotated[Mapping[str, tuple[str, str]], map_of(object_of(key=needed(TEXT), name=needed(TEXT)))] = read_by(
        _secrets, dict
    )
    working_dir: str = ""
    ports: tuple[Port, ...] = ()
    resources: Resources = field(default_factory=Resources)
    security_context: SecurityContext = field(default_factory=dict)
    volumes: Annotated[tuple[Volume, ...], map_of(document_type(Volume))] = read_by(_volumes, tuple)
    post_start: str = at("lifeCycle.postStartExec")
    pre_stop: str = at("lifeCycle.preStopExec")
    no_wrap_entrypoint: bool = False

    @classmethod
    def read(cls, given: Mapping[str, JSONValue]) -> "Container":
        """Returns the container that a document of the right shape describes."""
        always = "Always" if given.get("pullAlways") else cls.image_pull_policy
        return read_part(
            cls,
            given,
            image_pull_policy=given.get("imagePullPolicy", always),
            batch=given.get("batch", False) or given.get("batchRaw", False),
        )


@dataclass(frozen=True)
class View:
    """Where Flux comes from: ``disable`` means the image's own, else an init container's image holds it."""

    disable: bool = upstream(False)
    #: Flux's view for images without Flux.
    image: str = upstream("ghcr.io/converged-computing/flux-view-ubuntu:tag-noble")
    name: str = upstream("flux-view")
    mount_path: str = upstream("/mnt/flux")
    pull_always: bool = upstream(False)
    image_pull_secret: str = ""
    python_path: str = ""
    working_dir: str = ""
    resources: Resources = field(default_factory=Resources)
    security_context: SecurityContext = field(default_factory=dict)


@dataclass(frozen=True)
class BurstCluster:
    """Brokers elsewhere that may join. ``size`` 0: as many as here; ``name`` "": burst-N."""

    name: str = ""
    size: Count = 0


@dataclass(frozen=True)
class LeadBroker:
    """A lead elsewhere that the brokers join, which only upstream's operator honours."""

    address: str
    name: str
    size: Size
    port: Port = upstream(8050)


@dataclass(frozen=True)
class FluxOptions:
    """Section ``flux``. ``connect_timeout`` is a Flux duration (RFC 23), "" where not given."""

    arch: str = ""
    container: View = field(default_factory=View)
    broker_config: str = ""
    burst_hostlist: str = at("bursting.hostlist")
    burst_clusters: tuple[BurstCluster, ...] = at("bursting.clusters", ())
    lead_broker: LeadBroker | None = at("bursting.leadBroker", None)
    complete_workers: bool = False
    connect_timeout: str = upstream("5s", of_run="1s", empty="")
    curve_cert: Hidden = field(default="", repr=False)
    disable_socket: bool = False
    environment: Mapping[str, Hidden] = field(default_factory=dict, repr=False)
    #: As syslog has them, 0 to 7; None: Flux's own.
    log_level: Annotated[int, whole(0, 7)] | None = upstream(6, of_run=FLUX_DECIDES)
    minimal_service: bool = False
    munge_secret: str = ""
    no_wait_socket: bool = False
    option_flags: str = ""
    queue_policy: str = at("scheduler.queuePolicy")
    simple_scheduler: bool = at("scheduler.simple", False)
    submit_command: str = ""
    topology: str = ""
    wrap: str = ""


@dataclass(frozen=True)
class Pod:
    """Section ``pod``, as given."""

    annotations: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    automount_service_account_token: bool = False
    dns_policy: Annotated[str, one_of("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None")] = ""
    host_ipc: bool = at("hostIPC", False)
    host_pid: bool = at("hostPID", False)
    node_affinity: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    node_selector: Mapping[str, str] = field(default_factory=dict)
    resources: Mapping[str, Quantity] = field(default_factory=dict)
    restart_policy: Annotated[str, one_of("Never", "OnFailure", "Always")] = ""
    runtime_class_name: str = ""
    scheduler_name: str = ""
    security_context: Annotated[Mapping[str, JSONValue], _POD_SECURITY] = field(default_factory=dict)
    service_account_name: str = ""
    tolerations: tuple[Toleration, ...] = ()


@dataclass(frozen=True)
class Logging:
    quiet: bool = upstream(False)
    debug: bool = upstream(False)
    timed: bool = upstream(False)
    strict: bool = upstream(False)
    zeromq: bool = upstream(False)


@dataclass(frozen=True)
class MiniClusterSpec:
    """A valid spec. ``size`` and ``max_size`` are pods; ``document`` is what was given, and is not to be changed."""

    containers: tuple[Container, ...]
    document: Mapping[str, JSONValue] = beside(repr=False)
    size: Size = upstream(1)
    #: At least ``size``.
    max_size: Size = 1
    min_size: Size | None = None
    tasks: Count = upstream(1)
    interactive: bool = upstream(False)
    #: None where not given.
    deadline_seconds: Seconds | None = upstream(31500000, empty=None)
    cleanup: bool = upstream(False)
    backoff_limit: Count | None = None
    share_process_namespace: bool = False
    archive_path: str = at("archive.path")
    job_labels: Mapping[str, str] = field(default_factory=dict)
    logging: Logging = field(default_factory=Logging)
    headless_name: str = at("network.headlessName")
    disable_affinity: bool = at("network.disableAffinity", False)
    flux: FluxOptions = field(default_factory=FluxOptions)
    pod: Pod = field(default_factory=Pod)
    services: tuple[Container, ...] = ()
    #: ``run.podPatch``, which stands beside the document (direct mode).
    pod_patch: Mapping[str, JSONValue] = beside(default_factory=dict, repr=False)

    @property
    def public_document(self) -> dict[str, JSONValue]:
        """The document without what is a secret (``flux.curveCert``), to be shown and kept in annotations."""
        flux = {name: value for name, value in self.document.get("flux", {}).items() if name != "curveCert"}
        return {name: flux if name == "flux" else value for name, value in self.document.items()}

    @property
    def flux_index(self) -> int:
        """Place in ``containers`` of the one that runs the broker."""
        return next((at for at, one in enumerate(self.containers) if one.run_flux), 0)

    @property
    def flux_container(self) -> Container:
        """The container that runs the broker."""
        return self.containers[self.flux_index]


#: The type of the whole ``spec`` of a v1alpha2 MiniCluster.
SPEC = document_type(MiniClusterSpec)


def default_document(size: int = 1) -> dict[str, JSONValue]:
    """The spec of a run that gives none: one container of `DEFAULT_IMAGE`, with the Flux that is in it."""
    return {"size": size, "flux": {"container": {"disable": True}}, "containers": [{"image": DEFAULT_IMAGE}]}


def parse_spec(document: Mapping[str, JSONValue], path: str = "minicluster") -> MiniClusterSpec:
    """Read a spec. Raises SpecError with every problem; ``path`` is where the document stands in what was given."""
    problems = shape_problems(document, path, SPEC)
    if not problems:
        problems = list(_rule_problems(document, path))
    if problems:
        raise SpecError(problems)
    document = copy.deepcopy(dict(document))
    size = document.get("size", MiniClusterSpec.size)
    return read_part(MiniClusterSpec, document, document=document, max_size=max(size, document.get("maxSize", 0)))


def _rule_problems(document: Mapping[str, JSONValue], path: str) -> Sequence[str]:
    """Rules between fields; the document's shape is right by now."""
    found = []
    size = document.get("size", MiniClusterSpec.size)
    if document.get("maxSize", size) < size:
        found.append(f"{path}.maxSize: {document['maxSize']} is less than size {size}; raise it, or leave it out")
    if document.get("minSize", 0) > max(size, document.get("maxSize", 0)):
        found.append(f"{path}.minSize: {document['minSize']} is more than there can be pods; lower it")
    if not document["containers"]:
        found.append(f"{path}.containers: [] is empty; give one container at least")
    running = [at for at, one in enumerate(document["containers"]) if one.get("runFlux")]
    if len(document["containers"]) > 1 and len(running) != 1:
        found.append(
            f"{path}.containers: {len(running)} of {len(document['containers'])} have runFlux: true; "
            "exactly one runs the broker, the others are beside it"
        )
    for group in ("containers", "services"):
        names: set[str] = set()
        for index, one in enumerate(document.get(group, [])):
            where = f"{path}.{group}[{index}]"
            name = one.get("name", "")
            if not name and (group == "services" or (len(document[group]) > 1 and not one.get("runFlux"))):
                found.append(f"{where}.name: is missing; every container beside the broker's needs one")
            if name and name in names:
                found.append(f"{where}.name: {name!r} is used twice; give each container a name of its own")
            names.add(name)
            if one.get("batch") and one.get("launcher"):
                found.append(f"{where}: batch and launcher exclude each other; set one of them")
    return found
